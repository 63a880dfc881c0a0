"""Work that nobody can do starts an agent, which registers, does it, and is stopped when it idles: real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import marked, until

from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import Denied, Unreachable
from knotwork.trust.keys import generate

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


SLOW = """
[web]
enabled = false
[executors.shout]
type = "process"
command = ["sh", "-c", "sleep 4; tr a-z A-Z"]
"""
"""Its tasks take longer than `idle_s`, and its beats are rarer."""
UNTIL_TOLD = """
[web]
enabled = false
[executors.shout]
type = "process"
concurrency = 1
command = ["sh", "-c", "until test -e {folder}/go; do sleep 0.1; done; tr a-z A-Z"]
"""
HANGS_ONCE = """
[web]
enabled = false
[mesh]
heartbeat_s = 1.0
[executors.shout]
type = "process"
command = ["sh", "-c", "if mkdir {folder}/first; then sleep 600; fi; tr a-z A-Z"]
"""
COSTLY = """
[mesh]
heartbeat_s = 1.0
[work]
lease_s = 2.0
"""


def started(nodes: Any, more: str = "", agent: str = AGENT, head: str = "") -> Any:
    node = nodes.node()
    (node.folder / "agent.toml").write_text(agent.replace("{folder}", str(node.folder)))
    node.write(head + TARGET.format(program=json.dumps(sys.executable), folder=node.folder, more=more))
    return node.up()


def launches(node: Any, **fields: Any) -> list[dict[str, Any]]:
    return list(node.ask("targets.launches", **fields)["launches"])


def test_a_task_that_nobody_can_do_starts_an_agent_that_is_stopped_when_it_idles(nodes):
    node = started(nodes, agent=SLOW)
    (target,) = node.ask("targets.list")["targets"]
    assert (target["target"], target["type"]) == ("here", "local")
    task = node.ask("task.submit", capability="shout", input="hello")
    done = node.call("task.await", id=task["id"], timeout_s=120.0).json
    assert done["state"] == "completed"
    (launch,) = launches(node, all=True)
    assert launch["agent"] == f"here-{launch['id']}"
    assert (launch["by"], launch["task"]) == ("demand", task["id"])
    told = [one["what"] for one in node.ask("task.history", id=task["id"])["transitions"]]
    assert told == ["submitted", "started", "completed"], "it was not stopped while it worked"
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
    assert "before its agent registered" in node.ask("targets.show", target="here")["why"]


def test_a_target_that_is_not_well_fails_its_test(nodes):
    node = nodes.node('[targets.sick]\ntype = "local"\ncommand = ["/no/such"]\n').up()
    code, out, _ = node.run("targets", "test", "sick", "-o", "json")
    assert (code, json.loads(out)["health"]) == (1, "unhealthy")


def test_targets_are_tested_and_switched_and_launches_ended_by_hand(nodes):
    node = started(nodes)
    assert node.ask("targets.test", target="here")["health"] == "healthy"
    assert node.ask("targets.disable", targets=["here"])["changed"][0]["state"] == "disabled"
    assert node.call("targets.spin_up", target="here").status == 409
    assert node.ask("targets.disable", targets=["here"])["already"] == [f"{node.ask('node.status')['node']}/here"]
    node.ask("targets.enable", targets=["here"])
    refused = node.call("targets.spin_up", target="here", capability="whisper")
    assert (refused.status, refused.json["code"]) == (409, "spinup.unfit")
    refused = node.call("targets.spin_up", target="here", boundary="nonsense")
    assert (refused.status, refused.json["code"]) == (422, "policy.unknown_boundary")
    assert launches(node, all=True) == []
    launch = node.ask("targets.spin_up", target="here", capability="shout")
    until(lambda: launches(node) and launches(node)[0]["state"] in ("up", "idle"), 60.0)
    assert node.call("targets.stop", id=launch["id"], timeout_s=60.0).json["state"] == "stopped"
    assert node.call("targets.stop", id="unknown").status == 404
    assert node.call("targets.show", target="nowhere").status == 404
    left = node.ask("targets.spin_up", target="here", capability="shout")
    node.write("[executors]\n")
    node.ask("node.reload")
    over = until(lambda: next((one for one in launches(node, all=True) if _is_over(one, left)), None), 60.0)
    assert (over["state"], over["why"]) == ("stopped", "its target is not configured any more")
    assert until(lambda: not node.ask("targets.list")["targets"], 30.0)


def _is_over(one: dict[str, Any], launch: dict[str, Any]) -> bool:
    return one["id"] == launch["id"] and one["state"] in ("stopped", "failed")


def test_a_task_whose_worker_vanished_starts_another_agent(nodes):
    node = started(nodes, agent=HANGS_ONCE, head=COSTLY)
    task = node.ask("task.submit", capability="shout", input="hello")
    until(lambda: node.ask("task.get", id=task["id"])["state"] == "running", 60.0)
    (first,) = launches(node)
    for pid, command in marked(node.mark).items():  # all of it, the agent's child included
        if str(node.folder / "launched") in command or "sleep 600" in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    done = node.call("task.await", id=task["id"], timeout_s=120.0).json
    assert (done["state"], done["output"]) == ("completed", "HELLO")
    assert [one["id"] for one in launches(node, all=True)][-1] == first["id"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("agent", ["still starting", "up"])
def test_what_a_node_started_and_took_with_it_is_started_anew_at_once(nodes, number, agent):
    """Nothing waits for its target to cool down, nor for an agent that looks online for minutes after it died."""
    node = nodes.node()
    (node.folder / "agent.toml").write_text(AGENT.replace("heartbeat_s = 1.0", "heartbeat_s = 600.0"))
    up = f"{shlex.quote(sys.executable)} -m knotwork up --config agent.toml --data-dir launched"
    once = "mkdir first && sleep 600;" if agent == "still starting" else ""
    node.write(f"""[targets.here]
