"""How does a plugin run in a process of its own? Our own executable again, told to host that one plugin.

`wrap` turns a catalog entry into a `Factory` like any other, so a slot starts, restarts and quarantines a hosted
plugin as it does one in process. The child dies with its slot; when it crashes, its calls fail as retriable.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.sdk import (
    Ask,
    Attempt,
    Candidate,
    Context,
    Factory,
    Failed,
    Invalid,
    Outcome,
    PluginFailed,
    Record,
    Route,
)
from knotwork.sockets import carried
from knotwork.sockets.hosted_process import ARGUMENT, Child, Hosting, Spawn
from knotwork.sockets.hosted_trigger import HostedTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from pydantic import BaseModel

    from knotwork.sockets.catalog import Entry

__all__ = ["ARGUMENT", "HostedExecutor", "HostedRouter", "HostedTelemetry", "Hosting", "Spawn", "wrap"]


def wrap(entry: Entry, memory_mb: int, hosting: Hosting) -> Factory[Any]:
    """Return a factory that runs the entry's type hosted, limited to `memory_mb` (0: no limit).

    Raises `Invalid` (`plugin.hosted_kind`) for kinds that cannot be hosted.
    """
    if entry.kind not in _PROXIES:
        raise Invalid(
            f"{entry.kind} plugins cannot run hosted", code="plugin.hosted_kind", hint="Leave out `hosted`, or --apart."
        )
    if sys.platform == "win32":
        raise Invalid("hosted plugins need a Unix system", code="plugin.hosted_platform", hint="Remove `hosted`.")

    @asynccontextmanager
    async def open_hosted(config: BaseModel, context: Context) -> AsyncIterator[Any]:
        try:
            async with asyncio.TaskGroup() as group:
                child = await Child.spawned(entry, memory_mb, hosting, context, group)
                try:
                    await child.open(config)
                    yield _PROXIES[entry.kind](child)
                finally:
                    await child.close()
        except BaseExceptionGroup as errors:
            told = _the_one(errors)
            if told is errors:
                raise
            raise told from errors

    factory = entry.apart
    abilities = (*factory.abilities, "hosted")
    return Factory(factory.name, factory.config, open_hosted, factory.summary, factory.exclusive, abilities)


def _the_one(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the only error of a group, or its crash: the others follow from it; else the group."""
    leaves = list(errors.exceptions)
    crashes = [leaf for leaf in leaves if isinstance(leaf, PluginFailed) and leaf.code == "plugin.crashed"]
    return leaves[0] if len(leaves) == 1 else (crashes[0] if crashes else errors)


@dataclass(frozen=True)
class _Proxy:
    child: Child

    async def probe(self) -> None:
        """Ask the plugin whether it is well; raises what it raises."""
        await self.child.link.call("probe")


class HostedExecutor(_Proxy):
    """An executor in another process."""

    async def execute(self, attempt: Attempt) -> Outcome:
        """Carry out one attempt there; a crash is a failure that may be retried."""
        try:
            answer = await self.child.link.call("execute", carried.from_attempt(attempt), attempt.report)
        except PluginFailed as error:
            if error.code != "plugin.crashed":
                raise
            return Failed(f"{self.child.context.id}: {error.message}", code=error.code, retriable=True)
        return carried.to_outcome(answer)


class HostedRouter(_Proxy):
    """A router in another process."""

    async def route(self, ask: Ask, candidates: Sequence[Candidate]) -> Route | None:
        """Let it choose; a crash is left to the next router."""
        return carried.to_route(await self.child.link.call("route", carried.from_question(ask, candidates)), candidates)


class HostedTelemetry(_Proxy):
    """A sink in another process. It cannot be scraped: `scrape` may not wait."""

    @property
    def wants(self) -> frozenset[str]:
        """Return the kinds of records it asks for: all, unless it said otherwise."""
        match self.child.told:
            case {"wants": [*kinds]}:
                return frozenset(str(kind) for kind in kinds)
        return frozenset({"events", "spans", "metrics"})

    async def emit(self, records: Sequence[Record]) -> None:
        """Hand the batch over."""
        await self.child.link.call("emit", [carried.from_record(record) for record in records])


_PROXIES: dict[str, Callable[[Child], Any]] = {
    "executors": HostedExecutor,
    "routers": HostedRouter,
    "telemetry": HostedTelemetry,
    "triggers": HostedTrigger,
}
