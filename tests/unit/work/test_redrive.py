"""What a redrive makes of a dead task: the next attempt, with its history, and all its attempts anew."""

from __future__ import annotations

import msgspec

from knotwork.work import records, settle
from knotwork.work.records import Outcome, Retry, Task

S = 1_000_000_000
TASK = Task(run="t0123456789abcdef", queue="do", capability="do", retry=Retry(max_attempts=3, jitter=False))
ERROR = {"kind": "unavailable", "code": "x.y", "message": "no"}


def fail(task: Task, now_ns: int = 10 * S) -> tuple[str, Task | None]:
    """Return how a failure ends an attempt, and the attempt that follows."""
    state, due_ns = settle.after_failure(task, ERROR, now_ns, 1.0)
    outcome = Outcome(state, records.raw(task), error=ERROR, ended_ns=now_ns, due_ns=due_ns)
    return state, settle.revived(task, outcome, now_ns) if state == "dead" else settle.following(task, outcome)


def die(task: Task) -> tuple[int, Task]:
    """Return how many attempts a task had until it died, and the one it is revived as."""
    count = 0
    while True:
        count += 1
        state, task = fail(task)
        if state == "dead":
            return count, task


def test_each_redrive_has_all_attempts_again():
    task = TASK
    for round_ in range(1, 4):
        count, task = die(task)
        assert (count, task.number) == (3, 3 * round_ + 1)
    assert [past.state for past in task.past] == ["waiting", "waiting", "dead"] * 3
    assert [past.number for past in task.past] == list(range(1, 10))


def test_a_pause_after_a_redrive_is_the_first_one_again():
    _, task = die(TASK)
    assert settle.after_failure(task, ERROR, 0, 1.0) == ("waiting", S)


def test_a_failure_in_a_new_iteration_does_not_count_those_of_the_one_before():
    _, task = fail(TASK)
    again = settle.following(task, Outcome("continued", records.raw(task)))
    assert (again.iteration, again.number) == (1, 1)
    count, _ = die(again)
    assert count == 3


def test_only_a_deadline_that_has_passed_is_taken_off():
    task = msgspec.structs.replace(TASK, deadline_ns=20 * S)
    outcome = Outcome("dead", records.raw(task))
    assert settle.revived(task, outcome, 19 * S).deadline_ns == 20 * S
    assert settle.revived(task, outcome, 20 * S).deadline_ns == 0


def test_a_thousand_attempts_are_all_there_can_be():
    task = msgspec.structs.replace(TASK, number=records.ATTEMPTS_MAX)
    assert settle.revived(task, Outcome("dead", records.raw(task)), 0) is None
