"""Work is taken while the node runs and reaches NATS; a check that says so must not say yes without either."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from knotwork.host import node_rows
from knotwork.host.projects import Project


def project(state: str) -> Project:
    return Project("p", connection=SimpleNamespace(state=state))


@pytest.mark.parametrize(
    ("state", "projects", "why"),
    [
        ("running", [project("connected")], ""),
        ("running", [project("denied"), project("connected")], ""),
        ("running", [project("denied")], "no connection to NATS"),
        ("running", [project("reconnecting"), Project("q")], "no connection to NATS"),
        ("draining", [project("connected")], "draining"),
        ("draining", [project("denied")], "draining"),
        ("running", [], ""),
    ],
)
def test_work_is_taken_with_a_connection_and_while_running(state, projects, why):
    check = node_rows.taking_work(state, projects)
    assert (check.ok, check.why) == (not why, why)
