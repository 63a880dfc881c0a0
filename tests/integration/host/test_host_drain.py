"""The drain on its own: who is told, when what runs is ended, and that nothing can be brought back from stopping."""

from __future__ import annotations

import asyncio
import logging
import re
from types import SimpleNamespace

import pytest

from knotwork.host import drain as drains
from knotwork.host.rooms import Rooms
from knotwork.mesh.hosting import Hosting
from knotwork.telemetry.emitter import Emitter
from knotwork.telemetry.measure import Meter


@pytest.fixture
async def hosting():
    async with asyncio.TaskGroup() as group:
        emitter = Emitter("here")
        yield Hosting(group, emitter, Meter(emitter), node="here")


async def test_states_follow_each_other_and_everybody_is_told(hosting):
    told = []
    drain = drains.Drain(hosting, lambda: told.append((drain.state, hosting.draining)))
    assert drain.state == "starting"
    drain.begin(60.0)  # before it is open there is nothing to drain
    drain.resume()
    assert drain.state == "starting"
    drain.open()
    drain.begin(60.0)
    drain.begin(30.0)  # only another deadline
    drain.resume()
    drain.resume()
    await drain.finish(0.0, now=asyncio.Event())
    drain.resume()
    drain.begin(1.0)
    assert told == [("running", False), ("draining", True), ("running", False), ("stopping", True)]


async def test_nothing_new_is_taken_by_a_node_that_says_it_stops(hosting):
    """However long its disk takes to keep that word."""
    drain, seen = drains.Drain(hosting, lambda: None), []

    class Reached(Exception):
        pass

    def say(state):
        seen.append((state, drain.state, hosting.draining, closed))
        raise Reached

    closed: list[bool] = []
    drain.open()
    parts = SimpleNamespace(
        drain=drain, reloader=SimpleNamespace(close=lambda: closed.append(True)), file=SimpleNamespace(say=say)
    )
    with pytest.raises(Reached):
        await Rooms.close(parts)
    assert seen == [("stopping", "stopping", True, [True])]


async def test_without_work_it_ends_at_once(hosting):
    drain = drains.Drain(hosting, lambda: None)
    drain.open()
    async with asyncio.timeout(30):
        await drain.finish(3600.0, now=asyncio.Event())


async def test_it_tells_who_runs_again_and_again(hosting, caplog, monkeypatch):
    monkeypatch.setattr(drains, "TELL_EVERY_S", 0.05)
    drain = drains.Drain(hosting, lambda: None)
    drain.open()
    hosting.idle.clear()  # somebody works
    now = asyncio.Event()
    caplog.set_level(logging.INFO, logger="knotwork.host.drain")

    def told() -> list[str]:
        return [record.message for record in caplog.records if record.message.startswith("still running")]

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(drain.finish(3600.0, now=now))
        while len(told()) < 3:
            await asyncio.sleep(0.01)
        now.set()
    assert re.search(r"3[56]\d\d s left", told()[0])
    hosting.idle.set()
