"""Whoever may write to the streams cannot change how a task ended, nor begin an attempt that none before calls for."""

from __future__ import annotations

import time

import msgspec
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import patterns, publisher, reading, subjects
from knotwork.work import lookup, proof, records, settle
from knotwork.work.records import Retry

EVIL = msgspec.Raw(b'"EVIL"')


async def forge(work, of: records.Task, state="completed", **fields) -> None:
    """Store an outcome of an attempt of a task that never was."""
    attempt = msgspec.structs.replace(of, **fields)
    outcome = records.Outcome(state, records.raw(attempt), output=EVIL, node="x", agent="x", ended_ns=time.time_ns())
    place = records.outcome_subject(attempt.run, attempt.step, attempt.iteration, attempt.number)
    await publisher.publish(work._connection, place, records.encode(outcome))


async def forge_task(work, of: records.Task, **fields) -> records.Task:
    """Store an attempt that nobody called for."""
    attempt = msgspec.structs.replace(of, **fields)
    await publisher.publish(work._connection, attempt.subject, records.encode(attempt))
    return attempt


async def done(work, value="real", **fields) -> records.Task:
    one = task(value=value, **fields)
    await work.submitter.submit(one)
    assert (await ended(work, one.run)).state == "completed"
    return one


async def check(work, one: records.Task, output: bytes) -> None:
    """Assert that everybody who asks is told the same end."""
    sight = await lookup.look(work._connection, one.run)
    assert (sight.state, bytes(sight.outcome.output)) == ("completed", output)
    assert bytes((await ended(work, one.run)).output) == output
    assert await lookup.present(work._connection, one.run) is None


async def test_an_outcome_behind_the_end_is_passed_over_and_counted(bench):
    work = await bench.room(do={})
    one = await done(work)
    output = bytes((await work.find(one.run)).output)
    await forge(work, one, number=2)
    await check(work, one, output)
    assert work.proofs.garbage == 1
    await forge(work, one, iteration=3)
    await forge(work, one, step="other")
    await forge(work, one, "waiting", number=3)
    past = (records.Past(3, "waiting"),)
    await forge(work, one, number=4, past=past)  # led to by another that is forged
    await check(work, one, output)
    await check(work, one, output)
    assert work.proofs.garbage >= 4


async def test_an_attempt_that_none_calls_for_is_not_begun(bench):
    work = await bench.room(do={})
    one = await done(work)
    output = bytes((await work.find(one.run)).output)
    forged = await forge_task(work, one, number=2, input=msgspec.Raw(b'"again"'))
    await forge_task(work, one, iteration=1)
    assert await work.end(one.run, "cancelled", proof_error()) == await work.find(one.run)

    async def gone() -> bool:
        pattern = patterns.tasks_of(one.run)
        return await reading.last(work._connection, subjects.TASKS, pattern) is None

    await until(gone)
    place = records.outcome_subject(forged.run, forged.step, 0, 2)
    assert await reading.last(work._connection, subjects.FACTS, place) is None
    await check(work, one, output)


def proof_error():
    from knotwork.sdk.errors import Cancelled

    return Cancelled("by you", code="work.cancelled")


async def test_a_waiter_is_not_told_of_an_end_that_is_none(bench):
    work = await bench.room(do={})
    one = task(value={"sleep": 1.0})
    async with work.waiters.expected(one.run) as coming:
        await work.submitter.submit(one)
        await forge(work, one, number=2)
        assert bytes((await coming).output) != bytes(EVIL)
    await check(work, one, bytes((await work.find(one.run)).output))


async def test_a_forged_retry_that_comes_too_early_does_not_keep_the_right_one_away(bench):
    work = await bench.room(do={})
    wrong = {"fail": {"message": "no", "retriable": True}, "fail_until": 2}
    one = task(value=wrong, retry=Retry(max_attempts=3, delay_s=5.0, jitter=False))
    await work.submitter.submit(one)

    async def waiting() -> bool:
        return (await lookup.look(work._connection, one.run)).state == "waiting"

    await until(waiting)
    await forge_task(work, one, number=2, input=msgspec.Raw(b'"forged"'))
    outcome = await ended(work, one.run)
    last = records.decode_task(bytes(outcome.task))
    assert (outcome.state, last.number, bytes(last.input)) == ("completed", 2, bytes(one.input))


async def test_facts_that_say_a_completed_task_goes_on_are_passed_over(bench):
    work = await bench.room(do={})
    one = await done(work)
    output = bytes((await work.find(one.run)).output)
    again = msgspec.structs.replace(one, number=2)
    for place in (records.next_subject(again), records.redriven_subject(again)):
        await publisher.publish(work._connection, place, records.encode(again))
    await check(work, one, output)


async def test_a_long_run_is_proved_once(bench):
    work = await bench.room()
    one = task()
    for _ in range(5):
        outcome = records.Outcome("continued", records.raw(one), output=one.input, ended_ns=1)
        place = records.outcome_subject(one.run, one.step, one.iteration, one.number)
        await publisher.publish(work._connection, place, records.encode(outcome))
        one = settle.following(one, outcome)
    assert await proof.proved(work._connection, one, exactly=True)
    assert work.proofs.is_proved(one, (5, 1))
    assert not await proof.proved(work._connection, msgspec.structs.replace(one, number=2))
    other = msgspec.structs.replace(one, input=msgspec.Raw(b'"other"'))
    assert not await proof.proved(work._connection, other, exactly=True)
    sight = await lookup.look(work._connection, one.run)
    assert (sight.state, sight.task.iteration) == ("pending", 5)
