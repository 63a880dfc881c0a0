"""The reloader on its own: a reload goes on without whoever asked, and a signal is not lost behind a changed file."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from knotwork.bus.background import background
from knotwork.config import load
from knotwork.config.loaded import Sources
from knotwork.host.layout import Layout
from knotwork.host.reload import Reloader
from knotwork.sdk.errors import ConfigInvalid, Unavailable
from knotwork.telemetry.emitter import Emitter


class Reading:
    """A world whose files can be read when `go` is set, and are wrong."""

    def __init__(self, loaded):
        self.loaded, self.revision, self.emitter, self.code = loaded, 1, Emitter("here"), {}
        self.go, self.begun = threading.Event(), threading.Event()

    def read(self):
        self.begun.set()
        assert self.go.wait(60)
        raise ConfigInvalid("wrong")


@pytest.fixture
async def reloader(tmp_path):
    file = tmp_path / "knotwork.toml"
    file.write_text("# nothing\n")
    world = Reading(load.read(Sources((file,), None, {}, ())))
    async with background() as group:
        made = Reloader(world, None, None, Layout(tmp_path), group)
        yield SimpleNamespace(it=made, world=world, group=group)
        world.go.set()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_requester_that_goes_away_does_not_interrupt_it(reloader):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reloader.it.reload("op")
    await until(reloader.world.begun.is_set)
    assert reloader.it.last is None
    reloader.world.go.set()
    await until(lambda: reloader.it.last)
    assert (reloader.it.last.result, reloader.it.last.trigger) == ("refused", "op")
    with pytest.raises(ConfigInvalid):
        await reloader.it.reload("op")
    reloader.it.close()
    with pytest.raises(Unavailable):
        await reloader.it.reload("op")


async def test_a_signal_is_not_lost_behind_a_file(reloader):
    reloader.world.go.set()
    reloader.it.ask("signal")
    reloader.it.ask("file")
    reloader.group.create_task(reloader.it.run())
    await until(lambda: reloader.it.last)
    assert reloader.it.last.trigger == "signal"
