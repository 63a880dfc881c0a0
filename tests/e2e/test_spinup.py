"""Work that nobody can do starts an agent, which registers, does it, and is stopped when it idles: real processes."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.e2e.conftest import until

AGENT = """
[web]
enabled = false
[mesh]
heartbeat_s = 1.0
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
"""
TARGET = """
[targets.here]
type = "local"
command = [{program}, "-m", "knotwork", "up", "--config", "{folder}/agent.toml", "--data-dir", "{folder}/launched"]
capabilities = ["shout"]
idle_s = 1.0
grace_s = 5.0
cooldown_s = 0.5
{more}
"""


def started(nodes: Any, more: str = "", agent: str = AGENT) -> Any:
    node = nodes.node()
    (node.folder / "agent.toml").write_text(agent)
    node.write(TARGET.format(program=json.dumps(sys.executable), folder=node.folder, more=more))
    return node.up()


def launches(node: Any, **fields: Any) -> list[dict[str, Any]]:
    return list(node.ask("targets.launches", **fields)["launches"])


def test_a_task_that_nobody_can_do_starts_an_agent_that_is_stopped_when_it_idles(nodes):
    node = started(nodes)
    (target,) = node.ask("targets.list")["targets"]
    assert (target["target"], target["type"]) == ("here", "local")
    task = node.ask("task.submit", capability="shout", input="hello")
    done = node.call("task.await", id=task["id"], timeout_s=120.0).json
    assert done["state"] == "completed"
    (launch,) = launches(node, all=True)
    assert launch["agent"] == f"here-{launch['id']}"
    assert launch["by"] == "demand"
    over = until(lambda: next((one for one in launches(node, all=True) if one["state"] == "stopped"), None), 60.0)
    assert over["why"].startswith("idle")
    assert until(lambda: node.ask("targets.show", target="here")["running"] == 0, 30.0)
    assert node.ask("targets.show", target="here")["failures"] == 0


def test_a_launch_without_an_agent_is_a_failure_with_its_reason(nodes):
    node = started(nodes, more="register_s = 60.0", agent="not toml at all [")
    launch = node.ask("targets.spin_up", target="here", capability="shout")
    failed = until(
        lambda: next(
            (one for one in launches(node, all=True) if one["id"] == launch["id"] and one["state"] == "failed"), None
        ),
        60.0,
    )
    assert "before its agent registered" in failed["why"]
    assert until(lambda: node.ask("targets.show", target="here")["failures"] == 1, 30.0)


def test_targets_are_tested_and_switched_and_launches_ended_by_hand(nodes):
    node = started(nodes)
    assert node.ask("targets.test", target="here")["health"] == "healthy"
    assert node.ask("targets.disable", targets=["here"])["changed"][0]["state"] == "disabled"
    assert node.call("targets.spin_up", target="here").status == 409
    assert node.ask("targets.disable", targets=["here"])["already"] == [f"{node.ask('node.status')['node']}/here"]
    node.ask("targets.enable", targets=["here"])
    launch = node.ask("targets.spin_up", target="here", capability="shout")
    until(lambda: launches(node) and launches(node)[0]["state"] in ("up", "idle"), 60.0)
    assert node.call("targets.stop", id=launch["id"], timeout_s=60.0).json["state"] == "stopped"
    assert node.call("targets.stop", id="unknown").status == 404
    assert node.call("targets.show", target="nowhere").status == 404
