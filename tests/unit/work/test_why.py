"""Why a task is where it is: a sentence for every state and every reason."""

from __future__ import annotations

import msgspec
import pytest

from knotwork.work import records, why
from knotwork.work.lookup import Sight
from knotwork.work.records import FINAL, Outcome, Retry, Started, Task

S = 1_000_000_000
TASK = Task(run="t0123456789abcdef", queue="do", capability="do", retry=Retry(max_attempts=3))
FREE = why.Seen("n", "free", "online")


def pending(task: Task = TASK, *agents: why.Seen, **around) -> str:
    return why.explain(Sight(task, "pending", seq=1), why.Surroundings(agents, **around), 0)


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (why.Seen("n", "a", "draining"), "drains"),
        (why.Seen("n", "a", "stale"), "its node is stale"),
        (why.Seen("n", "a", "online", 1.0), "all its places are taken"),
        (why.Seen("n", "a", "online", barred="it may do no corporate work"), "it may do no corporate work"),
    ],
)
def test_each_agent_says_why_not(agent, reason):
    assert reason in why.consider(TASK, [agent])[0].why_not
    assert reason in pending(TASK, agent)
    told = pending(TASK, agent, FREE)
    assert "n/free is free" in told
    assert [one.agent.agent for one in why.consider(TASK, [agent, FREE])] == ["free", "a"]


def test_the_queue_and_what_is_before_it_is_named():
    task = msgspec.structs.replace(TASK, boundary="personal", priority=9)
    told = pending(task, FREE, before=7)
    assert all(word in told for word in ("queue do", "personal", "lane high", "7 before it"))
    assert "before" not in pending(TASK, FREE)


def test_nothing_is_promised_for_an_agent_that_has_to_ask():
    guest = why.Seen("n", "guest", "online", attached=True)
    told = pending(TASK, guest)
    assert ("n/guest can take it, once it asks for work" in told, "within" in told) == (True, False)
    assert "n/free is free to take it, within 2 s" in pending(TASK, guest, FREE)


def test_a_part_of_what_is_paused_is_said_to_wait_for_that():
    told = pending(msgspec.structs.replace(TASK, labels={"orchestration": "o0123"}), FREE, held=True)
    assert "o0123, of which it is a part, is paused or has spent its budget" in told
    assert "is free" not in told


def test_private_work_is_for_those_who_claim_it():
    task = msgspec.structs.replace(TASK, queue="==private-0123456789abcdef01234567=do")
    told = pending(task, FREE)
    assert "executors of a node get no private or personal work" in told
    assert "queue do," in pending(task, FREE, before=1)
    assert "router" not in told
    assert "whom its submitter meant" in pending(task, why.Seen("n", "guest", "online", attached=True))


def test_nobody_is_there():
    assert "nobody who is there offers capability do" in pending()
    named = msgspec.structs.replace(TASK, capability="", agent="bob", queue="=bob")
    assert "nobody who is there offers agent bob" in pending(named)
    away = msgspec.structs.replace(named, node="far", queue="far=bob")
    assert "node far is away" in pending(away, node_state="offline")
    other = why.Seen("near", "bob", "online")
    assert why.consider(away, [other])[0].why_not == "it is meant for node far"
    assert "node far" in why.routed(away)


def failed(retry: Retry, code: str = "agent.exit_code", state="failed", **detail) -> str:
    task = msgspec.structs.replace(TASK, retry=retry)
    error = {"code": code, "message": "oops", "kind": "failed", "detail": detail}
    return why.explain(Sight(task, state, Outcome(state, records.raw(task), error=error)), why.Surroundings(), 0)


def test_a_failure_that_was_not_tried_again_says_why():
    typo = failed(Retry(max_attempts=3, on=("agent.exit_cod", "agent.busy")))
    assert typo.endswith(
        "oops (agent.exit_code). It was not tried again: its `retry_on` names agent.exit_cod, agent.busy."
    )
    assert "does not say that it may pass" in failed(Retry(max_attempts=3))
    assert "names a.b" in failed(Retry(max_attempts=3, on=("a.b",)), "agent.timed_out", "timed-out")
    for told in (
        failed(Retry()), failed(Retry(max_attempts=3, on=("work.deadline",)), "work.deadline", "timed-out"),
        failed(Retry(max_attempts=3), retriable=True),
    ):  # fmt: skip
        assert "not tried again" not in told


def test_a_retry_names_its_time_and_the_failure_before_it():
    outcome = Outcome("waiting", records.raw(TASK), error={"code": "x.y", "message": "oops"}, due_ns=65 * S)
    task = msgspec.structs.replace(TASK, number=2)
    told = why.explain(Sight(task, "waiting", outcome), why.Surroundings(), 60 * S)
    assert all(word in told for word in ("Attempt 2 of 3", "1970-01-01T00:01:05.000Z", "5.0 s", "oops (x.y)"))
    redriven = msgspec.structs.replace(TASK, number=5)
    assert "Attempt 5 begins" in why.explain(Sight(redriven, "waiting", outcome), why.Surroundings(), 0)


def test_who_has_it_and_what_happens_when_that_node_is_gone():
    sight = Sight(TASK, "running", started=Started("far", "a", 10 * S))
    assert "far/a has it since 1970-01-01T00:00:10.000Z (2.0 s)" in why.explain(
        sight, why.Surroundings(node_state="online"), 12 * S
    )
    told = why.explain(sight, why.Surroundings(node_state="offline", lease_s=7), 12 * S)
    assert "offline" in told
    assert "7 s after its last sign of life the task waits again, for whoever can do it" in told
    assert "gone" in why.explain(sight, why.Surroundings(), 12 * S)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_an_end_says_who_when_and_what(state):
    outcome = Outcome(
        state, records.raw(TASK), node="n", agent="a", ended_ns=10 * S, error={"code": "x.y", "message": "so it was"}
    )  # fmt: skip
    told = why.explain(Sight(TASK, state, outcome), why.Surroundings(), 0)
    assert "1970-01-01T00:00:10" in told
    if state != "completed":
        assert "so it was (x.y)" in told
    assert (f"knotwork dead redrive {TASK.run}" in told) == (state == "dead")
