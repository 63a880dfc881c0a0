"""Boundaries on real nodes: what may not be done here waits, and a saved configuration lets it go on."""

from __future__ import annotations

import json
import re
import signal

import pytest
from tests.e2e.conftest import until

pytestmark = pytest.mark.timeout(180)  # nodes are killed here, and must be missed

AGENT = '[executors.{name}]\ntype = "{type}"\ncapabilities = ["do"]\n{more}\n'
SAY = 'command = ["sh", "-c", "cat; echo {name}"]'


def agent(name: str, more: str = "") -> str:
    return AGENT.format(name=name, type="process", more=f"{SAY.format(name=name)}\n{more}")


def ended(node, run):
    return node.ask("task.await", id=run, timeout_s=55)


def submit(node, **fields):
    return node.ask("task.submit", capability="do", **fields)


def state(node, run):
    return node.ask("task.get", id=run)["state"]


def explained(node, **fields):
    return node.ask("agents.why", capability="do", **fields)


def test_a_boundary_is_given_and_taken_by_saving_the_file(nodes):
    node = nodes.node(agent("plain")).up()
    waiting = submit(node, input="x", boundary="corporate")
    assert "do" in waiting["note"]
    done = submit(node, input="y")
    assert ended(node, done["id"])["state"] == "completed"
    assert state(node, waiting["id"]) == "pending"
    why = node.ask("task.why", id=waiting["id"])
    assert "corporate work is only for copilot" in json.dumps(why)
    last = node.status()["last_reload"]
    node.write(agent("plain") + '[boundaries.corporate]\nallow = ["plain"]\n')
    verdict = node.verdict(last)
    assert (verdict["result"], verdict["live"]) == ("applied", ["boundaries.corporate"])
    assert ended(node, waiting["id"])["state"] == "completed"
    node.write(agent("plain", 'boundaries = ["open-source"]') + '[boundaries.corporate]\nallow = ["plain"]\n')
    assert node.verdict(verdict)["changed"] == ["executors.plain"]
    again = submit(node, input="x", boundary="corporate")
    assert ended(node, submit(node, input="y", boundary="open-source")["id"])["state"] == "completed"
    assert state(node, again["id"]) == "pending"
    verdict = node.status()["last_reload"]
    node.write(agent("plain") + '[boundaries.corporate]\nallow = ["plain"]\n')
    node.verdict(verdict)
    assert ended(node, again["id"])["state"] == "completed"


@pytest.fixture(scope="module")
def lab(shared_nodes):
    rules = '[boundaries.lab]\npaths = ["/srv/lab"]\nlabels = ["team=l*"]\nprefer = ["second"]\nforbid = ["third"]\n'
    return shared_nodes.node(agent("first") + agent("second") + agent("third") + rules, "lab").up()


def test_calls_follow_the_policy_and_say_why_not(lab):
    node = lab
    for how in ({"input": "x", "boundary": "lab"}, {"input": {"path": "/srv/lab/x"}}):
        # a place is given back a moment after the answer; until then the one who steps in is right
        until(lambda how=how: node.ask("agents.invoke", capability="do", **how)["agent"].endswith("/second"))
    refused = node.call("agents.invoke", target="third", input="x", boundary="lab")
    assert (refused.status, refused.json["code"]) == (503, "route.no_eligible_agent")
    assert "lab work is forbidden to third" in refused.json["detail"]
    refused = node.call("task.submit", target="third", input="x", boundary="lab")
    assert (refused.status, refused.json["code"]) == (403, "policy.forbidden")
    for op in ("agents.invoke", "task.submit"):
        refused = node.call(op, capability="do", input="x", boundary="lob")
        assert (refused.status, refused.json["code"]) == (422, "policy.unknown_boundary")
        assert "corporate, corporate-adjacent, lab, open-source, personal, none" in refused.json["detail"]


def test_runs_and_triggers_are_refused_a_boundary_that_is_none(lab):
    node = lab
    steps = {"a": {"kind": "task", "capability": "do"}, "b": {"kind": "task", "capability": "do", "boundary": "lob"}}
    kept = node.ask("workflow.register", definition={"name": "bounded", "steps": steps})
    assert [one.partition(";")[0] for one in kept["warnings"]] == ["steps.b: there is no boundary 'lob'"]
    steps["b"]["boundary"] = "lab"
    assert node.ask("workflow.register", definition={"name": "bounded", "steps": steps})["warnings"] == []
    daily = {"id": "bounded", "workflow": "bounded", "cron": "@daily"}
    for op, fields in (
        ("run.start", lambda name: {"workflow": "bounded", "boundary": name}),
        ("run.start", lambda name: {"workflow": "bounded", "in_s": 3600, "boundary": name}),
        ("trigger.create", lambda name: {"definition": daily | {"boundary": name}}),
    ):
        refused = node.call(op, **fields("lob"))
        assert (refused.status, refused.json["code"]) == (422, "policy.unknown_boundary"), refused.json
        assert node.call(op, **fields("lab")).status < 300
    assert (node.json("runs")["runs"][0]["workflow"], len(node.json("triggers")["triggers"])) == ("bounded", 2)


