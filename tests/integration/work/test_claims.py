"""Agents that are no plugins: they claim tasks, keep them, and say how they ended. Real server, real work rooms."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import clock, frames, reading, streams, subjects
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import Conflict, KnotworkError
from knotwork.work import lasting, records
from knotwork.work.claims import Claimed
from knotwork.work.records import Retry
from knotwork.work.room import Work

SOON_S = 30.0
"""For what takes a moment."""


def agent(name: str = "laptop", *capabilities: str, count: int = 1, **fields: Any) -> AgentRecord:
    return AgentRecord(name, capabilities or ("do",), concurrency=count, attached=True, **fields)


async def claim(
    work: Work, who: AgentRecord | None = None, *, lease_s: float = 60.0, wait_s: float = SOON_S
) -> Claimed:
    """Return the one task that somebody gets."""
    (found,) = await work.claims.claim(who or agent(), lease_s=lease_s, wait_s=wait_s, held_max=1000)
    return found


async def nothing(work: Work, who: AgentRecord | None = None) -> bool:
    """Return whether there is nothing to claim at this moment."""
    return not await work.claims.claim(who or agent("other"), lease_s=60, wait_s=0, held_max=1000)


async def refused(asked: Any) -> str:
    with pytest.raises(KnotworkError) as caught:
        await asked
    return caught.value.code


async def facts(work: Work, run: str, what: str) -> list[str]:
    """Return the subjects of the facts of a kind that a run has."""
    pattern = f"{records.facts_of(run)}.{what}.>"
    return [one.subject for one in await reading.each_last(work._connection, subjects.FACTS, [pattern])]


# -- the usual way -------------------------------------------------------------------------------------------------------


async def test_what_an_agent_holds_is_kept_by_the_lease_of_its_queue(bench):
    """Another node opened the queue, with a lease far shorter than that of the node which the agent came to."""
    hasty, patient = await bench.room("hasty", lease_s=1.0), await bench.room("patient", lease_s=30.0)
    await hasty.submitter.submit(task(value=1))
    await claim(patient)
    assert await hasty.claims.claim(agent("other"), lease_s=60, wait_s=4.0, held_max=1000) == []
    assert patient.claims.keeper.held("laptop") == 1


async def test_a_claimed_task_ends_like_any_other(bench):
    work = await bench.room("here", lease_s=60.0)
    one = task(value={"a": 1}, labels={"team": "red"}, key="k1")
    await work.submitter.submit(one)
    held = await claim(work)
    assert json.loads(bytes(held.task.input)) == {"a": 1}
    assert (held.task.run, held.claim.worker, held.claim.delivery, held.checkpoint) == (one.run, "laptop", 1, None)
    said = await work.claims.complete(held.token, {"found": 3})
    assert (said.run, said.state, said.already) == (one.run, "completed", False)
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.node, outcome.agent, outcome.delivery) == ("completed", "here", "laptop", 1)
    assert json.loads(bytes(outcome.output)) == {"found": 3}
    assert outcome.started_ns <= outcome.ended_ns
    assert await nothing(work)


async def test_what_is_held_for_longer_than_a_moment_goes_on_record_as_begun(bench, monkeypatch):
    """Before, it is known from the claim itself; an attempt that ends sooner leaves no trace."""
    monkeypatch.setattr(lasting, "LONG_S", 3600.0)
    work = await bench.room("here", lease_s=60.0)
    quick, slow = task(), task()
    for one in (quick, slow):
        await work.submitter.submit(one)
    held = {one.task.run: one for one in [await claim(work), await claim(work)]}
    sight = await work.look(slow.run)
    assert (sight.state, sight.started.node, sight.started.agent, sight.started.claimed) == (
        "running", "here", "laptop", True,
    )  # fmt: skip
    await work.claims.complete(held[quick.run].token, None)
    young = work.claims.keeper._lasting._young
    young.extend([(0.0, young.popleft()[1]) for _ in range(len(young))])  # a moment has passed
    work.claims.keeper._lasting._look()
    await until(lambda: facts(work, slow.run, "started"))
    assert await facts(work, slow.run, "started") == [records.trace_subject(slow, "started", 1)]
    assert (await work.look(slow.run)).started.started_ns == held[slow.run].claim.started_ns
    await work.claims.release(held[slow.run].token, "no time")
    assert (await work.look(slow.run)).state == "pending"
    assert await facts(work, quick.run, "started") == [], "it was due before the other one"


async def test_who_waits_is_given_a_task_as_soon_as_it_is_there(bench):
    work = await bench.room()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(claim(work))
        await until(lambda: work.claims.polls._polls)
        one = task()
        await work.submitter.submit(one)
    assert waiting.result().task.run == one.run


async def test_waiting_for_nothing_ends_with_nothing(bench):
    work = await bench.room()
    start_s = time.monotonic()
    assert await work.claims.claim(agent(), lease_s=60, wait_s=0.5, held_max=1) == []
    assert time.monotonic() - start_s >= 0.5


async def test_tasks_by_name_by_capability_and_for_a_node(bench):
    work = await bench.room("here")
    mine = [task(capability="", agent="laptop"), task("do"), task(capability="", agent="laptop", node="here")]
    others = [task(capability="", agent="desk"), task("paint"), task(capability="", agent="laptop", node="there")]
    for one in (*mine, *others):
        await work.submitter.submit(one)
    got = {(await claim(work)).task.run for _ in mine}
    assert got == {one.run for one in mine}
    assert await nothing(work, agent("laptop"))


async def test_only_boundaries_that_are_accepted(bench):
    work = await bench.room()
    for boundary in ("corporate", "personal"):
        await work.submitter.submit(task(boundary=boundary))
    got = await claim(work, agent(boundaries=("personal",)))
    assert got.task.boundary == "personal"
    assert await nothing(work, agent(boundaries=("personal",)))
    assert (await claim(work, agent())).task.boundary == "corporate"


async def test_the_urgent_first(bench):
    work = await bench.room()
    for priority in (1, 5, 9):
        await work.submitter.submit(task(priority=priority))
    await until(lambda: len(work.depths) == 3)
    assert [(await claim(work)).task.priority for _ in range(3)] == [9, 5, 1]


async def test_never_more_than_asked_for(bench):
    work = await bench.room()
    for _ in range(10):
        await work.submitter.submit(task())
    found = await work.claims.claim(agent(count=3), lease_s=60, wait_s=SOON_S, held_max=1000)
    assert len(found) == 3

    async def taken() -> int:
        info = await streams.api(work._connection, "CONSUMER.INFO.TASKS.none+do+normal")
        return info["num_ack_pending"]

    await until(lambda: work.depths and work.depths[0].taken == 3)
    assert await taken() == 3


async def test_never_more_in_hand_than_an_agent_can_do(bench):
    work = await bench.room()
    for _ in range(6):
        await work.submitter.submit(task())
    first = await work.claims.claim(agent(count=5), lease_s=60, wait_s=SOON_S, held_max=2)
    assert len(first) == 2
    assert await work.claims.claim(agent(count=5), lease_s=60, wait_s=1.5, held_max=2) == []
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(work.claims.claim(agent(count=5), lease_s=60, wait_s=SOON_S, held_max=2))
        await until(lambda: work.claims.polls._polls)
        await work.claims.complete(first[0].token, None)  # makes room for one
    assert len(waiting.result()) == 1


async def test_progress_and_output_reach_whoever_watches(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    held = await claim(work)
    heard: list[tuple[str, bytes]] = []
    await work._connection.listen(
        subjects.live(one.run, "task"), lambda message: heard.append((frames.read(message).kind, message.data))
    )
    await work._connection.round_trip()
    await work.claims.report(held.token, 40.0, "half way")
    await work.claims.stream(held.token, {"line": 1})
    await until(lambda: len(heard) == 2)
    assert heard[0][0] == "progress"
    assert json.loads(heard[0][1]) == {"percent": 40.0, "text": "half way"}
    assert heard[1] == ("chunk", b'{"line":1}')


# -- how it ends ---------------------------------------------------------------------------------------------------------


async def test_failing_for_good(bench):
    work = await bench.room()
    one = task(retry=Retry(max_attempts=5))
    await work.submitter.submit(one)
    held = await claim(work)
    said = await work.claims.fail(held.token, "no such branch", code="git.gone", retriable=False, retry_after_s=None)
    assert said.state == "failed"
    outcome = await ended(work, one.run)
    assert (outcome.error["code"], outcome.error["message"]) == ("git.gone", "no such branch")


async def test_failing_for_now_and_going_on_from_a_checkpoint(bench):
    work = await bench.room(lease_s=60.0)
    one = task(retry=Retry(max_attempts=2, delay_s=0.1, jitter=False))
    await work.submitter.submit(one)
    first = await claim(work)
    await work.claims.save(first.token, {"page": 3})
    await work.claims.save(first.token, {"page": 4})
    assert await work.claims.saved(first.token) == (first.claim, b'{"page":4}')
    start_s, start_ns = time.monotonic(), clock.now_ns()
    said = await work.claims.fail(first.token, "busy", code="agent.failed", retriable=True, retry_after_s=1.0)
    assert said.state == "waiting"
    assert said.due_ns >= start_ns + 900_000_000
    second = await claim(work)
    assert time.monotonic() - start_s >= 0.9, "it was asked to wait"
    assert (second.task.number, second.checkpoint) == (2, b'{"page":4}')
    assert await refused(work.claims.complete(first.token, None)) == "claim.ended", "the wrong attempt"
    await work.claims.complete(second.token, "ok")
    assert (await ended(work, one.run)).state == "completed"
    await until(lambda: forgotten(work, one.run))


async def test_a_task_that_is_redriven_goes_on_from_its_checkpoint(bench):
    work = await bench.room()
    one = task(retry=Retry(max_attempts=2, delay_s=0.01, jitter=False))
    await work.submitter.submit(one)
    for page in (3, 4):
        held = await claim(work)
        await work.claims.save(held.token, {"page": page})
        await work.claims.fail(held.token, "busy", code="agent.failed", retriable=True, retry_after_s=None)
    await work.dead.redrive(await work.dead.of(one.run), "me", clock.now_ns())
    revived = await claim(work)
    assert (revived.task.number, revived.checkpoint) == (3, b'{"page":4}')
    await work.claims.complete(revived.token, "ok")
    await until(lambda: forgotten(work, one.run))


async def forgotten(work: Work, run: str) -> bool:
    return await work.claims.checkpoints.read(run, "task") is None


async def test_continuing(bench):
    work = await bench.room()
    one = task(value={"page": 1})
    await work.submitter.submit(one)
    for page in (2, 3):
        held = await claim(work)
        assert (await work.claims.go_on(held.token, {"page": page})).state == "continued"
        assert (await work.claims.go_on(held.token, {"page": page})).already
    held = await claim(work)
    assert (held.task.iteration, json.loads(bytes(held.task.input))) == (2, {"page": 3})
    await work.claims.complete(held.token, "all")
    assert (await ended(work, one.run)).state == "completed"


async def test_giving_it_back(bench):
    work = await bench.room(lease_s=60.0)
    one = task()
    await work.submitter.submit(one)
    for number in range(5):  # more often than crashes are forgiven
        held = await claim(work)
        assert held.claim.delivery == number + 1
        await work.claims.release(held.token, "going home")
        assert await refused(work.claims.complete(held.token, None)) in ("claim.expired", "claim.superseded")
    held = await claim(work)
    await work.claims.complete(held.token, None)
    assert (await ended(work, one.run)).state == "completed"
    assert len(await facts(work, one.run, "released")) == 5


async def test_saying_the_same_twice_counts_once(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    held = await claim(work)
    async with asyncio.TaskGroup() as group:
        said = [group.create_task(work.claims.complete(held.token, {"a": 1})) for _ in range(20)]
    assert [one.result().state for one in said] == ["completed"] * 20
    assert sum(not one.result().already for one in said) == 1
    assert (await work.claims.complete(held.token, {"a": 1})).already
    assert await refused(work.claims.complete(held.token, {"a": 2})) == "claim.ended"
    assert (
        await refused(work.claims.fail(held.token, "no", code="x", retriable=True, retry_after_s=None)) == "claim.ended"
    )
    for late in (
        work.claims.extend(held.token, 60),
        work.claims.report(held.token, 1, ""),
        work.claims.saved(held.token),
    ):
        assert await refused(late) == "claim.ended"
    assert bytes((await ended(work, one.run)).output) == b'{"a":1}'


async def test_a_large_output_is_kept_apart(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    held = await claim(work)
    text = "x" * (records.INLINE_MAX_BYTES + 1)
    await work.claims.complete(held.token, text)
    assert (await work.claims.complete(held.token, text)).already
    outcome = await ended(work, one.run)
    assert json.loads(await work.values.read(bytes(outcome.output), outcome.blob)) == text
    assert outcome.blob


async def test_a_sign_of_life_lets_the_lease_begin_anew_as_long_as_it_was(bench):
    work = await bench.room()
    await work.submitter.submit(task())
    held = await claim(work, lease_s=300.0)
    for said_s, lease_s in ((None, 300.0), (600.0, 600.0), (None, 600.0), (5.0, 5.0)):
        now_ns = clock.now_ns()
        longer = await work.claims.extend(held.token, said_s)
        assert longer.lease_s == lease_s
        assert longer.until_ns >= now_ns + lease_s * 1e9


async def test_a_checkpoint_has_a_size(bench):
    work = await bench.room()
    await work.submitter.submit(task())
    held = await claim(work)
    assert await refused(work.claims.save(held.token, "x" * 600_000)) == "claim.checkpoint_too_large"
    assert (await work.claims.saved(held.token))[1] is None


# -- others have a word in it --------------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_agent(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    held = await claim(work)
    with work.attached.line(agent()) as notices:
        reason = KnotworkError("Cancelled.", code="work.cancelled")
        await work.end(one.run, "cancelled", reason)
        async with asyncio.timeout(SOON_S):
            told = await anext(notices)
        await notices.aclose()
    assert (told.claim.run, told.why) == (one.run, "ended")
    for late in (
        work.claims.extend(held.token, 60), work.claims.report(held.token, 1, ""), work.claims.complete(held.token, None),
    ):  # fmt: skip
        assert await refused(late) == "claim.cancelled"
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.agent) == ("cancelled", told.claim.worker), "who had it is kept with its end"
    assert outcome.started_ns == told.claim.started_ns


async def test_a_deadline_and_a_timeout_end_the_attempt(bench):
    work = await bench.room()
    late = task(deadline_ns=time.time_ns() + 8_000_000_000)  # they must be claimed before
    slow = task(timeout_s=4.0)
    for one in (late, slow):
        await work.submitter.submit(one)
    held = {(found := await claim(work)).task.run: found for _ in range(2)}
    assert held[slow.run].claim.ends_ns
    for one, code in ((late, "work.deadline"), (slow, "call.timed_out")):
        outcome = await ended(work, one.run)
        assert (outcome.state, outcome.error["code"]) == ("timed-out", code)
        assert await refused(work.claims.complete(held[one.run].token, None)) == "claim.superseded"
    assert await nothing(work)


async def test_a_timeout_may_be_tried_again(bench):
    work = await bench.room(lease_s=60.0)
    one = task(timeout_s=2.0, retry=Retry(max_attempts=20, delay_s=0.1, max_delay_s=0.1))
    await work.submitter.submit(one)
    await claim(work)
    while True:
        again = await claim(work)
        assert again.task.number >= 2
        try:
            await work.claims.complete(again.token, None)
            break
        except Conflict:  # a slow machine: its time was over as well
            assert again.task.number < 20
    assert (await ended(work, one.run)).state == "completed"


async def test_hosted_agents_and_others_share_the_work(bench, tmp_path):
    work = await bench.room("here", lease_s=60.0, do={"concurrency": 2})
    tasks = [task(value={"sleep": 0.02, "touch": str(tmp_path / "hosted")}) for _ in range(60)]
    done = 0

    async def labour() -> None:
        nonlocal done
        while True:
            for held in await work.claims.claim(agent(count=2), lease_s=60, wait_s=5, held_max=1000):
                await work.claims.complete(held.token, "attached")
                done += 1

    async with asyncio.TaskGroup() as group:
        labouring = group.create_task(labour())
        for one in tasks:
            await work.submitter.submit(one)
        for one in tasks:
            assert (await ended(work, one.run)).state == "completed"
        labouring.cancel()
    hosted = len((tmp_path / "hosted").read_text().splitlines())
    assert hosted + done == len(tasks), "each was done once"
    assert hosted
    assert done


@pytest.mark.timeout(240)
async def test_fifty_agents_and_a_thousand_tasks(bench):
    work = await bench.room(lease_s=60.0)
    tasks = {one.run: one for one in (task(value=number) for number in range(1000))}
    outcomes: dict[str, str] = {}

    async def labour(name: str) -> None:
        while len(outcomes) < len(tasks):
            for held in await work.claims.claim(agent(name, count=4), lease_s=60, wait_s=1, held_max=1000):
                assert held.task.run not in outcomes, "given out twice"
                outcomes[held.task.run] = name
                said = await work.claims.complete(held.token, {"by": name})
                assert not said.already

    async with asyncio.timeout(200), asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(labour(f"agent{number}"))
        for one in tasks.values():
            group.create_task(work.submitter.submit(one))
    assert outcomes.keys() == tasks.keys()
    for run, name in outcomes.items():
        outcome = await ended(work, run)
        assert outcome.agent == name
        assert json.loads(bytes(outcome.output)) == {"by": name}
    assert len(set(outcomes.values())) > 10, "the work was shared"
    await until(lambda: work.depths and work.depths[0].taken == work.depths[0].pending == 0)


# -- who is here ---------------------------------------------------------------------------------------------------------


async def test_who_is_connected_need_not_say_it_again(bench):
    work = await bench.room()
    with work.attached.line(agent("laptop", "paint", count=3, boundaries=("personal",), executor="copilot")) as notices:
        record, held_max = work.attached.asked(AgentRecord("laptop", (), executor="attached", attached=True), 60.0)
        assert (record.capabilities, record.boundaries, record.executor) == (("paint",), ("personal",), "copilot")
        assert held_max == 3
        assert [one.name for one in work.attached.records()] == ["laptop"]
        await notices.aclose()
    assert [one.name for one in work.attached.records()] == ["laptop"], "it asked for work just now"


async def test_a_hosted_agents_name_is_taken(bench):
    work = await bench.room(do={})
    with pytest.raises(KnotworkError) as caught, work.attached.line(agent("do")):
        pass
    assert caught.value.code == "claim.name_taken"
    assert work.attached.records() == ()


async def test_a_line_that_ends_takes_its_agent_with_it(bench):
    work = await bench.room()
    changes = []
    work.attached.changed = lambda: changes.append([one.name for one in work.attached.records()])
    with work.attached.line(agent("laptop")) as notices:
        await notices.aclose()
    assert changes == [["laptop"], []]


# -- signals -------------------------------------------------------------------------------------------------------------


async def test_a_signal_reaches_who_waits_before_and_after(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    async with asyncio.TaskGroup() as group:
        before = group.create_task(work.signals.wait(one.run, "approved", SOON_S))
        await until(lambda: any("signal" in line.subject for line in work._connection._listening))
        assert await work.signals.send(one.run, "approved", {"by": "me"}, "tester")
    after = await work.signals.wait(one.run, "approved", SOON_S)
    assert bytes(before.result().value) == bytes(after.value) == b'{"by":"me"}'
    assert after.by == "tester"
    assert await work.signals.wait(one.run, "refused", 0.2) is None
    assert not any("signal" in line.subject for line in work._connection._listening)


async def test_a_signal_is_sent_once(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    assert await work.signals.send(one.run, "go", 1, "a")
    assert not await work.signals.send(one.run, "go", 1, "b")
    assert await refused(work.signals.send(one.run, "go", 2, "b")) == "work.signal_sent"
    assert await refused(work.signals.send(one.run, "big", "x" * 600_000, "b")) == "work.signal_too_large"
    assert await refused(work.signals.send("t0000000000000000", "go", 1, "b")) == "work.not_found"
    assert await refused(work.signals.wait("t0000000000000000", "go", 1)) == "work.not_found"
    held = await claim(work)
    await work.claims.complete(held.token, None)
    assert await refused(work.signals.send(one.run, "late", 1, "a")) == "work.ended"
    with contextlib.suppress(TimeoutError):
        assert bytes((await work.signals.wait(one.run, "go", SOON_S)).value) == b"1"


async def test_work_for_a_capability_is_claimed_at_once_by_one_that_had_work_in_its_own_name(bench):
    work = await bench.room("here", lease_s=60.0)
    who = agent("pq", "rare")
    named = task(value=0, agent="pq", capability="")
    await work.submitter.submit(named)
    assert (await claim(work, who)).task.run == named.run
    await work.claims.polls._look_anew()
    work.claims.swept = lambda _depths: None  # from here on nobody looks at all queues for it
    work.claims.polls._looked_s = float("inf")
    for number in range(10):
        await work.submitter.submit(task(value=number, capability="rare"))
        await claim(work, who)
