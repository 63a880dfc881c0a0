"""What a task carries along of its earlier attempts fits into a message, however many they were; what does not is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knotwork.work import records, settle
from knotwork.work.records import ATTEMPTS_MAX, Ended, Outcome, Retry, Task

TASK = Task(
    run="t0123456789abcdef", queue="do", capability="do", retry=Retry(max_attempts=ATTEMPTS_MAX),
    input=msgspec.Raw(b'"hello"'), labels={"team": "a"},
)  # fmt: skip
REFUSAL: dict[str, Any] = {"kind": "too_large", "code": "bus.message_too_large", "message": "The fact has 9 bytes."}


def test_a_thousand_long_failures_stay_below_a_megabyte():
    task = TASK
    error = {"kind": "unavailable", "code": "x.y", "message": "z" * 10_000}
    while task.number < ATTEMPTS_MAX:
        following = settle.following(task, Outcome("waiting", records.raw(task), error=error, node="n", agent="a"))
        assert following is not None
        task = following
    assert [past.number for past in task.past] == list(range(1, ATTEMPTS_MAX))
    assert [len(past.message) for past in task.past[-settle.WHOLE_PASTS :]] == [4096] * settle.WHOLE_PASTS
    assert {len(past.message) for past in task.past[: -settle.WHOLE_PASTS]} == {settle.SHORT_CHARS}
    assert all(past.code == "x.y" for past in task.past)
    assert len(records.encode(task)) < 500_000


@pytest.mark.parametrize("state", ["completed", "waiting", "continued", "failed", "dead"])
def test_an_outcome_that_cannot_be_stored_becomes_a_failure_that_says_so(state: Ended):
    outcome = Outcome(state, records.raw(TASK), output=msgspec.Raw(b'"big"'), node="n", agent="a", due_ns=5, delivery=2)
    instead = settle.unstorable(TASK, outcome, REFUSAL)
    for one in instead:
        assert (one.state, one.error, bytes(one.output), one.due_ns) == ("failed", REFUSAL, b"null", 0)
        assert (one.node, one.agent, one.delivery) == ("n", "a", 2)
        assert records.decode_task(bytes(one.task)).run == TASK.run
    assert bytes(instead[0].task) == records.encode(TASK)
    sizes = [len(records.encode(one)) for one in instead]
    assert sizes[0] >= sizes[1]
    least = records.decode_task(bytes(instead[-1].task))
    assert (bytes(least.input), least.past, least.labels) == (b"null", (), {})
    assert "left out" in least.why


@pytest.mark.parametrize("state", ["cancelled", "timed-out"])
def test_an_end_from_outside_stays_what_it_is(state: Ended):
    error = {"kind": "cancelled", "code": "work.cancelled", "message": "by you"}
    for one in settle.unstorable(TASK, Outcome(state, records.raw(TASK), error=error), REFUSAL):
        assert (one.state, one.error) == (state, error)