type = "local"
shell = true
command = {json.dumps(f"{once} exec {up}")}
capabilities = ["shout"]
cooldown_s = 600.0
""")
    node.up()
    task = node.ask("task.submit", capability="shout", input="hello")
    if agent == "up":
        assert node.call("task.await", id=task["id"], timeout_s=120.0).json["state"] == "completed"
        states = {"up", "idle"}
    else:
        until((node.folder / "first").exists, 60.0)
        states = {"starting"}
    (before,) = until(lambda: [one for one in launches(node) if one["state"] in states], 60.0)
    node.signal(number)
    node.ended()
    node.up()
    if agent == "up":
        task = node.ask("task.submit", capability="shout", input="again")
    assert node.call("task.await", id=task["id"], timeout_s=120.0).json["state"] == "completed"
    (over,) = [one for one in launches(node, all=True) if one["id"] == before["id"]]
    why = "its node stops" if number == signal.SIGTERM else "while the node was away"
    assert (over["state"], why in over["why"]) == ("stopped", True)
    assert node.ask("targets.show", target="here")["failures"] == 0


def test_what_a_launched_agent_works_on_is_handed_back_before_its_node_stops(nodes):
    """Else each stop of the node would count as a crash of the task's worker: three of them, and it is dead."""
    node = started(nodes, agent=HANGS_ONCE, more="max_concurrent = 2")
    task = node.ask("task.submit", capability="shout", input="hello", max_crashes=1)
    until(lambda: node.ask("task.get", id=task["id"])["state"] == "running", 60.0)
    until((node.folder / "first").exists, 60.0)
    node.signal(signal.SIGTERM)
    node.ended(120.0)
    node.up()
    assert node.call("task.await", id=task["id"], timeout_s=120.0).json["state"] == "completed"
    told = [one["what"] for one in node.ask("task.history", id=task["id"])["transitions"]]
    assert told == ["submitted", "started", "released", "started", "completed"]


