"""A plugin that blocks while it opens is named by the node's start, though the loop stands still."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

from knotwork.host.opening import NAMED_MAX, Opening
from knotwork.sdk import Factory, PluginConfig
from knotwork.sdk.testing import make_context
from knotwork.sockets.catalog import Entry
from knotwork.sockets.slot import Instance, Slot
from knotwork.sockets.sources import Source


class _Settings(PluginConfig):
    pass


async def test_a_plugin_that_blocks_is_named(tmp_path):
    told, seen = [], threading.Event()

    def tell(why: str) -> None:
        told.append(why)
        seen.set()

    @asynccontextmanager
    async def block(_config, _context):
        seen.wait(60)  # in the loop, as a plugin does that asks a database without await
        yield object()

    opening = Opening(tell)
    factory = Factory("slow", _Settings, block, "Blocks.")
    entry = Entry("sinks", "slow", factory, Source("file", "slow", "/slow.py"))
    instance = Instance("sinks", "slow", entry, _Settings(), start_timeout_s=120)
    slot = Slot(instance, factory, make_context(id="slow", folder=tmp_path), opening.changed)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(opening.run))
        slot.start(group)
        assert await slot.settled(60) == "running"
        opening.over()
        await slot.stop()
    assert told[0] == "opening sinks.slow"


def test_what_is_open_is_not_named_and_of_many_the_last_are():
    told = []
    opening = Opening(lambda why: (told.append(why), opening.over()))
    for number in range(NAMED_MAX + 3):
        opening.changed(SimpleNamespace(kind="sinks", id=f"s{number}", state="starting"))
    opening.changed(SimpleNamespace(kind="sinks", id="s7", state="running"))
    opening.run()
    assert told == ["opening sinks.s6, sinks.s5, sinks.s4, sinks.s3, sinks.s2 and 2 more"]
