"""Three whole nodes with workflows of many kinds in flight: each of them is killed, and NATS, and every run ends as it must."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from tests.e2e.conftest import Node, until

AGENTS = """
[executors.{name}]
type = "process"
command = ["cat"]
capabilities = ["do"]
concurrency = 4
"""
HUB = '[node]\nname = "hub"\n[mesh]\nheartbeat_s = 0.5\n'
JOINED = """
[node]
name = "{name}"
[nats]
mode = "join"
urls = ["{url}"]
nkey_seed = {{file = "{seed}"}}
[mesh]
heartbeat_s = 0.5
"""
DO = {"capability": "do", "retry": {"max_attempts": 20, "delay": "100ms"}}
WORKFLOWS: dict[str, dict[str, Any]] = {
    "chain": {"steps": {f"s{n}": {**DO, "depends_on": [f"s{n - 1}"] if n else []} for n in range(4)}},
    "fan": {
        "steps": {
            "a": DO,
            **{f"f{n}": {**DO, "depends_on": ["a"]} for n in range(4)},
            "z": {"kind": "join", "depends_on": [f"f{n}" for n in range(4)]},
        },
        "output": "steps.z.output.f3",
    },
    "map": {"steps": {"m": {**DO, "kind": "map", "items": "[input, input]"}}, "output": "steps.m.output[1]"},
    "nap": {"steps": {"n": {"kind": "sleep", "duration": "2s"}, "s": {**DO, "depends_on": ["n"], "input": "input"}}},
    "child": {"steps": {"c": {"kind": "workflow", "workflow": "chain"}, "s": {**DO, "depends_on": ["c"]}}},
    "wait": {"steps": {"w": {"kind": "wait_for_signal", "signal": "go"}, "s": {**DO, "depends_on": ["w"], "input": "input"}}},
}  # fmt: skip
EACH = 5
pytestmark = pytest.mark.timeout(300)


def again(node: Node) -> None:
    """Kill a node as a crash does, and start it again."""
    assert node.process is not None
    node.process.kill()
    node.ended()
    node.up()


def test_every_run_ends_whoever_is_killed(nodes):
    hub = nodes.node(HUB + AGENTS.format(name="cat-hub"), "hub").up()
    joined = [nodes.node(name=name) for name in ("far", "away")]
    for node, name in zip(joined, ("far", "away"), strict=True):
        settings = JOINED.format(name=name, url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk")
        node.write(settings + AGENTS.format(name=f"cat-{name}"))
        node.up()
    for name, definition in WORKFLOWS.items():
        hub.ask("workflow.register", definition={"name": name, **definition})
    everywhere = [hub, *joined]
    runs: dict[str, str] = {}
    for number in range(EACH):
        for place, name in enumerate(WORKFLOWS):
            node = everywhere[(number + place) % 3]
            runs[node.ask("run.start", workflow=name, input=f"{name} {number}")["id"]] = f"{name} {number}"
    again(joined[0])
    server = hub.status()["bus"]["server_pid"]
    os.kill(server, signal.SIGKILL)
    until(lambda: hub.status()["bus"]["server_pid"] not in (None, server))
    again(joined[1])
    again(hub)
    until(lambda: all(node.get("/readyz").status == 200 for node in everywhere))
    for run, value in runs.items():
        if value.startswith("wait"):
            joined[0].ask("run.signal", id=run, signal="go")
    for place, (run, value) in enumerate(runs.items()):
        told = everywhere[place % 3].ask("run.await", id=run, timeout_s=120)
        assert (told["state"], told["output"]) == ("completed", value), told
        assert everywhere[place % 3].ask("run.replay", id=run)["same"] is True


UNSORTED = {
    "pay": {"capability": "do", "compensate": "refund"},
    "ship": {"capability": "break", "depends_on": ["pay"], "on_failure": "mend"},
    "wait": {"kind": "wait_for_signal", "signal": "go", "depends_on": ["ship"]},
    "last": {"capability": "break", "depends_on": ["wait"]},
    "mend": {"capability": "do"},
    "refund": {"capability": "do"},
}
BREAK = '[executors.breaker]\ntype = "process"\ncommand = ["false"]\ncapabilities = ["break"]\n'


def test_a_handler_runs_once_whatever_its_steps_are_called(nodes):
    hub = nodes.node(HUB + AGENTS.format(name="cat-hub") + BREAK, "hub").up()
    hub.ask("workflow.register", definition={"name": "order", "steps": UNSORTED})
    run = hub.ask("run.start", workflow="order", input=1)["id"]
    until(lambda: any(one["step"] == "wait" for one in hub.ask("run.why", id=run)["waits"]))
    again(hub)
    until(lambda: any(one["step"] == "wait" for one in hub.ask("run.why", id=run)["waits"]))
    hub.ask("run.signal", id=run, signal="go")
    told = hub.ask("run.await", id=run, timeout_s=60)
    assert told["state"] == "failed", told
    facts = [(one["what"], one["step"]) for one in hub.ask("run.events", id=run)["events"]]
    for handler in ("mend", "refund"):
        assert len([step for what, step in facts if what == "outcome" and step.startswith(handler)]) == 1, facts
    assert hub.ask("run.replay", id=run)["same"] is True


POLL = {"kind": "http", "id": "poll", "path": "poll", "workflow": "chain", "unsigned": True}
READS = (
    ("run.list", {}), ("run.show", {"id": "w0198c0ffee0012345678ab"}), ("workflow.list", {}),
    ("workflow.show", {"name": "chain"}), ("trigger.list", {}), ("trigger.show", {"id": "poll"}),
    ("run.start", {"workflow": "chain"}),
)  # fmt: skip


def test_what_only_the_store_can_tell_says_at_once_that_it_is_away(nodes):
    hub = nodes.node(HUB + AGENTS.format(name="cat-hub"), "hub").up()
    node = nodes.node(name="far")
    node.write(JOINED.format(name="far", url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk"))
    node.up()
    hub.ask("workflow.register", definition={"name": "chain", **WORKFLOWS["chain"]})
    node.ask("trigger.create", **POLL)
    until(lambda: node.http("POST", "/run/poll", body=b'"now"').status == 200)
    address = hub.about["url"].rpartition(":")[2]
    assert hub.stop() == 0
    until(lambda: node.call("run.start", workflow="chain").status == 503)
    for op, request in READS:
        told = node.call(op, **request)
        assert (told.status, told.json["code"]) == (503, "bus.disconnected"), (op, told.body)
        assert address in told.json["detail"], told.body  # which NATS it is
    for method, path in (("POST", "/run/poll"), ("GET", "/approve/none")):
        told = node.http(method, path)
        assert (told.status, told.json["code"]) == (503, "bus.disconnected"), told.body
