"""A node that works, looks after runs and sees to triggers, in a process of its own. `python trigger_node.py '{…}'`.

With `lines`, a file, it has a trigger plugin "lines" that fires for each line of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.integration.flow import flow_node

from knotwork.config import secrets
from knotwork.flow.room import Flow
from knotwork.sdk import Factory, Firing, Mark, PluginConfig
from knotwork.sdk.testing import make_context
from knotwork.sockets.catalog import Entry
from knotwork.sockets.pace import Pace
from knotwork.sockets.slot import Instance, Slot
from knotwork.sockets.sources import Source
from knotwork.trigger.room import Triggers, open_triggers


class Lines:
    """Fires for each line of a file, from the mark on: the number of the line. `nan` is told as it is: no JSON."""

    fails: type[BaseException] = RuntimeError

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    async def firings(self, since: Any) -> AsyncIterator[Firing | Mark]:
        """Tell each line; the file beside it with `.broken` makes it fail."""
        place = since
        if place is None:
            place = len(self.lines())
            yield Mark(place)
        while True:
            for line in self.lines()[place:]:
                place += 1
                told: Any = object() if line == "nan" else line
                yield Firing(f"line {place}", told, {"number": place}, mark=place)
            if self.file.with_suffix(".broken").exists():
                raise self.fails(self.file.with_suffix(".broken").read_text())
            await asyncio.sleep(0.01)

    def lines(self) -> list[str]:
        """Return the lines that are whole."""
        return self.file.read_text().split("\n")[:-1] if self.file.exists() else []


@contextlib.asynccontextmanager
async def open_slot(plugin: Any, pace: Pace | None = None) -> AsyncIterator[Slot]:
    """Run a trigger plugin in a slot inside the block; returns when it runs."""

    @contextlib.asynccontextmanager
    async def opened(_config: Any, _context: Any) -> AsyncIterator[Any]:
        yield plugin

    factory: Factory[Any] = Factory("lines", PluginConfig, opened)
    entry = Entry("triggers", "lines", factory, Source("file", "lines", "lines"))
    instance = Instance("triggers", "lines", entry, PluginConfig())
    context = make_context(folder=plugin.file.parent)
    slot = Slot(instance, factory, context, lambda _: None, pace or Pace())
    async with asyncio.TaskGroup() as group:
        slot.start(group)
        await slot.settled(30)
        yield slot
        await slot.stop()


@contextlib.asynccontextmanager
async def open_node(
    url: str,
    seed: str,
    name: str,
    agents: dict[str, Any],
    lines: str = "",
    sources: Callable[[], dict[str, Slot]] | None = None,
) -> AsyncIterator[tuple[Flow, Triggers]]:
    """Be such a node inside the block."""
    async with contextlib.AsyncExitStack() as stack:
        if lines:
            slot = await stack.enter_async_context(open_slot(Lines(lines)))
            sources = lambda: {"lines": slot}  # noqa: E731
        work, flow = await stack.enter_async_context(flow_node.open_node(url, seed, name, agents))
        triggers = await stack.enter_async_context(
            open_triggers(flow.connection, work, flow, node=name, read=secrets.resolve, sources=sources or dict)
        )
        async with asyncio.timeout(30):
            await triggers.store.current.wait()
        yield flow, triggers


async def main(url: str, seed: str, name: str, agents: dict[str, Any], lines: str = "") -> None:
    """Work until killed."""
    async with open_node(url, seed, name, agents, lines):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
