"""Dead letters on a real server: they come back as the next attempt of their run, however often and whoever crashes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace

import msgspec
import pytest
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import publisher, reading, subjects
from knotwork.desk.tasks import dead_letters
from knotwork.desk.tasks.desk import TaskDesk
from knotwork.ops.op import Caller
from knotwork.ops.task_ports import DeadFilter
from knotwork.sdk.errors import Conflict, NotFound
from knotwork.work import dead as dead_module
from knotwork.work import history, lookup, records
from knotwork.work.records import Retry

TWICE = Retry(max_attempts=2, delay_s=0.05, jitter=False)
NEVER = {"fail": {"message": "no", "retriable": True}}


async def dead(work, until_attempt=10**6, **fields):
    """Return a task that died."""
    one = task(value={**NEVER, "fail_until": until_attempt}, retry=TWICE, **fields)
    await work.submitter.submit(one)
    assert (await ended(work, one.run)).state == "dead"
    await until(lambda: letter_of(work, one.run))
    return one


async def letter_of(work, run):
    try:
        return await work.dead.of(run)
    except NotFound:
        return None


async def test_a_redriven_task_revives_its_run_with_its_history(bench):
    work = await bench.room(do={})
    one = await dead(work, until_attempt=3)
    revived = await work.dead.redrive(await work.dead.of(one.run), "me", time.time_ns())
    assert (revived.run, revived.number) == (one.run, 3)
    outcome = await ended(work, one.run)
    assert outcome.state == "completed"
    last = records.decode_task(bytes(outcome.task))
    assert [(past.number, past.state) for past in last.past] == [(1, "waiting"), (2, "dead")]
    assert await letter_of(work, one.run) is None
    facts = await reading.batch(work._connection, subjects.FACTS, f"{records.facts_of(one.run)}.>", 1, 100)
    happened = [one.what for one in history.transitions(last, facts, outcome)]
    assert [what for what in happened if what != "started"] == ["submitted", "waiting", "dead", "redriven", "completed"]
    packed = [one for one in history.transitions(last, [], outcome) if one.what != "started"]
    assert [one.what for one in packed] == ["submitted", "waiting", "dead", "redriven", "completed"]
    assert (packed[3].message, packed[3].number) == ("redriven by me", 3), "also when the facts of it are packed away"


async def test_it_has_all_its_attempts_again_and_may_die_again(bench):
    work = await bench.room(do={})
    one = await dead(work)
    for number in (4, 6):
        letter = await work.dead.of(one.run)
        await work.dead.redrive(letter, "me", time.time_ns())
        assert (await ended(work, one.run)).state == "dead"
        again = await until(lambda: letter_of(work, one.run))
        assert again.task.number == number
    assert [past.state for past in again.task.past] == ["waiting", "dead", "waiting", "dead", "waiting"]


async def test_a_step_that_died_is_shown_when_nothing_else_of_its_run_is_there_any_more(bench):
    work = await bench.room()
    run = "w01a204675e52ce954d647d"
    one = msgspec.structs.replace(task(value={"a": 1}), run=run, step="b")
    outcome = records.Outcome("dead", records.raw(one), error={"code": "x.y", "message": "no"}, ended_ns=time.time_ns())
    await publisher.publish(work._connection, subjects.dead(one.queue, run, one.step), records.encode(outcome))
    past = SimpleNamespace(latest=nothing)  # its facts are packed away, and the past knows runs otherwise
    desk = TaskDesk(work, SimpleNamespace(connection=work._connection), past, revival=SimpleNamespace)
    told = await desk.dead_letter(run)
    assert (told.id, told.state, told.code, told.input) == (run, "dead", "x.y", {"a": 1})
    with pytest.raises(NotFound):
        await desk.dead_letter("w01a204675e52ce954d000")


async def nothing(_run):
    return None


async def test_between_death_and_the_next_end_it_is_pending_and_an_await_waits(bench):
    here = await bench.room("asks")
    worker = await bench.room("works", do={})
    one = await dead(here, until_attempt=3)
    worker.worker.close()
    letter = await here.dead.of(one.run)
    await here.dead.redrive(letter, "me", time.time_ns())
    sight = await lookup.look(here._connection, one.run)
    assert (sight.state, sight.task.number) == ("pending", 3)
    assert await here.find(one.run) is None
    await bench.room("later", do={})
    assert (await ended(here, one.run)).state == "completed"


async def test_a_redrive_that_died_half_way_is_done_again(bench):
    work = await bench.room(do={})
    one = await dead(work, until_attempt=3)
    letter = await work.dead.of(one.run)
    from knotwork.work import settle

    task_again = settle.revived(letter.task, letter.outcome, time.time_ns())
    await work.facts.append(records.redriven_subject(task_again), records.encode(task_again))  # ... and no further
    assert (await lookup.look(work._connection, one.run)).state == "pending"
    await work.dead.redrive(letter, "me", time.time_ns())
    assert (await ended(work, one.run)).state == "completed"
    assert await letter_of(work, one.run) is None


async def test_a_second_redrive_of_the_same_letter_runs_nothing_again(bench, tmp_path):
    work = await bench.room(do={})
    one = await dead(work, until_attempt=3)
    letter = await work.dead.of(one.run)
    await work.dead.redrive(letter, "me", time.time_ns())
    first = await ended(work, one.run)
    for _ in range(2):
        with pytest.raises(Conflict, match="is back already: redriven by me") as refused:
            await work.dead.redrive(letter, "another", time.time_ns())
        assert refused.value.code == "work.redriven"
    assert (await ended(work, one.run)).ended_ns == first.ended_ns
    sight = await lookup.look(work._connection, one.run)
    assert (sight.state, sight.task.number) == ("completed", 3)


async def test_of_many_who_redrive_a_letter_at_once_one_has_brought_it_back(bench):
    here, there = await bench.room("asks"), await bench.room("works", do={})
    one = await dead(here, until_attempt=3)
    there.worker.close()  # so that it stays where they put it
    letter, done = await here.dead.of(one.run), []

    async def redrive(room, by):
        with contextlib.suppress(Conflict):
            done.append(await room.dead.redrive(letter, by, time.time_ns()))

    async with asyncio.TaskGroup() as group:
        for by, room in enumerate((here, there) * 4):
            group.create_task(redrive(room, str(by)))
    assert [(task.run, task.number) for task in done] == [(one.run, 3)]
    assert await letter_of(here, one.run) is None


async def test_a_deadline_that_has_passed_is_taken_off(bench):
    work = await bench.room(do={})
    one = await dead(work, until_attempt=3, deadline_ns=time.time_ns() + 30 * 10**9)
    letter = await work.dead.of(one.run)
    revived = await work.dead.redrive(letter, "me", one.deadline_ns + 1)
    assert revived.deadline_ns == 0
    assert (await ended(work, one.run)).state == "completed"


async def test_a_dropped_letter_is_gone_and_its_task_stays_dead(bench):
    work = await bench.room(do={})
    one, other = await dead(work), await dead(work)
    letter = await work.dead.of(one.run)
    assert await work.dead.drop(letter)
    assert not await work.dead.drop(letter)
    assert await work.dead.count() == 1
    assert [found.task.run async for found in work.dead.after(0)] == [other.run]
    assert (await ended(work, one.run)).state == "dead"


async def test_what_is_no_letter_is_passed_over(bench):
    from knotwork.bus import publisher

    work = await bench.room(do={})
    await publisher.publish(work._connection, "dead.do.t0000000000000000.task", b"garbage")
    one = await dead(work)
    assert [found.task.run async for found in work.dead.after(0)] == [one.run]
    assert await letter_of(work, "t0000000000000000") is None


@pytest.mark.parametrize("per_s", [0.0, 2.0])
async def test_a_redrive_of_what_dies_at_once_gives_each_one_attempt_and_ends(bench, per_s):
    work = await bench.room(do={})
    once = Retry(max_attempts=2, delay_s=0.0, jitter=False)
    tasks = [task(value=NEVER, retry=once) for _ in range(4)]
    for one in tasks:
        await work.submitter.submit(one)
    for one in tasks:
        await until(lambda run=one.run: letter_of(work, run))
    wanted = DeadFilter(limit=100_000)
    me = Caller("me")
    meant = await dead_letters.redrive(work.dead, None, wanted, me, per_s=0.0, dry_run=True)  # no steps of runs here
    async with asyncio.timeout(60):
        done = await dead_letters.redrive(work.dead, None, wanted, me, per_s=per_s, dry_run=False)
    assert sorted((one.id, one.attempt) for one in done.tasks) == sorted((one.run, 3) for one in tasks)
    assert sorted((one.id, one.attempt) for one in meant.tasks) == sorted((one.run, 3) for one in tasks)
    for one in tasks:  # and it dies again
        assert (await until(lambda run=one.run: letter_of(work, run))).task.number == 4


async def test_a_letter_that_was_dropped_does_not_come_back_when_its_end_is_carried_out_again(bench):
    work = await bench.room(do={})
    one = await dead(work)
    letter = await work.dead.of(one.run)
    assert await work.dead.drop(letter)
    await work.recorder.carry_out(letter.task, letter.outcome)  # as who finds the task in its queue still does
    assert await letter_of(work, one.run) is None


async def test_a_drop_leaves_what_dies_while_it_walks(bench, monkeypatch):
    work = await bench.room(do={})
    monkeypatch.setattr(dead_module, "PAGE", 1)
    first = [await dead(work) for _ in range(3)]
    drop, later = work.dead.drop, []

    async def slowly(letter):
        if not later:
            later.append(await dead(work))
        return await drop(letter)

    monkeypatch.setattr(work.dead, "drop", slowly)
    dropped = await dead_letters.drop(work.dead, DeadFilter(limit=100_000))
    assert set(dropped.ids) == {one.run for one in first}
    assert dropped.missing == []
    assert (await letter_of(work, later[0].run)).task.run == later[0].run
    named = frozenset({first[0].run, later[0].run})
    again = await dead_letters.drop(work.dead, DeadFilter(ids=named, limit=100_000))
    assert (again.ids, [one.id for one in again.missing]) == ([later[0].run], [first[0].run])
