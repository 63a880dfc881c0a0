"""Tasks survive what happens to machines: killed and frozen workers, a killed server, messages made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from types import SimpleNamespace

import msgspec
import pytest
from tests.integration.work.conftest import ended, task, until
from tests.integration.work.test_work_life import lines

from knotwork.bus import clock, publisher, pulls, reading, streams, subjects
from knotwork.sdk.errors import KnotworkError
from knotwork.work import proof, records, settle, still
from knotwork.work.queues import Queue
from knotwork.work.records import Retry
from knotwork.work.values import Values


async def test_the_task_of_a_killed_worker_comes_back_to_another(bench, tmp_path):
    work = await bench.room()
    first = await bench.worker("first", do={})
    go = tmp_path / "go"
    one = task(value={"touch": str(tmp_path / "began"), "until": str(go)})
    await work.submitter.submit(one)
    await until(lambda: lines(tmp_path / "began"))
    os.kill(first.pid, signal.SIGKILL)
    go.touch()
    await bench.worker("second", do={})
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.node) == ("completed", "second")
    assert len(lines(tmp_path / "began")) == 2


async def test_nodes_of_different_leases_keep_what_they_do(bench, tmp_path):
    """The lease of a queue is that of the node that opened it; who works for it goes by that, and not by its own."""
    work = await bench.room(lease_s=5.0)
    for name in ("patient", "calm", "slow"):
        await bench.worker(name, lease_s=30.0, do={})
    one = task(value={"touch": str(tmp_path / "began"), "sleep": 7.5})
    await work.submitter.submit(one)
    await ended(work, one.run)
    assert len(lines(tmp_path / "began")) == 1


async def test_a_frozen_workers_late_outcome_is_refused(bench, tmp_path):
    work = await bench.room()
    first = await bench.worker("first", do={})
    go = tmp_path / "go"
    one = task(value={"touch": str(tmp_path / "began"), "until": str(go)})
    await work.submitter.submit(one)
    await until(lambda: lines(tmp_path / "began"))
    os.kill(first.pid, signal.SIGSTOP)
    go.touch()
    await bench.worker("second", do={})
    outcome = await ended(work, one.run)
    assert outcome.node == "second"
    os.kill(first.pid, signal.SIGCONT)
    after = task(value={"touch": str(tmp_path / "after")})
    await work.submitter.submit(after)
    await ended(work, after.run)
    standing = await work.find(one.run)
    assert (standing.node, standing.ended_ns) == ("second", outcome.ended_ns)


async def test_a_worker_that_nats_was_away_for_longer_than_a_lease_keeps_what_it_does_and_has_not_died(bench, tmp_path):
    work = await bench.room()
    first = await bench.worker("first", do={})
    go = tmp_path / "go"
    one = task(value={"touch": str(tmp_path / "began"), "until": str(go)}, retry=Retry(max_crashes=1))
    await work.submitter.submit(one)
    await until(lambda: lines(tmp_path / "began"))
    await until(lambda: _begun(work, one))
    os.kill(first.pid, signal.SIGSTOP)  # it is the last one that is back
    await bench.worker("second", do={})
    await bench.kill_server()
    await until(lambda: _came_again(work, one))
    os.kill(first.pid, signal.SIGCONT)
    go.touch()
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.node) == ("completed", "first")
    assert len(lines(tmp_path / "began")) == 1


async def test_who_is_too_busy_to_say_whether_it_has_a_task_counts_as_one_that_may_come_back(bench):
    connection, one = (await bench.room())._connection, task()
    delivery = SimpleNamespace(reply=f"{pulls.ANSWERS}x")
    await connection.listen(subjects.still("busy"), lambda _message: None)
    await connection.listen(subjects.still("idle"), lambda message: still.answer(connection, message, {}))
    assert await still.ask(connection, ["idle"], one, delivery) == "has it not"
    assert await still.ask(connection, ["busy", "idle"], one, delivery) == "is away"


async def _begun(work, one):
    with contextlib.suppress(KnotworkError):
        return await reading.last(work._connection, subjects.FACTS, records.trace_subject(one, "started", 1))


async def _came_again(work, one):
    """Return whether it was given to somebody again, by a server that was started again."""
    queue = Queue(one.boundary, one.queue, one.lane)
    with contextlib.suppress(KnotworkError):
        told = await streams.api(work._connection, f"CONSUMER.INFO.{subjects.TASKS}.{queue.consumer}")
        return told["num_redelivered"] > 0


async def test_a_task_that_kills_its_workers_is_poison_after_three(bench, tmp_path):
    work = await bench.room()
    one = task(value={"touch": str(tmp_path / "began"), "exit": True})
    await work.submitter.submit(one)
    for number in range(3):
        process = await bench.worker(f"victim{number}", lease_s=1.0, do={})
        async with asyncio.timeout(60):
            await process.wait()
    await bench.worker("last", lease_s=1.0, do={})
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("dead", "work.poison")
    assert len(lines(tmp_path / "began")) == 3
    told = records.decode_task(bytes(outcome.task)).past
    assert [past.state for past in told] == ["crashed"] * 3  # also the first, too short to be on record
    assert [past.node for past in told[1:]] == ["victim1", "victim2"]


async def test_nothing_is_lost_when_the_server_is_killed_under_load(bench, tmp_path):
    work = await bench.room(do={"concurrency": 50})
    runs: list[str] = []

    async def submit() -> None:
        for _ in range(100):
            one = task(value={})
            while True:
                try:
                    await work.submitter.submit(one)
                    break
                except Exception:
                    await asyncio.sleep(0.05)  # a pause between two tries
            runs.append(one.run)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(submit())
        for count in (200, 500, 800):
            await until(lambda count=count: len(runs) >= count)
            await bench.kill_server()
    assert len(runs) == 1000
    for run in runs:
        assert (await ended(work, run)).state == "completed"
    found = await reading.batch(work._connection, subjects.FACTS, "run.*.*.outcome.>", 1, 5000)
    assert sorted(stored.subject.split(".")[2] for stored in found) == sorted(runs)


async def test_garbage_in_the_streams_harms_nobody(bench):
    work = await bench.room(do={})
    await work.submitter.submit(first := task())
    await ended(work, first.run)
    for number, junk in enumerate((b"", b"{}", b"not json", b'{"run":"' + b"x" * 10_000 + b'"}')):
        await publisher.publish(work._connection, f"task.none.do.normal.tjunk{number:06d}.task.0.1", junk)
    blocked = task()
    place = records.outcome_subject(blocked.run, "task", 0, 1)
    await publisher.publish(work._connection, place, b"garbage that stands where an outcome belongs")
    early = task()
    away = records.outcome_subject(early.run, "task", 0, 7)
    forged = records.Outcome("completed", records.raw(early))
    await publisher.publish(work._connection, away, records.encode(forged))
    for one in (blocked, early):
        await work.submitter.submit(one)
    assert (await ended(work, blocked.run)).node == "here"
    assert (await work.find(blocked.run)).state == "completed"


@pytest.mark.parametrize("ahead_s", [600, -600])
async def test_a_worker_whose_clock_is_wrong_keeps_the_time_of_all(bench, tmp_path, ahead_s):
    """A deadline that the submitter set, and a pause that the worker sets, are as long as they say."""
    work = await bench.room()
    await bench.worker("strange", ahead_s=ahead_s, do={})
    one = task(
        value={"touch": str(tmp_path / "tries"), "fail": {"message": "no", "retriable": True}, "fail_until": 2},
        retry=Retry(max_attempts=2, delay_s=2.0, jitter=False), deadline_ns=clock.now_ns() + 90_000_000_000,
    )  # fmt: skip
    began_ns = clock.now_ns()
    await work.submitter.submit(one)
    outcome = await ended(work, one.run, 80.0)
    assert outcome.state == "completed"
    assert began_ns + 2_000_000_000 < outcome.started_ns < outcome.ended_ns < clock.now_ns() + 1_000_000_000


async def test_a_waiting_retry_survives_the_server_and_the_node(bench, tmp_path):
    one = task(
        value={"touch": str(tmp_path / "tries"), "fail": {"message": "no", "retriable": True}, "fail_until": 2},
        retry=Retry(max_attempts=3, delay_s=6.0, jitter=False),  # long enough for both to be killed, on any machine
    )
    submitter = await bench.room()
    first = await bench.worker("first", do={})
    await submitter.submitter.submit(one)
    await until(lambda: lines(tmp_path / "tries"))

    async def waits() -> bool:
        return await reading.last(submitter._connection, subjects.TIMERS, f"timer.*.{one.run}.>") is not None

    await until(waits)
    os.kill(first.pid, signal.SIGKILL)
    await bench.kill_server()
    await bench.worker("second", do={})
    outcome = await ended(submitter, one.run)
    assert (outcome.state, outcome.node) == ("completed", "second")


async def test_what_has_ended_waits_no_more_when_the_server_forgot_that_it_was_acknowledged(bench):
    """A server that is killed forgets acknowledgements: what they were for is known by its outcome, and nobody has to come."""
    work = await bench.room()
    over, again, dead, open_ = (task(retry=Retry(max_attempts=2, delay_s=3600.0)) for _ in range(4))
    for one in (over, again, dead, open_):
        await work.submitter.submit(one)
    due_ns = clock.now_ns() + 3600 * 10**9
    for one, state in ((over, "completed"), (again, "waiting"), (dead, "dead")):  # as a worker does before its ack
        end = records.Outcome(state, records.raw(one), due_ns=due_ns if state == "waiting" else 0)
        subject = records.outcome_subject(one.run, one.step, one.iteration, one.number)
        await work.facts.append(subject, records.encode(end))
    forged = records.Outcome("completed", records.raw(msgspec.structs.replace(open_, number=2)))
    await work.facts.append(records.outcome_subject(open_.run, open_.step, 0, 2), records.encode(forged))

    async def waiting() -> list[str]:
        return await reading.subjects_of(work._connection, subjects.TASKS, "task.>")

    assert len(await waiting()) == 4
    await bench.kill_server()

    async def only_one() -> bool:
        with contextlib.suppress(KnotworkError):  # the server is away for a moment
            return await waiting() == [open_.subject]
        return False

    await until(only_one)
    (queue,) = await until(lambda: _open_queues(work))
    assert (queue.pending, queue.taken) == (1, 0)
    following = await reading.last(work._connection, subjects.FACTS, f"{records.facts_of(again.run)}.next.>")
    assert following is not None  # what its outcome calls for was done, too
    assert (await work.look(again.run)).state == "waiting"
    assert await work.dead.is_there(dead.run)
    assert [(await work.look(one.run)).state for one in (over, open_)] == ["completed", "pending"]


async def _open_queues(work):
    return [one for one in work.depths if one.pending + one.taken == 1]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(proof, "proved", id="looking up what may have been stored before"),
        pytest.param(settle, "following", id="what follows an end"),
        pytest.param(Values, "input_of", id="fetching a large input"),
        pytest.param(Values, "keep_surely", id="keeping a large output"),
    ],
)
async def test_a_bug_that_one_task_meets_ends_no_other_and_not_the_task(bench, monkeypatch, caplog, owner, name):
    """Whatever is looked up, fetched or carried out for one task: an error that nobody foresaw is not the project's end."""
    work = await bench.room(do={})
    rule, met = getattr(owner, name), asyncio.Event()

    def odd(*given, **named):
        if not met.is_set():
            met.set()
            raise ValueError("a bug")
        return rule(*given, **named)

    monkeypatch.setattr(owner, name, odd)
    script = {"fail": {"message": "once", "retriable": True}, "fail_until": 2, "text": "x" * records.INLINE_MAX_BYTES}
    one = task(key="k", retry=Retry(max_attempts=2, delay_s=0.01))
    value, blob = await work.values.keep(json.dumps(script).encode())
    one = msgspec.structs.replace(one, input=msgspec.Raw(value), blob=blob)
    await work.submitter.submit(one)
    async with asyncio.timeout(30):
        await met.wait()
    other = task(value={})
    await work.submitter.submit(other)
    assert (await ended(work, other.run)).state == "completed"
    assert (await ended(work, one.run)).state == "completed"
    assert "a bug" in caplog.text
