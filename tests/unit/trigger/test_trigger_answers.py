"""What is told outside of a run that failed? How it failed, and not where in our folders."""

from __future__ import annotations

from knotwork.trigger import answers


def test_a_failure_is_told_without_places_of_ours():
    error = {"code": "agent.exception", "message": "no", "detail": {"where": "/srv/agents/fn.py:4", "step": "c"}}
    answer = answers._failed(500, error, "w1")
    assert (answer.status, answer.run, bytes(answer.body)) == (500, "w1", b"")
    assert answer.error is not None
    assert (answer.error.code, str(answer.error), answer.error.detail) == ("agent.exception", "no", {"step": "c"})
    untold = answers._failed(503, {}, "w1").error
    assert untold is not None
    assert str(untold) == "The run failed."