def test_a_project_that_is_removed_takes_along_what_was_started_for_it(nodes):
    node = nodes.node()
    (node.folder / "agent.toml").write_text(AGENT)
    more = 'projects = ["main", "lab"]'
    text = TARGET.format(program=json.dumps(sys.executable), folder=node.folder, more=more).replace("idle_s = 1.0", "")
    node.write(f"[projects.main]\n[projects.lab]\n{text}")
    node.up()
    task = node.call("task.submit", project="lab", capability="shout", input="hello").json
    assert node.call("task.await", project="lab", id=task["id"], timeout_s=120.0).json["state"] == "completed"
    assert _launched(node)
    node.write("[projects.main]\n" + text.replace(', "lab"', ""))
    node.ask("node.reload")
    until(lambda: not _launched(node), 60.0)
    node.write(f"[projects.main]\n[projects.lab]\n{text}")
    node.ask("node.reload")

    def over() -> list[dict[str, Any]]:
        told = node.call("targets.launches", project="lab", all=True).json["launches"]
        return [one for one in told if one["state"] in ("stopped", "failed")]

    (launch,) = until(over, 60.0)
    assert (launch["state"], "not configured any more" in launch["why"]) == ("stopped", True)


def _launched(node: Any) -> list[str]:
    return [one for one in marked(node.mark).values() if str(node.folder / "launched") in one]


def test_work_that_waits_for_busy_agents_starts_more_of_them_until_it_flows(nodes):
    """Agents that are told no folder have each one of their own, and remove it."""
    node = nodes.node()
    (node.folder / "agent.toml").write_text(UNTIL_TOLD.format(folder=node.folder))
    (node.folder / "mine").mkdir()
    target = TARGET.format(
        program=json.dumps(sys.executable), folder=node.folder,
        more='max_concurrent = 2\nwait_s = 2.0\nenv = { XDG_DATA_HOME = "%s" }' % (node.folder / "mine"),
    )  # fmt: skip
    node.write(COSTLY + target.replace(f', "--data-dir", "{node.folder}/launched"', ""))
    node.up()
    tasks = [node.ask("task.submit", capability="shout", input=f"work {number}")["id"] for number in range(8)]
    working = {"capability": "shout", "state": ["running"]}
    until(lambda: len({one["worker"] for one in node.ask("task.list", **working)["tasks"]}) == 2, 120.0)
    (node.folder / "go").touch()
    for number, run in enumerate(tasks):
        done = node.call("task.await", id=run, timeout_s=120.0).json
        assert (done["state"], done["output"]) == ("completed", f"WORK {number}")
    both = launches(node, all=True)
    assert {one["by"] for one in both} == {"demand"}
    first, second, *others = sorted(both, key=lambda one: one["created_at"])
    assert second["created_at"] > first["registered_at"], "one by one"
    for at, later in enumerate(others, 2):  # where one stood idle before all was done
        beside = [one for one in (first, second, *others)[:at] if not "" < one["ended_at"] <= later["created_at"]]
        assert len(beside) < 2, "no more than may run at once"
    until(lambda: {one["state"] for one in launches(node, all=True)} == {"stopped"}, 60.0)
    assert list((node.folder / "mine" / "knotwork" / "launches").iterdir()) == []


def may_connect(url: str, seed: str) -> bool:
    """Return whether the server lets somebody in."""

    async def connect() -> str:
        try:
            async with open_connection(Endpoint((url,), seed=seed)):
                return "yes"
        except Denied:
            return "no"
        except Unreachable:  # it was changing its users just then: that says nothing, and is tried again
            return ""

    return until(lambda: asyncio.run(connect())) == "yes"


