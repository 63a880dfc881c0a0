"""A failure whose retry would come too late ends the task with what was in the way: its deadline, and how it failed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knotwork.work import settle
from knotwork.work.records import Retry, Task

S = settle.S
TASK = Task(
    run="t0123456789abcdef", queue="do", deadline_ns=100 * S, retry=Retry(max_attempts=3, delay_s=10, jitter=False)
)
FAILED: dict[str, Any] = {"kind": "unavailable", "code": "x.y", "message": "no"}
LATE: dict[str, Any] = {"kind": "timed_out", "code": "call.timed_out", "message": "slow"}


def end(task: Task, error: dict[str, Any], now_s: int) -> tuple[str, dict[str, Any]]:
    state, _ = settle.after_failure(task, error, now_s * S, 1.0)
    return state, settle.told_of(task, error, state, now_s * S)


@pytest.mark.parametrize(("now_s", "says"), [(95, "next attempt would begin after its deadline"), (100, "has passed")])
def test_it_is_the_deadline_that_lets_no_other_attempt_follow(now_s: int, says: str):
    state, error = end(TASK, FAILED, now_s)
    assert (state, error["code"], error["detail"]["error"]) == ("timed-out", "work.deadline", FAILED)
    assert says in error["message"]
    assert error["message"].endswith("no")


def test_every_other_end_keeps_its_own_error():
    once = msgspec.structs.replace(TASK, retry=Retry(max_attempts=1))
    assert end(TASK, FAILED, 10) == ("waiting", FAILED)
    assert end(once, LATE, 10) == ("timed-out", LATE)
    assert end(msgspec.structs.replace(TASK, deadline_ns=0), FAILED, 95) == ("waiting", FAILED)
    own = {**LATE, "code": "work.deadline"}
    assert end(TASK, own, 100) == ("timed-out", own)
