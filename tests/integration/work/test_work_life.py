"""A task's life on a real server: done once, tried again, timed out, cancelled, looped, dead; awaited from anywhere."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.integration.work.conftest import ended, task, until

from knotwork.bus import patterns, reading, subjects
from knotwork.sdk.errors import Cancelled, Conflict
from knotwork.work import records, settle, worker
from knotwork.work.records import Retry

SLOW = Retry(max_attempts=4, delay_s=0.05, jitter=False)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def _runs(work, run: str) -> bool:
    """Return whether it is on record that a task has begun."""
    sight = await work.look(run)
    return sight is not None and sight.state == "running"


async def test_a_task_is_done_once_and_its_end_can_be_awaited_by_anyone_again_and_again(bench, tmp_path):
    work = await bench.room(do={})
    other = await bench.room("other")
    one = task(value={"touch": str(tmp_path / "done")})
    assert await work.submitter.submit(one)
    first = await ended(other, one.run)
    assert (first.state, first.node, first.agent) == ("completed", "here", "do")
    assert (await ended(other, one.run)).ended_ns == first.ended_ns
    assert (await ended(work, one.run)).ended_ns == first.ended_ns
    assert len(lines(tmp_path / "done")) == 1


async def test_two_stored_messages_are_what_a_task_costs(bench, monkeypatch):
    monkeypatch.setattr(worker, "LONG_S", 3600.0)  # one that lasts, also because the machine stood still, costs three
    work = await bench.room(do={})
    before = [await reading.last_seq(work._connection, name) for name in ("FACTS", "TASKS", "TIMERS", "DEAD")]
    runs = [task() for _ in range(50)]
    for one in runs:
        await work.submitter.submit(one)
    for one in runs:
        await ended(work, one.run)
    after = [await reading.last_seq(work._connection, name) for name in ("FACTS", "TASKS", "TIMERS", "DEAD")]
    assert sum(after) - sum(before) == 100


async def test_finished_tasks_are_gone_from_the_stream_in_a_moment(bench):
    work = await bench.room(do={})
    runs = [task() for _ in range(20)]
    for one in runs:
        await work.submitter.submit(one)
        await ended(work, one.run)

    async def gone() -> bool:
        return not await reading.batch(work._connection, subjects.TASKS, "task.>", 1, 10)

    assert await until(gone)


async def test_a_failure_that_may_pass_is_tried_again_and_its_history_kept(bench):
    work = await bench.room(do={})
    fail = {"message": "not yet", "code": "test.later", "retriable": True}
    one = task(value={"fail": fail, "fail_until": 3}, retry=SLOW)
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert outcome.state == "completed"
    last = records.decode_task(bytes(outcome.task))
    assert last.number == 3
    assert [(past.number, past.state, past.code) for past in last.past] == [
        (1, "waiting", "test.later"),
        (2, "waiting", "test.later"),
    ]


async def test_exhausted_attempts_end_as_a_dead_letter(bench):
    work = await bench.room(do={})
    one = task(value={"fail": {"message": "no", "retriable": True}}, retry=Retry(max_attempts=2, delay_s=0.01))
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert outcome.state == "dead"
    stored = await until(lambda: reading.last(work._connection, subjects.DEAD, patterns.dead_of(one.run)))
    assert records.decode_outcome(stored.data).error["message"] == "no"


async def test_a_permanent_failure_is_final_at_once(bench):
    work = await bench.room(do={})
    one = task(value={"fail": {"message": "never", "code": "test.never"}}, retry=SLOW)
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("failed", "test.never")


async def test_a_loop_goes_on_with_its_own_output(bench):
    work = await bench.room(do={})
    one = task(value={"loops": 5, "kept": True})
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert outcome.state == "completed"
    assert bytes(outcome.output) == b'{"loops":0,"kept":true}'
    assert records.decode_task(bytes(outcome.task)).iteration == 5


async def test_a_timeout_stops_the_worker_and_is_typed(bench):
    work = await bench.room(do={})
    one = task(value={"sleep": 3600}, timeout_s=0.3)
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["kind"]) == ("timed-out", "timed_out")
    await until(lambda: not work.worker.running)


async def test_a_deadline_ends_a_task_that_nobody_takes(bench):
    work = await bench.room()
    one = task("nobody", deadline_ns=time.time_ns() + 300_000_000)
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("timed-out", "work.deadline")


async def test_a_cancelled_task_never_starts_when_it_waits_and_stops_when_it_runs(bench, tmp_path):
    work = await bench.room(do={"concurrency": 1})
    running = task(value={"sleep": 3600})
    waiting = task(value={"touch": str(tmp_path / "started")})
    await work.submitter.submit(running)
    await until(lambda: _runs(work, running.run))  # that it lasts is on record
    await work.submitter.submit(waiting)
    gone = Cancelled("Not wanted any more.", code="work.cancelled")
    unbegun = await work.end(waiting.run, "cancelled", gone)
    assert (unbegun.state, unbegun.agent, unbegun.started_ns) == ("cancelled", "", 0)
    stopped = await work.end(running.run, "cancelled", gone)
    assert (stopped.state, stopped.agent) == ("cancelled", "do"), "who had it is kept with its end"
    assert 0 < stopped.started_ns <= stopped.ended_ns
    [attempt] = settle.told(records.decode_task(bytes(stopped.task)), stopped)
    assert (attempt.state, attempt.agent) == ("cancelled", "do")
    await until(lambda: not work.worker.running)
    after = task(value={"touch": str(tmp_path / "after")})
    await work.submitter.submit(after)
    await ended(work, after.run)
    assert lines(tmp_path / "started") == []
    assert (await ended(work, waiting.run)).state == "cancelled"
    assert (await work.end(after.run, "cancelled", gone)).state == "completed", "a terminal state is final"


async def test_a_key_gives_one_task_however_many_submit_it(bench, tmp_path):
    work = await bench.room(do={})
    others = [await bench.room(f"other{number}") for number in range(3)]
    script, turned = ({"touch": str(tmp_path / "once"), "a": 1}, {"a": 1, "touch": str(tmp_path / "once")})

    async def submit(room) -> bool:
        return await room.submitter.submit(
            task(value=script if room is work else turned, run="kaaaaaaaaaaaaaaaa", key="my-key")
        )

    async with asyncio.TaskGroup() as group:
        claims = [group.create_task(submit(room)) for room in [work, *others] * 10]
    assert sum(claim.result() for claim in claims) == 1
    await ended(work, "kaaaaaaaaaaaaaaaa")
    assert not await submit(others[0])
    assert len(lines(tmp_path / "once")) == 1
    try:
        await work.submitter.submit(task(value={}, run="kaaaaaaaaaaaaaaaa", key="my-key"))
    except Conflict as error:
        assert error.code == "work.key_reused"
    else:
        raise AssertionError("a key was used twice")


async def test_urgent_tasks_go_first(bench, tmp_path):
    work = await bench.room()
    order = tmp_path / "order"
    runs = [task(value={"touch": f"{order}{priority}"}, priority=priority) for priority in (1, 5, 10)]
    for one in runs:
        await work.submitter.submit(one)
    worker = await bench.room("worker", do={"concurrency": 1})
    for one in runs:
        await ended(worker, one.run)
    when = [(await work.find(one.run)).started_ns for one in runs]
    assert when == sorted(when, reverse=True)
