"""Tasks that have ended and stand in their queue all the same are taken out of it, and no other is."""

from __future__ import annotations

import asyncio

import msgspec
from tests.integration.work.conftest import ended, task, until
from tests.integration.work.test_claims import agent, claim

from knotwork.bus import reading, subjects
from knotwork.work import records
from knotwork.work.finished import CHUNK
from knotwork.work.records import Outcome
from knotwork.work.room import Work

ENDED = 2 * CHUNK + 5


async def test_what_has_ended_leaves_its_queue_and_what_has_not_stays(bench):
    work = await bench.room()
    tasks = [task("nobody", value=number) for number in range(ENDED + 3)]
    for one in tasks:
        await work.submitter.submit(one)
    for one in tasks[:ENDED]:  # as if a server that was killed had forgotten their acknowledgements
        outcome = Outcome("completed", msgspec.Raw(records.encode(one)), node="n", agent="a")
        await work.facts.append(records.outcome_subject(one.run, one.step, 0, 1), records.encode(outcome))
    work.finished.reconnected()
    await until(lambda: work.finished.removed == ENDED)
    left = await reading.subjects_of(work._connection, subjects.TASKS, "task.>")
    assert sorted(left) == sorted(one.subject for one in tasks[ENDED:])


async def test_what_was_handed_back_is_not_forgotten_when_what_has_ended_leaves_its_queue(bench):
    """Nobody waits for it; the server would give it again by itself only when the lease of the queue is over, in an hour."""
    work = await bench.room(lease_s=3600.0)
    done, back, lost = [task(value=number) for number in range(3)]
    for one in (done, back, lost):
        await work.submitter.submit(one)
    held = {one.task.run: one for one in [await claim(work, agent(f"a{number}")) for number in range(3)]}
    await until(lambda: work.patience.of(held[lost.run].claim.consumer) == 3600.0)
    await work.claims.release(held[back.run].token, "no time")
    work.claims.keeper.abandon(held[lost.run].claim.worker)
    await until(lambda: len(work.claims.keeper._kept) == 1)
    await work.claims.complete(held[done.run].token, None)

    async def left() -> bool:
        return done.subject not in await reading.subjects_of(work._connection, subjects.TASKS, "task.>")

    await until(left)
    again = [await claim(work), await claim(work)]
    assert {one.task.run for one in again} == {back.run, lost.run}
    assert [one.claim.delivery for one in again] == [2, 2]


async def test_a_node_that_looks_something_up_has_work_at_hand(bench, monkeypatch):
    """It came before the node did, so the past is asked for it first: whoever began the node for it must not take it for idle."""
    here = await bench.room("here")
    one = task()
    await here.submitter.submit(one)
    known = asyncio.Event()

    async def has_ended(_work, _task):
        await known.wait()
        return False

    monkeypatch.setattr(Work, "_has_ended", has_ended)
    there = await bench.room("there", do={})
    await until(lambda: there.at_hand)
    assert there.worker.running == []
    known.set()
    assert (await ended(here, one.run)).node == "there"
    await until(lambda: not there.at_hand)
