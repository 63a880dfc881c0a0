"""How does a trigger tell its firings that runs in a process of its own? One at a time: the next when that one is done.

One call lasts as long as the firings do; each of them is asked of the node by the process, and answered when the node
is done with it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.sdk import Firing, KnotworkError, Mark, PluginFailed
from knotwork.sockets import frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from knotwork.sdk import Trigger
    from knotwork.sockets.hosted_process import Child
    from knotwork.sockets.link import Link


async def tell(plugin: Trigger, since: Any, link: Link, number: int) -> None:
    """Tell the node what a trigger fires, in the trigger's process, for the node's call of this number."""
    telling: Any = plugin.firings(since)
    async with aclosing(telling):
        async for one in telling:
            await link.call("chunk", [number, frames.raw(_carried(one))])


def _carried(one: Any) -> list[Any]:
    match one:
        case Firing():
            return ["firing", one.id, one.input, dict(one.more), one.mark]
        case Mark():
            return ["mark", one.value]
    raise TypeError(f"told {type(one).__name__}, neither a Firing nor a Mark")


def _read(data: Any) -> Firing | Mark:
    match data:
        case ["firing", str(name), value, dict(more), mark]:
            return Firing(name, value, more, mark)
        case ["mark", value]:
            return Mark(value)
    raise PluginFailed("malformed firing", code="plugin.protocol")


class _Handed:
    """What is handed over from the process to whoever asks for firings; stands where an attempt's reporter does."""

    def __init__(self) -> None:
        self.ended: KnotworkError | None = None
        self.over = False
        self.waiting: list[tuple[Firing | Mark, asyncio.Event]] = []
        self.news = asyncio.Event()

    def progress(self, percent: float | None, text: str) -> None:
        """Nothing is told of how far it is."""

    async def stream(self, chunk: Any) -> None:
        done = asyncio.Event()
        self.waiting.append((_read(chunk), done))
        self.news.set()
        await done.wait()


class HostedTrigger:
    """A trigger in another process."""

    def __init__(self, child: Child) -> None:
        """Ask this one."""
        self._child = child

    async def probe(self) -> None:
        """Ask the plugin whether it is well; raises what it raises."""
        await self._child.link.call("probe")

    async def firings(self, since: Any) -> AsyncIterator[Firing | Mark]:
        """Tell what it tells there; a crash is an error."""
        handed = _Handed()
        asking = self._child.group.create_task(self._ask(since, handed), name=f"firings of {self._child.context.id}")
        try:
            while True:
                handed.news.clear()
                while handed.waiting:
                    one, done = handed.waiting.pop(0)
                    yield one
                    done.set()
                if handed.ended is not None:
                    raise handed.ended
                if handed.over:
                    return
                await handed.news.wait()
        finally:
            asking.cancel()

    async def _ask(self, since: Any, handed: _Handed) -> None:
        try:
            await self._child.link.call("firings", msgspec.to_builtins(since), handed)
        except KnotworkError as error:
            handed.ended = error
        finally:
            handed.over = True
            handed.news.set()
