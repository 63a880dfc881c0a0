"""Who awaits a task hears of its end, however early it comes and whoever else waits."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tests.integration.work import work_node
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import away, streams, subjects
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import KnotworkError, NotFound, Unavailable, Unreachable
from knotwork.work import stores, waiting


async def test_an_end_that_comes_before_the_submission_was_answered_is_heard(bench):
    work = await bench.room()
    other = await bench.room("other", do={})
    one = task()
    async with work.waiters.expected(one.run) as coming:
        await other.submitter.submit(one)
        await until(lambda: work.find(one.run))
        async with asyncio.timeout(30):
            outcome = await coming
    assert (outcome.state, outcome.node) == ("completed", "other")


async def test_who_begins_to_wait_while_another_stops_is_told(bench, monkeypatch):
    monkeypatch.setattr(waiting, "LINGER_S", 0.01)
    work = await bench.room(do={})
    over, late = task(), task(value={"sleep": 1.0})
    await work.submitter.submit(over)
    await until(lambda: work.find(over.run))
    await work.submitter.submit(late)
    begun = asyncio.Event()
    round_trip = work._connection.round_trip

    async def slow() -> None:
        begun.set()
        await asyncio.sleep(0.2)  # the server is busy, and the other one has come and gone meanwhile
        await round_trip()

    monkeypatch.setattr(work._connection, "round_trip", slow)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ended(work, late.run, 30))
        await begun.wait()
        second = group.create_task(ended(work, over.run, 30))
    assert [wait.result().state for wait in (first, second)] == ["completed", "completed"]


async def test_whoever_waits_is_told_at_once_that_the_node_leaves_the_project(bench):
    """A reload can take a project from a node that goes on running, with those who ask it."""
    who = AgentRecord("laptop", ("else",), attached=True)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as stack:
        work = await stack.enter_async_context(work_node.open_node(bench.url, bench.seed, "leaving", {}))
        one = task()
        await work.submitter.submit(one)
        polled = work.claims.claim(who, lease_s=60, wait_s=600, held_max=1)
        waits = [group.create_task(_left(wait)) for wait in (ended(work, one.run, 600), polled)]
        waits.append(group.create_task(_over(work)))
        await until(lambda: work.waiters._seen and work.claims.polls._polls and work.attached._lines)
    assert [wait.result() for wait in waits] == ["bus.disconnected", "bus.disconnected", []]


async def _left(wait) -> str:
    with pytest.raises(Unavailable) as told:
        await wait
    return told.value.code


async def _over(work) -> list:
    """Return what an agent is told on its line until that ends."""
    with work.attached.line(AgentRecord("desk", ("more",), attached=True)) as notices:
        return [notice async for notice in notices]


async def test_who_waits_is_told_when_the_store_comes_back_without_the_task(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    connection = work._connection
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(ended_or_not(work, one.run))
        await until(lambda: one.run in work.waiters._seen)
        for name in (subjects.TASKS, subjects.FACTS):
            await streams.api(connection, f"STREAM.DELETE.{name}")
        before = connection.reconnects
        await bench.kill_server()
        await until(lambda: connection.reconnects > before)
        await until(lambda: made_again(connection))  # its owner comes back a moment after the server
        error = await wait
    assert error is not None
    assert error.code == "work.not_found"


async def test_who_waits_goes_on_waiting_when_the_store_comes_back_with_the_task(bench):
    work = await bench.room(do={})
    one = task(value={"sleep": 1.5})
    await work.submitter.submit(one)
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(ended(work, one.run))
        await until(lambda: one.run in work.waiters._seen)
        await bench.kill_server()
        outcome = await wait
    assert outcome.state == "completed"


async def test_who_begins_to_wait_at_the_moment_the_connection_is_lost_waits_on(bench, monkeypatch, tmp_path):
    work, go = await bench.room(do={}), tmp_path / "go"
    one = task(value={"until": str(go)})
    await work.submitter.submit(one)
    find, connection = work.waiters._find, work._connection

    async def lost(run):
        monkeypatch.setattr(work.waiters, "_find", find)
        before = connection.reconnects
        await bench.kill_server()
        await until(lambda: connection.state != "connected" or connection.reconnects > before)
        raise away.lost_error("what was asked")

    monkeypatch.setattr(work.waiters, "_find", lost)
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(ended(work, one.run))
        await until(lambda: work.waiters._find is not lost)
        go.touch()
    assert wait.result().state == "completed"


async def test_what_is_submitted_while_nats_is_away_is_refused_at_once(bench, monkeypatch):
    monkeypatch.setattr(away, "BLINK_S", 0.0)
    work = await bench.room()
    connection = work._connection
    monkeypatch.setattr(connection, "wait_connected", asyncio.Event().wait)  # who asked the server would wait for it
    connection._set("reconnecting")
    with pytest.raises(Unreachable) as refused:
        await work.submitter.submit(task("never seen before"))
    assert refused.value.code == "bus.disconnected"
    assert "not stored" in refused.value.message
    connection._set("connected")


async def ended_or_not(work, run):
    """Return the error of whoever waits for a task that is gone."""
    with pytest.raises(NotFound) as told:
        await ended(work, run)
    return told.value


async def made_again(connection):
    """Make the streams, and return whether they are there."""
    try:
        await stores.open_stores(connection)
    except KnotworkError:
        return False
    return True