def test_a_launched_agent_has_a_key_of_its_own_that_ends_with_the_launch(nodes):
    node = nodes.node()
    (node.folder / "agent.toml").write_text(AGENT)
    target = TARGET.replace("idle_s = 1.0", "idle_s = 600.0")
    node.write(target.format(program=json.dumps(sys.executable), folder=node.folder, more="detached = true"))
    node.up()
    launch = node.ask("targets.spin_up", target="here", capability="shout")["id"]

    def is_up() -> bool:
        return [(one["id"], one["state"] in ("up", "idle")) for one in launches(node)] == [(launch, True)]

    until(is_up, 60.0)
    file = node.data / "keys" / f"launch-default-{launch}.nk"
    seed = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = [
        Path(f"/proc/{pid}/environ").read_bytes() for pid, line in marked(node.mark).items() if "agent.toml" in line
    ]
    assert told
    assert all(f"KNOTWORK_SEED={seed}".encode() in one for one in told)
    assert (node.data / "keys" / "node-default.nk").read_text().strip() != seed
    assert may_connect(node.about["url"], seed)

    stray = node.data / "keys" / "launch-default-0123456789abcdef.nk"  # of a launch whose end nobody saw
    stray.write_text(generate().seed)
    stray.chmod(0o600)
    node.signal(signal.SIGKILL)
    node.ended()
    node.up()
    until(lambda: is_up() and node.call("agents.invoke", target="shout", input="again").status == 200, 60.0)
    until(lambda: not stray.exists(), 60.0)
    assert file.exists()
    assert node.ask("targets.stop", id=launch)["state"] == "stopped"
    until(lambda: not file.exists() and not may_connect(node.about["url"], seed), 60.0)
    assert [one["state"] for one in node.ask("nodes.list")["nodes"] if one["here"]] == ["online"]


def test_a_target_of_another_node_is_asked_there_and_blocks_nothing_when_that_node_is_gone(nodes):
    node = started(nodes, more="cost = 5.0", head=COSTLY)
    other = nodes.node(
        f"""[node]
name = "other"
[mesh]
heartbeat_s = 3.0
[nats]
mode = "join"
urls = ["{node.about["url"]}"]
nkey_seed = {{ file = "{node.data / "keys" / "node-default.nk"}" }}
[targets.there]
type = "local"
command = ["sleep", "600"]
register_s = 6.0
grace_s = 1.0
""",
        "other",
    ).up()
    until(lambda: len(node.ask("targets.list")["targets"]) == 2, 60.0)
    assert node.ask("targets.test", target="there")["health"] == "healthy"
    launch = node.ask("targets.spin_up", target="there", capability="sing")
    assert (launch["node"], node.ask("targets.stop", id=launch["id"])["state"]) == ("other", "stopped")
    until(lambda: [one["state"] for one in launches(node, all=True)] == ["stopped"], 60.0)  # else it counts as taken
    task = node.ask("task.submit", capability="shout", input="hello")
    until(lambda: len(launches(node, all=True)) > 1, 60.0)
    first = min((one for one in launches(node, all=True) if one["by"] == "demand"), key=lambda one: one["created_at"])
    assert first["target"] == "there"
    other.process.kill()
    other.ended()
    done = node.call("task.await", id=task["id"], timeout_s=120.0).json
    assert done["state"] == "completed"
    assert {one["target"] for one in launches(node, all=True)} == {"there", "here"}
    lost = node.ask("task.submit", capability="dance", input="x")
    refused = "node other is not online"
    told = until(
        lambda: next((why for why in [node.ask("task.why", id=lost["id"])["why"]] if refused in why), ""), 60.0
    )
    assert "it starts agents for shout" in told


def test_a_launch_that_is_stopped_gives_back_what_it_cannot_finish(nodes):
    node = started(nodes, agent=HANGS_ONCE, more="max_concurrent = 2")
    task = node.ask("task.submit", capability="shout", input="hello")
    until(lambda: node.ask("task.get", id=task["id"])["state"] == "running", 60.0)
    (launch,) = until(lambda: [one for one in launches(node) if one["state"] in ("up", "idle")], 60.0)
    assert node.call("targets.stop", id=launch["id"], timeout_s=60.0).json["state"] == "stopped"
    assert node.call("task.await", id=task["id"], timeout_s=120.0).json["state"] == "completed"
    told = [one["what"] for one in node.ask("task.history", id=task["id"])["transitions"]]
    assert told == ["submitted", "started", "released", "started", "completed"]
