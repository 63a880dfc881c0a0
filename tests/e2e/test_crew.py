"""An orchestration on two real nodes: sub-agents at both, one node killed with a part in its hands, results collected."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
from tests.e2e.conftest import until

HUB = """
[node]
name = "hub"
[executors.writer]
type = "process"
command = ["tr", "a-z", "A-Z"]
capabilities = ["shouting"]
[executors.clumsy]
type = "process"
command = ["false"]
capabilities = ["failing"]
"""
FAR = """
[node]
name = "far"
[nats]
mode = "join"
urls = ["{url}"]
nkey_seed = {{file = "{seed}"}}
"""
TASK = "Build a shop: database schema, REST API, web UI and tests"


@pytest.fixture
def pair(nodes):
    hub = nodes.node(HUB, "hub").up()
    far = nodes.node("", "far")
    far.write(FAR.format(url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk"))
    return hub, far.up()


def claim(node, worker, lease_s=60, wait_s=30):
    answer = node.ask("work.claim", worker=worker, capabilities=["general"], wait_s=wait_s, lease_s=lease_s)
    (found,) = answer["tasks"]
    return found


def state(node, name):
    return node.ask("crew.state", id=name)


def phase(node, name, wanted):
    return until(lambda: found if (found := state(node, name))["phase"] == wanted else None, what=f"not {wanted}")


def test_four_sub_agents_on_two_nodes_one_of_which_is_killed(pair):
    hub, far = pair
    made = hub.ask("crew.assess", task=TASK, capability="general", capabilities=[])
    assert made["order"] == "[database-schema+rest-api] → [web-ui+tests]"
    name = made["id"]
    spawned = far.ask("crew.spawn", id=name, synthesis="merge", tokens=10_000)
    assert (spawned["phase"], spawned["node"]) == ("execution", "far")
    one, two = claim(hub, "one"), claim(far, "two", lease_s=15)
    lost = two["labels"]["part"]
    told = far.ask("crew.checkpoint", id=name, part=lost, percent=50, text="half", tokens=100)
    assert (told["go_on"], told["state"]) == (True, "running")
    seen = {part["id"]: (part["state"], part["agent"], part["node"]) for part in state(hub, name)["parts"]}
    assert seen[lost] == ("running", "two", "far")
    os.kill(far.pid, signal.SIGKILL)
    assert hub.ask("work.complete", claim=one["claim"], output={"one": 1})["state"] == "completed"
    again = claim(hub, "three", wait_s=60)
    assert (again["labels"]["part"], again["id"]) == (lost, two["id"])
    hub.ask("work.complete", claim=again["claim"], output={"three": 3, "usage": {"tokens": 50}})
    for worker in ("four", "five"):
        found = claim(hub, worker)
        assert found["input"]["input"]["results"] == {
            one["labels"]["part"]: {"one": 1}, lost: {"three": 3, "usage": {"tokens": 50}},
        }  # fmt: skip
        hub.ask("work.complete", claim=found["claim"], output={worker: 1})
    done = phase(hub, name, "complete")
    assert done["used"]["tokens"] == 150
    results = hub.ask("crew.results", id=name)
    assert results["complete"]
    assert {part["agent"] for part in results["parts"]} == {"one", "three", "four", "five"}
    whole = results["result"]["output"]
    assert {key: whole[key] for key in ("one", "three", "four", "five")} == {"one": 1, "three": 3, "four": 1, "five": 1}
    far.process.wait()
    far.up()
    assert state(far, name)["phase"] == "complete"
    folder = far.data / "crew" / name
    until((folder / "state.json").exists, what="not mirrored")
    assert json.loads((folder / lost / "result.json").read_text())["three"] == 3


def test_all_of_it_at_the_shell(nodes):
    hub = nodes.node(HUB, "hub").up()
    plan = hub.json("crew", "assess", "1. say hello\n2. say bye (after 1)", "--capability", "shouting")
    name = plan["id"]
    seen: list[str] = []
    watcher = threading.Thread(
        target=lambda: seen.append(hub.run("crew", "watch", name, "-o", "jsonl")[1]), daemon=True
    )
    watcher.start()
    assert hub.json("crew", "plan", name)["order"] == "[say-hello] → [say-bye]"
    other = hub.json("crew", "assess", TASK)
    assert any("order" in note for note in other["notes"])  # of a plan that stands no more
    edited = hub.json(
        "crew", "plan", other["id"], '[{"id": "x", "capability": "no-such"}, {"id": "y", "agent": "writer"}]'
    )
    assert edited["notes"] == ["Nobody has no-such now: such parts wait until somebody does, or change the plan."]
    hub.json("crew", "cancel", other["id"])
    code, problem = hub.refused("crew", "plan", name, '[{"id": "x", "capability": "y", "needs": ["z"]}]')
    assert (code, problem["code"]) == (2, "crew.bad_plan")
    assert hub.refused("crew", "results", "o000000000")[1]["code"] == "crew.not_found"
    assert hub.json("crew", "spawn", name)["new"] is True
    done = phase(hub, name, "complete")
    assert [part["agent"] for part in done["parts"]] == ["writer", "writer"]
    code, out, _ = hub.run("crew", "synthesize", name)
    assert code == 0
    assert "SAY HELLO" in out
    failing = hub.json("crew", "synthesize", name, "agent", "--capability", "failing", "--wait", "60")
    assert (failing["phase"], failing["ready"], "synthesis: " in failing["why"]) == ("failed", False, True)
    assert "SAY HELLO" in hub.json("crew", "results", name)["result"]["output"]  # what it came to before stands
    assert hub.run("crew", "synthesize", name)[0] == 0
    assert name in [row["id"] for row in hub.json("crews", "--phase", "complete")["orchestrations"]]
    hub.json("crew", "retry", name, "say-bye")
    phase(hub, name, "complete")
    watcher.join(60)
    events = [json.loads(line) for line in seen[0].splitlines()]
    assert any("complete" in json.dumps(event) for event in events)
    assert hub.refused("crew", "cancel", name)[1]["code"] == "crew.over"


def test_people_are_told_the_id_the_phase_and_what_was_used(nodes):
    hub = nodes.node(HUB, "hub").up()
    out = hub.run("crew", "assess", "1. say hello\n2. say bye (after 1)", "--capability", "shouting")[1]
    told = dict(line.split(maxsplit=1) for line in out.split("\n\n")[1].splitlines())
    name = told["id"]
    assert told["order"] == "[say-hello] → [say-bye]"
    assert f"id     {name}\nphase  " in hub.run("crew", "spawn", name)[1]
    phase(hub, name, "complete")
    code, out, moves = hub.run("crew", "watch", name)
    assert (code, f"id     {name}\nphase  complete" in out) == (0, True)
    assert {"complete  100 %", "say-bye  completed  writer  hub"} <= set(moves.splitlines())
    out = hub.run("crew", "state", name)[1]
    assert all(f"\n{word}" in out for word in ("phase ", "percent ", "budget\n", "used\n", "synthesis "))
    out = hub.run("memory", "stats")[1]
    assert all(f"\n{word}" in out for word in ("core max ", "stores\n", "folders "))


def test_it_is_held_goes_on_and_is_stopped_over_http(nodes):
    hub = nodes.node(HUB, "hub").up()
    parts = [{"id": "a", "capability": "general"}, {"id": "b", "capability": "general", "needs": ["a"]}]
    name = hub.ask("crew.assess", task="two things")["id"]
    assert hub.ask("crew.spawn", id=name, parts=parts, tokens=10)["order"] == "[a] → [b]"
    found = claim(hub, "one")
    told = hub.ask("crew.checkpoint", id=name, part="a", tokens=12)
    assert (told["go_on"], "12 of 10 tokens" in told["why"]) == (False, True)
    hub.ask("work.complete", claim=found["claim"], output="A")
    held = until(lambda: one if (one := state(hub, name))["parts"][0]["state"] == "completed" else None)
    assert (held["held"], held["parts"][1]["state"]) == ("budget", "waiting")
    answer = hub.call("crew.resume", id=name)
    assert (answer.status, answer.json["code"]) == (409, "crew.budget_spent")
    assert hub.ask("crew.resume", id=name, tokens=100)["held"] == ""
    assert claim(hub, "two")["labels"]["part"] == "b"
    (run,) = state(hub, name)["runs"]
    hub.ask("run.pause", ids=[run])  # beneath it
    assert run in state(hub, name)["why"]
    assert hub.ask("crew.resume", id=name)["why"] == ""
    assert hub.ask("crew.pause", id=name)["held"] == "asked"
    assert [row["id"] for row in hub.ask("crew.list", phase=["execution"])["orchestrations"]] == [name]
    assert hub.ask("crew.cancel", id=name, why="enough")["why"] == "enough"
    phase(hub, name, "cancelled")
    assert hub.ask("crew.results", id=name, part="a")["parts"][0]["output"] == "A"
    assert hub.call("crew.retry", id=name, part="b").json["code"] == "crew.over"
    answer = hub.call("run.retry", ids=[run])  # nobody would know of what that does
    assert (answer.status, answer.json["code"], name in answer.json["detail"]) == (409, "crew.run", True)


def test_what_cannot_begin_is_refused_and_what_waits_says_for_whom(nodes):
    hub = nodes.node(HUB, "hub").up()
    parts = [{"id": "a", "capability": "shouting"}, {"id": "b", "capability": "unheard-of", "needs": ["a"]}]
    name = hub.ask("crew.assess", task="two things")["id"]
    answer = hub.call("crew.spawn", id=name, parts=parts, boundary="nonsense")
    assert (answer.status, answer.json["code"]) == (422, "policy.unknown_boundary")
    assert hub.ask("crew.spawn", id=name, parts=parts)["new"]
    why = until(lambda: state(hub, name)["why"], what="nobody said why it waits")
    assert why == "Nobody has unheard-of now: b waits until somebody does."
    hub.ask("crew.cancel", id=name)
    phase(hub, name, "cancelled")
    assert hub.run("crew", "watch", name)[0] == 1


SLOW = """
[executors.slow]
type = "process"
command = ["sleep", "600"]
capabilities = ["slowly"]
"""


def test_of_what_is_paused_nobody_is_said_to_be_at_it_who_was_killed(nodes):
    hub = nodes.node(HUB + SLOW, "hub").up()
    name = hub.ask("crew.assess", task="wait", capability="slowly")["id"]
    hub.ask("crew.spawn", id=name)
    until(lambda: state(hub, name)["parts"][0]["state"] == "running", what="it was not begun")
    hub.ask("crew.pause", id=name)
    os.kill(hub.pid, signal.SIGKILL)
    hub.up()
    until(lambda: state(hub, name)["parts"][0]["state"] == "queued", what="it is said to run still")
    hub.ask("crew.resume", id=name)
    until(lambda: state(hub, name)["parts"][0]["state"] == "running", what="it was not begun again")
    hub.ask("crew.cancel", id=name)
    phase(hub, name, "cancelled")
