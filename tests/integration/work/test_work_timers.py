"""Timers that were handled leave nothing behind; those that were not stay until they are."""

from __future__ import annotations

from tests.integration.work.conftest import ended, task, until

from knotwork.bus import reading, streams, subjects
from knotwork.bus.background import background
from knotwork.bus.commit import open_group_commit
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import Unavailable
from knotwork.work import records, stores, timers
from knotwork.work.recording import Recorder
from knotwork.work.records import Retry

SOON = Retry(max_attempts=4, delay_s=0.05, jitter=False)


async def kept(work) -> int:
    answer = await streams.api(work._connection, f"STREAM.INFO.{subjects.TIMERS}")
    return int(answer["state"]["messages"])


async def test_retries_leave_nothing_in_the_stream_of_timers(bench):
    work = await bench.room(do={})
    runs = [
        task(value={"fail": {"message": "not yet", "retriable": True}, "fail_until": 3}, retry=SOON) for _ in range(20)
    ]
    for one in runs:
        await work.submitter.submit(one)
    for one in runs:
        assert (await ended(work, one.run)).state == "completed"
    assert await reading.last_seq(work._connection, subjects.TIMERS) >= 80  # each was set, and fired

    async def nothing() -> bool:
        return await kept(work) == 0

    await until(nothing)


async def test_what_fired_and_was_not_handled_is_kept(bench):
    refused: list[str] = []
    handled: list[str] = []
    endpoint = Endpoint((bench.url,), seed=bench.seed)
    async with background() as group, open_connection(endpoint) as connection, open_group_commit(connection) as facts:

        async def no_fact(place: str) -> None:
            raise AssertionError(place)

        async def on_due(name: str, _: records.Task) -> None:
            if name == "first" and "allowed" not in handled:
                refused.append(name)
                raise Unavailable("Not now.", code="test.later")
            handled.append(name)

        await stores.open_stores(connection)
        mine = timers.Timers(group, connection, on_due, no_fact, lease_s=0.5)
        await mine.open()
        mine.look()
        recorder, one = Recorder(group, connection, facts, facts), task()
        names = {"first", "second", "third"}
        for name in sorted(names):
            await recorder.set_timer(one.run, name, 1_000_000_000, records.encode(one))

        async def left() -> set[str]:
            mine.look()
            await mine.forget_handled()
            found = await reading.batch(connection, subjects.TIMERS, "fired.>", 1, 10)
            return {stored.subject.rpartition(".")[2] for stored in found}

        await until(lambda: {"second", "third"} <= set(handled) and len(refused) > 1)
        assert "first" in await left()
        handled.append("allowed")

        async def nothing() -> bool:
            return not await left()

        await until(nothing)
        assert names <= set(handled)