def test_a_choice_is_explained(lab):
    node, name = lab, lab.status()["name"]
    why = explained(node, boundary="lab")
    rows = {row["agent"].rpartition("/")[2]: row for row in why["candidates"]}
    assert [(key, rows[key]["place"], rows[key]["standing"]) for key in ("second", "first", "third")] == [
        ("second", 1, "preferred"), ("first", 2, "fallback"), ("third", 0, ""),
    ]  # fmt: skip
    assert rows["third"]["why"] == "lab work is forbidden to third"
    assert (why["router"], why["queue"]) == ("policy", "do")
    assert f"{name}/second is preferred for lab work" in why["reason"]
    assert explained(node)["router"] == "capability"
    found = explained(node, path="/srv/lab/x")
    assert (found["boundary"], found["boundary_why"]) == ("lab", "the path /srv/lab/x fits /srv/lab")
    assert explained(node, labels=["team=lab"])["boundary"] == "lab"
    nobody = explained(node, boundary="corporate")
    assert (nobody["router"], {row["why"] for row in nobody["candidates"]}) == (
        "",
        {"corporate work is only for copilot"},
    )
    code, out, err = node.run("route", "explain", "-c", "do", "--boundary", "lab")
    assert code == 0, err
    assert "lab work is forbidden to third" in out
    code, wire = node.refused("route", "explain", "-c", "do", "--boundary", "lob")
    assert (code, wire["code"]) == (2, "policy.unknown_boundary")
    task = submit(node, input={"path": "/srv/lab/x"})
    assert ended(node, task["id"])["worker"].endswith("/second")
    assert task["boundary"] == "lab"
    assert "the path /srv/lab/x fits /srv/lab" in json.dumps(node.ask("task.why", id=task["id"]))


BEATS = "[mesh]\nheartbeat_s = 0.5\nstale_beats = 8\noffline_beats = 10\n"
RULES = BEATS + '[boundaries.lab]\nprefer = ["better"]\nforbid = ["never"]\n'


def far(nodes, hub, name, text):
    """Return a node that joined the hub's NATS."""
    seed = hub.data / "keys" / "node-default.nk"
    join = f'[nats]\nmode = "join"\nurls = ["{hub.about["url"]}"]\nnkey_seed = {{ file = "{seed}" }}\n'
    return nodes.node(f'[node]\nname = "{name}"\n{join}{RULES}{text}', name).up()


def test_of_two_nodes_the_preferred_one_dies_and_the_other_steps_in(nodes):
    hub = nodes.node(f'[node]\nname = "hub"\n{RULES}', "hub").up()
    first = far(nodes, hub, "one", agent("better"))
    far(nodes, hub, "two", agent("stand-in") + agent("never"))
    until(lambda: len(hub.agents()) == 3)
    for _ in range(5):
        until(lambda: hub.ask("agents.show", target="one/better")["running"] == 0)  # told a moment after the answer
        done = ended(hub, submit(hub, input="x", boundary="lab")["id"])
        assert done["worker"] == "one/better"
    first.signal(signal.SIGKILL)
    first.ended()
    done = ended(hub, submit(hub, input="x", boundary="lab")["id"])
    assert done["worker"] == "two/stand-in"


def test_what_a_router_chose_moves_on_when_its_node_is_killed(nodes):
    hub = nodes.node(f'[node]\nname = "hub"\n[routing]\nrouters = ["round-robin"]\n{RULES}', "hub").up()
    hang = '[executors.slow]\ntype = "process"\ncapabilities = ["do"]\ncommand = ["sleep", "600"]\n'
    first = far(nodes, hub, "one", hang)
    until(lambda: hub.agents() == ["slow"])
    runs = [submit(hub, input="x") for _ in range(10)]
    until(lambda: hub.ask("task.stats")["taken"] == 1)
    far(nodes, hub, "two", agent("plain", "concurrency = 4"))
    assert {state(hub, run["id"]) for run in runs} <= {"pending", "running"}
    first.signal(signal.SIGKILL)
    first.ended()
    assert {ended(hub, run["id"])["worker"] for run in runs} == {"two/plain"}
    routed = hub.ask("task.why", id=runs[5]["id"])["routed"]
    assert "it is the turn of one/slow" in routed
    assert re.search(r"it was moved back to do: one is (gone|offline)", routed), routed


def test_sticky_work_stays_together(nodes):
    config = '[routing]\nrouters = ["sticky", "policy", "capability"]\n' + agent("a") + agent("b") + agent("c")
    node = nodes.node(config).up()
    chosen = {
        key: {node.ask("agents.invoke", capability="do", input="x", sticky=key)["agent"] for _ in range(3)}
        for key in ("k1", "k2", "k3", "k4", "k5", "k6")
    }
    assert {len(found) for found in chosen.values()} == {1}
    for key, (agent_name,) in chosen.items():
        task = submit(node, input="x", labels=[f"sticky={key}"])
        assert ended(node, task["id"])["worker"] == agent_name
        assert explained(node, sticky=key)["queue"] == agent_name.replace("/", "=")
