"""A key is one task for a day: whoever submits, from wherever, when it is over, and when submitters are held up."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import patterns, publisher, reading, subjects
from knotwork.sdk.errors import Cancelled, Conflict, Unavailable
from knotwork.view import archive
from knotwork.work import keyed, lookup, records
from knotwork.work.records import Retry

KEY = "order-17"
RUN = keyed.keyed_run(KEY)


def asked(value, capability="do", **fields) -> records.Task:
    return task(capability, value=value, run=RUN, key=KEY, **fields)


def lines(path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def facts(work) -> list[str]:
    found = await reading.batch(work._connection, subjects.FACTS, f"{records.facts_of(RUN)}.>", 1, 100)
    return [stored.subject.split(".", 3)[3] for stored in found]


async def waiting(work) -> list[records.Task]:
    found = await reading.batch(work._connection, subjects.TASKS, patterns.tasks_of(RUN), 1, 100)
    return [records.decode_task(stored.data) for stored in found]


async def packed(work) -> None:
    """Have the task leave TASKS, be packed, and leave FACTS."""

    async def gone() -> bool:
        return not await waiting(work)

    await until(gone)
    archiver = archive.Archiver(work._connection, owner="me")
    await archiver.step()
    await archiver.step()
    assert await facts(work) == ["keyed"]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(archive, "KEEP_S", 0.0)


@pytest.fixture
def held_up(monkeypatch):
    """Let a submitter find that a key is new, and go on only when it may."""
    found, goes_on = asyncio.Event(), asyncio.Event()
    look = keyed.is_new

    async def once(connection, run) -> bool:
        new = await look(connection, run)
        monkeypatch.setattr(keyed, "is_new", look)
        found.set()
        await goes_on.wait()
        return new

    monkeypatch.setattr(keyed, "is_new", once)
    return found, goes_on


async def refused(submitting) -> None:
    with pytest.raises(Conflict) as caught:
        await submitting
    assert caught.value.code == "work.key_reused"
    assert caught.value.detail["id"] == RUN


async def test_a_key_costs_one_stored_message_and_none_beside_the_task(bench):
    work = await bench.room()
    assert await work.submitter.submit(asked({"a": 1}))
    assert await facts(work) == []
    assert len(await waiting(work)) == 1


async def test_of_many_who_ask_for_different_things_one_is_served_and_its_deadline_holds(bench):
    rooms = [await bench.room(f"room{number}") for number in range(3)]
    soon_ns = time.time_ns() + 2_000_000_000
    wishes = [
        asked({"n": number}, capability=f"q{number}", deadline_ns=0 if number % 2 else soon_ns + number)
        for number in range(12)
    ]

    async def submit(number: int) -> bool | Conflict:
        try:
            return await rooms[number % 3].submitter.submit(wishes[number])
        except Conflict as error:
            assert error.code == "work.key_reused"
            return error

    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(submit(number)) for number in range(12)]
    served = [number for number, answer in enumerate(answers) if answer.result() is True]
    assert len(served) == 1
    assert [one.queue for one in await waiting(rooms[0])] == [f"q{served[0]}"]
    if wishes[served[0]].deadline_ns:
        assert (await ended(rooms[0], RUN)).state == "timed-out"
    else:
        sentinel = task("q", run="t0123456789abcdef", deadline_ns=soon_ns + 12)
        await rooms[0].submitter.submit(sentinel)
        assert (await ended(rooms[0], sentinel.run)).state == "timed-out"
        assert (await lookup.look(rooms[0]._connection, RUN)).state == "pending"


async def test_a_deadline_that_another_wish_has_set_ends_nothing(bench):
    work = await bench.room()
    await work.submitter.submit(asked({"a": 1}, deadline_ns=time.time_ns() + 3_600_000_000_000))
    await work.recorder.set_timer(RUN, "deadline", time.time_ns(), records.encode(asked({"b": 1})))

    async def set_anew() -> bool:
        stored = await reading.last(work._connection, subjects.TIMERS, f"timer.*.{RUN}.deadline")
        return stored is not None and records.decode_task(stored.data).input == msgspec.Raw(b'{"a": 1}')

    await until(set_anew)
    assert (await work.look(RUN)).state == "pending"


async def test_a_key_is_known_when_its_task_is_packed_away(bench, at_once, tmp_path):
    work, other = await bench.room(do={}), await bench.room("other")
    script = {"touch": str(tmp_path / "once"), "large": "x" * 100_000}
    assert await work.submitter.submit(asked(script))
    assert not await other.submitter.submit(asked(script))
    await ended(work, RUN)
    assert not await other.submitter.submit(asked(script))
    await packed(work)
    stored = await reading.last(work._connection, subjects.FACTS, subjects.keyed(RUN))
    assert len(stored.data) < 200, "only what tells one wish from another"
    assert not await other.submitter.submit(asked(script))
    await refused(other.submitter.submit(asked({})))
    assert await waiting(work) == []
    assert len(lines(tmp_path / "once")) == 1


async def test_where_it_is_placed_today_makes_no_other_work_of_it(bench):
    work = await bench.room()
    one = asked({"a": 1})
    one = msgspec.structs.replace(one, asked=keyed.asked(one))
    assert await work.submitter.submit(one)
    assert not await work.submitter.submit(msgspec.structs.replace(one, boundary="corporate", queue="other"))


@pytest.mark.parametrize("end", ["cancelled", "dead"])
async def test_a_key_is_known_however_its_task_ended(bench, at_once, end):
    work = await bench.room(do={})
    script = {"sleep": 600} if end == "cancelled" else {"fail": {"message": "no", "retriable": True}}
    wish = asked(script, retry=Retry(max_attempts=2, delay_s=0.01, jitter=False))
    assert await work.submitter.submit(wish)
    if end == "cancelled":
        await work.end(RUN, "cancelled", Cancelled("Not wanted.", code="work.cancelled"))
    assert (await ended(work, RUN)).state == end
    await packed(work)
    assert not await work.submitter.submit(wish)
    await refused(work.submitter.submit(asked({})))
    assert await waiting(work) == []


async def test_who_submits_while_a_retry_is_due_later_begins_nothing(bench, at_once, tmp_path):
    work = await bench.room(do={})
    script = {"touch": str(tmp_path / "tries"), "fail": {"message": "no", "retriable": True}}
    wish = asked(script, retry=Retry(max_attempts=5, delay_s=3600, jitter=False))
    assert await work.submitter.submit(wish)

    async def pauses() -> bool:
        return (await lookup.look(work._connection, RUN)).state == "waiting" and not await waiting(work)

    await until(pauses)
    archiver = archive.Archiver(work._connection, owner="me")
    await archiver.step()
    await archiver.step()
    assert await facts(work) == ["next.task.0.2"]
    assert not await work.submitter.submit(wish)
    await refused(work.submitter.submit(asked({})))
    assert await waiting(work) == []
    assert len(lines(tmp_path / "tries")) == 1


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
async def test_who_was_held_up_while_all_was_done_finds_out(bench, at_once, held_up, tmp_path, same):
    found, goes_on = held_up
    late, work = await bench.room("late"), await bench.room(do={})
    script = {"touch": str(tmp_path / "once")}
    async with asyncio.TaskGroup() as group:
        storing = late.submitter.submit(asked(script if same else {"touch": str(tmp_path / "other")}))
        submitting = group.create_task(storing if same else refused(storing))
        await found.wait()
        assert await work.submitter.submit(asked(script))
        await ended(work, RUN)
        await packed(work)
        goes_on.set()
    assert submitting.result() is (False if same else None)

    async def gone() -> bool:
        return not await waiting(work)

    await until(gone)
    assert len(lines(tmp_path / "once")) == 1
    assert lines(tmp_path / "other") == []


async def test_what_a_submitter_that_died_has_stored_twice_is_not_begun(bench, at_once, tmp_path):
    work = await bench.room(do={})
    script = {"touch": str(tmp_path / "once")}
    assert await work.submitter.submit(asked(script))
    await ended(work, RUN)
    await packed(work)
    twice = asked(script)
    await work.recorder.enqueue(msgspec.structs.replace(twice, asked=keyed.asked(twice)), only=True)

    async def gone() -> bool:
        return not await waiting(work)

    await until(gone)
    assert len(lines(tmp_path / "once")) == 1


async def test_a_key_whose_name_something_else_has_taken_is_told_to_be_blocked(bench):
    work = await bench.room()
    await publisher.publish(work._connection, task("q", run=RUN).subject, b"?")
    with pytest.raises(Unavailable) as caught:
        await work.submitter.submit(asked({"a": 1}))
    assert caught.value.code == "work.key_blocked"


async def test_a_deadline_that_passes_before_its_task_is_stored_holds_all_the_same(bench):
    work = await bench.room()
    late = task("q", deadline_ns=time.time_ns())
    place = f"timer.*.{late.run}.deadline"
    await work.recorder.set_timer(late.run, "deadline", late.deadline_ns + 500_000_000, records.encode(late))
    first = await reading.last(work._connection, subjects.TIMERS, place)

    async def set_anew() -> bool:
        stored = await reading.last(work._connection, subjects.TIMERS, place)
        return stored is not None and stored.seq > first.seq

    await until(set_anew)
    await work.recorder.enqueue(late)
    assert (await ended(work, late.run)).state == "timed-out"
