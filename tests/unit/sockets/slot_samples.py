"""Plugins that behave, and plugins that do not, for the tests of slots."""

import asyncio
import contextlib
import itertools
import logging
from contextlib import asynccontextmanager

from knotwork.sdk import Done, Factory, PluginConfig, Unavailable
from knotwork.sdk.testing import make_context
from knotwork.sockets.catalog import Entry
from knotwork.sockets.pace import Pace
from knotwork.sockets.slot import Instance
from knotwork.sockets.slots import Slots
from knotwork.sockets.sources import Source

QUICK = Pace(first_s=0.01, most_s=0.02)


class Panic(BaseException):
    """What an extension in Rust raises when it panics."""


class Mute(Exception):
    """One that cannot even be told."""

    def __str__(self):
        raise RuntimeError("no words")


ODD = {"panics": Panic("a panic"), "interrupts": KeyboardInterrupt(), "is closed": GeneratorExit(), "is mute": Mute()}


class Config(PluginConfig):
    """`how` says in which way it misbehaves."""

    how: str = ""
    times: int = 1_000_000
    mark: int = 0


class Plugin:
    def __init__(self, config):
        self.config = config
        self.ails = None
        self.crash = asyncio.Event()

    async def probe(self):
        if self.ails is not None:
            raise self.ails

    async def execute(self, attempt):
        return Done(self.config.mark)


class World:
    """Counts what is open, and makes instances and slots."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.open = 0
        self.opened = []
        self.changes = []
        self.left = itertools.count()
        self.stubborn_over = False

    @asynccontextmanager
    async def open_plugin(self, config, context):
        self.opened.append((context.id, config.mark))
        failing = len([one for one in self.opened if one[0] == context.id]) <= config.times
        plugin = Plugin(config)
        if failing and config.how == "raises":
            raise ValueError("no luck")
        if failing and config.how == "unavailable":
            raise Unavailable("not yet")
        if failing and config.how == "exits":
            raise SystemExit(3)
        if failing and config.how in ODD:
            raise ODD[config.how]
        if failing and config.how == "hangs":
            await asyncio.Event().wait()
        if failing and config.how == "cancels itself":
            raise asyncio.CancelledError
        if config.how == "stubborn start":
            await stubborn(3.0)
            self.stubborn_over = True
        self.open += 1
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.background(plugin, config))
                yield plugin
                if config.how == "hangs at the end":
                    await asyncio.Event().wait()
                if config.how == "raises at the end":
                    raise ValueError("at the end")
                task.cancel()
        finally:
            self.open -= 1

    async def background(self, plugin, config):
        if config.how == "crashes at once":
            raise RuntimeError("boom")
        await plugin.crash.wait()
        raise Unavailable("link lost") if config.how == "loses its link" else RuntimeError("boom")

    def instance(self, name="one", *, exclusive=False, on_start_error="retry", start_timeout_s=60.0, **config):
        factory = Factory("sample", Config, self.open_plugin, "Sample.", exclusive=exclusive)
        entry = Entry("executors", "sample", factory, Source("file", "sample", "/sample.py", digest=str(exclusive)))
        return Instance(
            "executors",
            name,
            entry,
            Config(**config),
            on_start_error=on_start_error,
            start_timeout_s=start_timeout_s,
            stop_timeout_s=0.2 if config.get("how") == "hangs at the end" else 60.0,
        )

    def context_for(self, instance):
        return make_context(id=instance.id, folder=self.tmp_path, log=logging.getLogger("test"))

    @asynccontextmanager
    async def slots(self, pace=QUICK):
        async with asyncio.TaskGroup() as group:
            slots = Slots(group, self.context_for, lambda slot: self.changes.append((slot.id, slot.state)), pace=pace)
            yield slots
            await slots.close(0.0)


async def stubborn(for_s):
    """Ignore cancellation for a while, as a plugin must not."""
    loop = asyncio.get_running_loop()
    until = loop.time() + for_s
    while loop.time() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(until - loop.time())  # what it is about
