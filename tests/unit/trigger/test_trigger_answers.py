"""What is told outside of a run that failed? How it failed, and not where in our folders."""

from __future__ import annotations

import json

from knotwork.trigger import answers


def test_a_failure_is_told_without_places_of_ours():
    error = {"code": "agent.exception", "message": "no", "detail": {"where": "/srv/agents/fn.py:4", "step": "c"}}
    answer = answers._failed(500, error, "w1")
    body = {"error": {"code": "agent.exception", "message": "no", "detail": {"step": "c"}}, "run": "w1"}
    assert (answer.status, json.loads(answer.body)) == (500, body)
    assert json.loads(answers._failed(503, {}, "w1").body)["error"]["message"] == "The run failed."
