"""A hosted agent whose process ends under a task counts as a worker that the task killed."""

from __future__ import annotations

import msgspec
import pytest

from knotwork.work import records, settle
from knotwork.work.records import Outcome, Retry, Task

S = 1_000_000_000
TASK = Task(
    run="t0123456789abcdef", queue="do", capability="do", retry=Retry(max_attempts=10, max_crashes=3, jitter=False)
)
CRASH = {
    "kind": "failed", "code": settle.PROCESS_ENDED, "message": "its process ended", "detail": {"retriable": True},
}  # fmt: skip
FAILURE = {"kind": "unavailable", "code": "x.y", "message": "no"}


def after(task: Task, error: dict) -> tuple[str, dict, Task]:
    """Return how an attempt ends with an error, what goes on record, and what follows."""
    state, due_ns = settle.after_failure(task, error, S, 1.0)
    told = settle.told_of(task, error, state, S)
    outcome = Outcome(state, records.raw(task), error=told, ended_ns=S, due_ns=due_ns)
    made = settle.revived(task, outcome, S) if state == "dead" else settle.following(task, outcome)
    return state, told, made


def test_as_many_ended_processes_as_it_may_kill_make_a_task_poison():
    task = TASK
    for _ in range(2):
        state, told, task = after(task, CRASH)
        assert (state, told) == ("waiting", CRASH)
    state, told, task = after(task, CRASH)
    assert (state, told["code"]) == ("dead", "work.poison")
    assert "3 times" in told["message"]
    assert "its process ended" in told["message"]
    assert [past.number for past in task.past] == [1, 2, 3]


def test_other_failures_between_do_not_count_and_do_not_hide_it():
    task = TASK
    for error in (CRASH, FAILURE, CRASH, FAILURE):
        state, _, task = after(task, error)
        assert state == "waiting"
    assert after(task, CRASH)[1]["code"] == "work.poison"


def test_a_redriven_one_may_kill_as_many_again():
    task = TASK
    for _ in range(3):
        _, _, task = after(task, CRASH)
    assert settle.killed(task) == 0
    assert after(task, CRASH)[0] == "waiting"


@pytest.mark.parametrize(("attempts", "crashes", "ends"), [(1, 3, "failed"), (1, 1, "dead"), (2, 3, "waiting")])
def test_it_is_poison_only_at_its_own_limit(attempts, crashes, ends):
    task = msgspec.structs.replace(TASK, retry=Retry(max_attempts=attempts, max_crashes=crashes))
    assert after(task, CRASH)[0] == ends
