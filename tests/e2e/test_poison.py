"""A task that ends the process of a hosted agent again and again dies itself, before the agent is taken out of service."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import until

CONFIG = """
[executors.h]
type = "rehearsal"
hosted = true
script_from_input = true
allow_crash = true
"""
KILL = {"steps": [{"crash": "kill"}]}
WELL = {"steps": [{"done": "well"}]}


def submit(node, work, **fields) -> str:
    return node.ask("task.submit", target="h", input=work, **fields)["id"]


def task(node, run) -> dict:
    return node.ask("task.get", id=run)


@pytest.mark.timeout(240)
def test_a_poison_task_dies_before_its_agent_does(nodes):
    node = nodes.node(CONFIG).up()
    poison = submit(node, KILL, max_attempts=10, max_crashes=3, retry_delay_s=0.1)
    until(lambda: task(node, poison)["state"] == "dead")
    dead = node.ask("task.dead_list", code="work.poison")["dead"]
    assert [(one["id"], one["attempts"]) for one in dead] == [(poison, 3)]
    found = task(node, poison)
    assert [one["attempt"] for one in found["attempts"]] == [1, 2, 3]
    assert all(one["worker"] and one["started_at"] and one["ended_at"] for one in found["attempts"])
    assert found["error"]["code"] == "work.poison"
    assert node.slot("h")["state"] != "quarantined"
    innocent = submit(node, WELL)
    until(lambda: task(node, innocent)["state"] == "completed")

    submit(node, KILL, max_attempts=10, max_crashes=10, retry_delay_s=0.1)
    until(lambda: node.slot("h")["state"] == "quarantined")
    innocent = submit(node, WELL)
    why = node.ask("task.why", id=innocent)["why"]
    assert "its plugin is quarantined: 5 crashes in 600 s" in why
