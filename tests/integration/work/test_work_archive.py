"""What the archiver leaves in FACTS: everything of tasks that live, nothing of those that ended."""

from __future__ import annotations

import time

import pytest
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import publisher, reading, streams, subjects
from knotwork.flow import history
from knotwork.view import archive, relief
from knotwork.work import lookup, records
from knotwork.work.records import Retry

FAIL = {"fail": {"message": "no", "retriable": True}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(archive, "KEEP_S", 0.0)


async def left(work, run="*") -> list[str]:
    found = await reading.batch(work._connection, subjects.FACTS, f"run.*.{run}.>", 1, 1000)
    return [stored.subject.split(".", 3)[3] for stored in found]


async def test_a_task_that_runs_for_long_is_known_to_run_whatever_ends_beside_it(bench):
    work = await bench.room(do={})
    archiver = archive.Archiver(work._connection, owner="me")
    long = task(value={"sleep": 60})
    await work.submitter.submit(long)

    async def running() -> bool:
        return (await lookup.look(work._connection, long.run)).state == "running"

    await until(running)
    for _ in range(3):
        short = task(value={"sleep": 0.3})
        await work.submitter.submit(short)
        await ended(work, short.run)
        await archiver.step()
    await archiver.step()
    assert await running()
    assert await left(work) == ["started.task.0.1.1"]


async def test_a_retry_that_is_due_in_an_hour_is_known_to_wait(bench):
    work = await bench.room(do={})
    archiver = archive.Archiver(work._connection, owner="me")
    one = task(value=FAIL, retry=Retry(max_attempts=5, delay_s=3600, jitter=False))
    await work.submitter.submit(one)

    async def waiting() -> bool:
        return (await lookup.look(work._connection, one.run)).state == "waiting"

    await until(waiting)
    for _ in range(2):
        await archiver.step()
    assert await left(work) == ["next.task.0.2"]
    sight = await lookup.look(work._connection, one.run)
    assert (sight.state, sight.task.number) == ("waiting", 2)


@pytest.mark.parametrize("another", [False, True], ids=["one archiver", "one that takes over"])
async def test_nothing_is_left_of_what_has_ended(bench, another):
    work = await bench.room(do={})
    archiver = archive.Archiver(work._connection, owner="me")
    runs = [
        task(),
        task(value={"sleep": 0.4}),
        task(value={**FAIL, "fail_until": 3}, retry=Retry(max_attempts=5, delay_s=0.05, jitter=False)),
        task(value={**FAIL, "fail_until": 3}, retry=Retry(max_attempts=2, delay_s=0.05, jitter=False)),
        task(value={"loops": 2, "sleep": 0.3}),
    ]
    for one in runs:
        await work.submitter.submit(one)
    ends = [(await ended(work, one.run)).state for one in runs]
    assert ends == ["completed", "completed", "completed", "dead", "completed"]

    async def letter() -> bool:
        return await work.dead.count() == 1

    await until(letter)
    await work.dead.redrive(await work.dead.of(runs[3].run), "me", time.time_ns())
    assert (await ended(work, runs[3].run)).state == "completed"
    assert {word.split(".")[0] for word in await left(work)} == {"started", "outcome", "next", "redriven"}
    await archiver.step()
    if another:
        archiver = archive.Archiver(work._connection, owner="another")
        await archiver.step()
    await archiver.step()
    assert await left(work) == []
    packed = [one for stored in await reading.batch(work._connection, subjects.ARCHIVE, "ended.>", 1, 100)
              for one in archive.unpack(stored.data)]  # fmt: skip
    assert {one.s for one in packed} >= {records.outcome_subject(one.run, "task", 0, 1) for one in runs}


async def test_when_the_store_of_all_projects_is_full_the_oldest_of_the_past_goes_and_the_young_stays(
    bench, monkeypatch
):
    """Only the node that runs the server knows how full that is: its archiver makes room, whoever packs."""
    work = await bench.room()
    connection = work._connection
    await streams.ensure(connection, history.stream(history.Keeps()))
    for number in range(40):
        await publisher.publish(connection, f"history.r{number}", b"x" * 1000)
        await publisher.publish(connection, f"ended.{number}", b"x" * 1000)

    async def left() -> list[int]:
        return [await reading.count_from(connection, stream, ">", 1) for stream in relief.PASTS]

    made = relief.Relief(connection)
    made.storage.shared = lambda: (99, 100)
    await made.look()
    assert await left() == [40, 40], "nothing goes that is younger than a key is remembered"
    monkeypatch.setattr(relief, "KEPT_S", 0.0)
    monkeypatch.setattr(relief, "AT_ONCE_BYTES", 10_000)
    await made.look()
    assert all(20 < count < 40 for count in await left()), "not all at once"
    for _ in range(40):
        await made.look()
    assert await left() == [1, 1], "the last says up to where everything is packed"
