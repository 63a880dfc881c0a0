"""What no store takes ends its attempt with a typed error; what it does not take now is insisted on, or refused at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.bus import raw_server
from tests.integration.work.conftest import Bench, ended, open_bench, task, until
from tests.integration.work.test_work_life import lines

from knotwork.bus import child, publisher, reading, storage, streams, subjects
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.desk.tasks.desk import TaskDesk
from knotwork.ops.op import Caller
from knotwork.ops.task_ports import TaskFilter
from knotwork.sdk.errors import Cancelled, Invalid, KnotworkError, TooLarge, Unavailable
from knotwork.view import archive
from knotwork.work import queues, records, stores
from knotwork.work.queues import Queue
from knotwork.work.records import Retry

LIMIT = 64 * 1024
"""The largest message of these servers, as an operator may have set it."""
STORAGE = 24 * 1024 * 1024


@pytest_asyncio.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, max_payload=LIMIT) as made:
        yield made


@pytest_asyncio.fixture
async def small(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, max_storage=STORAGE) as made:
        yield made


def filled(one: records.Task, size: int) -> dict[str, Any]:
    """Return an input with which a task takes `size` bytes."""
    return {"fill": "x" * (size - len(records.encode(one)) - len('{"fill":""}') + len("null"))}


@pytest.mark.parametrize("size", [LIMIT * 2 // 3, LIMIT - 700, LIMIT - 8])
async def test_an_output_that_no_message_can_hold_ends_the_attempt_as_too_large(narrow, size):
    work = await narrow.room(do={})
    shape = task(retry=Retry(max_attempts=3, delay_s=0.01))
    one = task(run=shape.run, value=filled(shape, size), retry=shape.retry)
    assert abs(len(records.encode(one)) - size) < 4
    await queues.open_queue(work._connection, Queue(one.boundary, one.queue, one.lane), 2.0)
    await work.recorder.enqueue(one)  # as if it came from a time when more was allowed
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("failed", "bus.message_too_large")
    assert (outcome.agent, outcome.node) == ("do", "here")
    await until(lambda: not work.worker.running)
    after = task(value={})
    await work.submitter.submit(after)
    assert (await ended(work, after.run)).state == "completed"


async def test_a_task_without_room_for_its_outcome_is_refused(narrow):
    work = await narrow.room(do={})
    shape = task()
    one = task(run=shape.run, value=filled(shape, LIMIT - 8))
    with pytest.raises(TooLarge) as refused:
        await work.submitter.submit(one)
    assert refused.value.code == "bus.message_too_large"
    assert await work.current(one.run) is None


async def test_a_next_attempt_that_no_message_can_hold_ends_the_task_as_too_large(narrow):
    work = await narrow.room(do={})
    retry = Retry(max_attempts=3, delay_s=3600, max_delay_s=3600, jitter=False)

    def failing(fill: int) -> records.Task:
        return task(value={"fail": {"message": "no", "retriable": True}, "fill": "x" * fill}, retry=retry)

    first = failing(1000)
    await work.submitter.submit(first)
    place = records.outcome_subject(first.run, "task", 0, 1)
    stored = await until(lambda: reading.last(work._connection, subjects.FACTS, place))
    # as large as an outcome can be: what follows has a header besides, which says when
    second = failing(1000 + LIMIT - len(stored.data) - 8)
    await work.recorder.enqueue(second)
    outcome = await ended(work, second.run)
    assert (outcome.state, outcome.error["code"]) == ("failed", "bus.message_too_large")
    assert records.decode_task(bytes(outcome.task)).number == 2
    await until(lambda: not work.worker.running)


async def test_what_is_said_of_a_claim_and_too_large_is_refused_and_the_claim_stands(narrow):
    work = await narrow.room()
    one = task()
    with pytest.raises(TooLarge):
        await work.recorder.append(one, records.Outcome("completed", records.raw(one), b'"' + b"x" * LIMIT + b'"'))


async def fill(work: Any) -> int:
    """Store things until there is no room; returns how many."""
    count = 0
    with pytest.raises(Unavailable, match=r"room|storage"):
        while True:
            count += 1
            await publisher.publish(work._connection, f"ended.{count}", b"x" * 500_000)
    with pytest.raises(Unavailable):
        while True:
            count += 1
            await publisher.publish(work._connection, f"ended.{count}", b"x" * 2_000)
    with pytest.raises(Unavailable):
        while True:
            count += 1
            await publisher.publish(work._connection, f"ended.{count}", b"x")
    return count


async def test_while_the_store_is_full_a_cancel_is_refused_at_once_and_an_outcome_waits(small, tmp_path):
    work = await small.room(do={})
    full = tmp_path / "full"
    queued, running = task("nobody", value={}), task(value={"touch": str(tmp_path / "began"), "until": str(full)})
    await work.submitter.submit(queued)
    await work.submitter.submit(running)
    await until(lambda: lines(tmp_path / "began"))
    place = records.facts_of(running.run) + ".started.>"
    await until(lambda: reading.last(work._connection, subjects.FACTS, place))
    await fill(work)
    full.touch()

    start_s = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        async with asyncio.timeout(30):
            await work.end(queued.run, "cancelled", Cancelled("No more.", code="work.cancelled"))
    assert refused.value.code in ("work.store_full", "bus.store_full")
    assert refused.value.retry_after_s
    took_s = time.monotonic() - start_s
    assert took_s < 25, "it waited for room"
    await until(lambda: work.recorder.insisting)

    await reading.purge(work._connection, subjects.ARCHIVE, "ended.>", 0)
    assert (await ended(work, running.run)).state == "completed"
    assert len(lines(tmp_path / "began")) == 1
    cancelled = await until(lambda: _ended_now(work, queued.run))
    assert cancelled.state == "cancelled"


async def test_a_cancel_is_refused_at_once_when_the_disk_is_known_to_be_full(bench):
    work = await bench.room()
    one = task("nobody")
    await work.submitter.submit(one)
    work.submitter.full = lambda: True
    with pytest.raises(Unavailable) as refused:
        await work.end(one.run, "cancelled", Cancelled("No more.", code="work.cancelled"))
    assert (refused.value.code, refused.value.retry_after_s) == ("work.store_full", 5.0)
    work.submitter.full = lambda: False
    assert (await work.end(one.run, "cancelled", Cancelled("No more."))).state == "cancelled"


async def test_a_store_full_of_work_lets_nothing_new_in_and_everything_end(small):
    asks = await small.room("asks")
    waiting: list[records.Task] = []
    refused = None
    while refused is None:
        one = task(value={"fill": "x" * 100_000})
        try:
            await asks.submitter.submit(one)
        except Unavailable as error:
            refused = error
        else:
            waiting.append(one)
        assert len(waiting) < 400
    assert refused.code == "work.store_full"
    assert "max_storage" in refused.hint
    await asks.submitter.storage.look()
    assert STORAGE / 2 < asks.submitter.storage.used_bytes < STORAGE - storage.reserve(STORAGE) + 200_000

    assert (await asks.end(waiting[0].run, "cancelled", Cancelled("No more."))).state == "cancelled"
    await small.room("works", do={})
    for one in waiting[1:5]:
        assert (await ended(asks, one.run)).state == "completed"
    for one in waiting[5:]:
        assert (await asks.end(one.run, "cancelled", Cancelled("No more."))).state in ("cancelled", "completed")
    await reading.purge(asks._connection, subjects.FACTS, "run.>", 0)

    async def again() -> bool:
        with contextlib.suppress(Unavailable):
            return await asks.submitter.submit(task(value={}))
        return False

    await until(again)


class Nothing:
    """A past without a view: what FACTS has forgotten nobody knows here."""

    async def latest(self, _run: str) -> None:
        return None


def desk(work: Any) -> TaskDesk:
    return TaskDesk(work, SimpleNamespace(connection=work._connection), Nothing(), revival=SimpleNamespace)


async def filled_up(work: Any) -> list[str]:
    """Submit tasks until no more is let in; returns their ids."""
    runs: list[str] = []
    with pytest.raises(Unavailable) as refused:
        while len(runs) < 400:
            one = task("park", value={"fill": "x" * 100_000})
            await work.submitter.submit(one)
            runs.append(one.run)
    assert refused.value.code == "work.store_full"
    return runs


async def test_a_full_store_is_emptied_by_cancels_and_takes_work_again(small, monkeypatch):
    """Each end of a task would copy it, so a full store has room for a few ends only; and it is restarted on the way."""
    monkeypatch.setattr(archive, "KEEP_S", 1.0)
    work = await small.room()
    tasks, caller = desk(work), Caller("me")

    async def packed() -> set[str]:
        found = await reading.batch(work._connection, subjects.ARCHIVE, "ended.>", 1, 1_000)
        return {row.s.split(".")[2] for stored in found for row in archive.unpack(stored.data)}

    async def some_ended() -> bool:
        return len(await reading.batch(work._connection, subjects.FACTS, "run.*.*.outcome.>", 1, 20)) == 20

    async def restart() -> None:
        await until(some_ended)
        await small.kill_server()

    async def cancelled_all() -> bool:
        with contextlib.suppress(KnotworkError):  # the server was being restarted
            await tasks.cancel_where(TaskFilter(capability="park"), "no more", caller)
            return not await reading.batch(work._connection, subjects.TASKS, "task.*.park.>", 1, 1)
        return False

    async with background() as group:
        archiver = archive.Archiver(work._connection, owner="me")
        group.create_task(archiver.run(), name="archiver")
        runs = await filled_up(work)
        assert len(runs) > 100
        group.create_task(restart(), name="restart")
        await until(cancelled_all)
        again = await filled_up(work)  # at once, whatever is packed meanwhile
        done = await tasks.cancel_where(TaskFilter(capability="park"), "no more", caller)
        assert {one.id for one in done.tasks} == set(again)
        assert {(one.state, one.changed) for one in done.tasks} == {("cancelled", True)}

        async def all_packed() -> bool:
            return {*runs, *again} <= await packed()

        async def taken() -> bool:
            with contextlib.suppress(Unavailable):  # what is packed is deleted a moment later
                return await work.submitter.submit(task("park"))
            return False

        assert await until(all_packed)
        assert await until(taken)


async def test_queues_are_not_bounded_by_what_a_server_allows_each_stream_by_default(tmp_path):
    limits = f'jetstream {{ store_dir: "{tmp_path}/store", limits {{ default_max_consumers: 2 }} }}'
    server = raw_server.RawServer(tmp_path / "nats", limits, jetstream=False)
    before = replace(stores.TASKS, settings={**stores.TASKS.settings, "max_consumers": -1})
    many = [Queue("none", f"cap-{number}", "normal") for number in range(5)]
    async with child.guard():
        await server.start()
        async with open_connection(Endpoint((server.url,))) as connection:
            await streams.ensure(connection, before)
            with pytest.raises(Invalid, match="maximum consumers"):
                for queue in many:
                    await queues.open_queue(connection, queue, 2.0)
            await stores.open_stores(connection)
            for queue in many:
                await queues.open_queue(connection, queue, 2.0)
            assert {depth.queue for depth in await queues.sweep(connection)} == set(many)
        await server.kill()


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(0, 0), (8 << 20, 2 << 20), (24 << 20, 4 << 20), (100 << 20, 5 << 20), (10 << 30, (10 << 30) // 20)],
)
def test_a_twentieth_of_the_store_is_kept_for_ends_and_more_of_a_small_one(limit, kept):
    assert storage.reserve(limit) == kept


async def _ended_now(work: Any, run: str) -> records.Outcome | None:
    try:
        return await work.end(run, "cancelled", Cancelled("No more."))
    except KnotworkError:
        return None
