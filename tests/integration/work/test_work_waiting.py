"""Who awaits a task hears of its end, however early it comes and whoever else waits."""

from __future__ import annotations

import asyncio

from tests.integration.work.conftest import ended, task, until

from knotwork.work import waiting


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
