"""Triggers at the shell and over HTTP, on a real node: kept, tried, fired, signed, and taken up again after a kill."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal

import pytest
from tests.e2e.conftest import until

from knotwork.sockets import scaffold

CONFIG = """
[node]
name = "hub"
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
concurrency = 4
[triggers.lines]
type = "./lines.py"
hosted = true
"""
TRIGGER = """
id = "hook"
workflow = "one"
kind = "webhook"
path = "orders/in"
mapping = "body.what"
[secret]
file = "hook.secret"
"""
SECRET = "quite-a-long-secret"
ONE = {"name": "one", "steps": {"a": {"capability": "shout"}}}
SAY = {
    "name": "say",
    "steps": {"a": {"capability": "shout"}, "r": {"kind": "respond", "status": 203, "depends_on": ["a"]}},
}


@pytest.fixture(scope="module")
def node(shared_nodes):
    found = shared_nodes.node(CONFIG, "hub")
    found.write(SECRET, "hook.secret").chmod(0o600)
    found.write(scaffold.render("trigger", "lines", single_file=True)["lines.py"], "lines.py")
    found.up()
    for workflow in (ONE, SAY):
        found.json("workflow", "register", json.dumps(workflow))
    return found


def started(node, name: str, count: int = 1) -> list[dict]:
    def enough() -> list[dict]:
        found = node.ask("trigger.history", id=name)["firings"]
        return found if sum(one["what"] == "started" for one in found) >= count else []

    return until(enough)


def test_a_cron_trigger_from_its_making_to_its_end(node):
    made = node.json("trigger", "create", "--id", "tick", "--workflow", "one", "--cron", "* * * * * *", "--input", "hi")
    assert (made["id"], made["kind"], made["new"], bool(made["next_at"])) == ("tick", "cron", True, True)
    rows = started(node, "tick", 2)
    code, out, _ = node.run("run", "await", rows[-1]["run"])
    assert (code, out) == (0, "HI\n")
    assert node.json("run", "show", rows[0]["run"])["trigger"] == "tick"
    assert node.json("trigger", "disable", "tick")["enabled"] is False
    shown = node.json("trigger", "show", "tick")
    assert (shown["definition"]["cron"], shown["next_at"], shown["node"]) == ("* * * * * *", "", "here")
    assert shown["fired"] >= 2
    assert "tick" in [one["id"] for one in node.json("triggers")["triggers"]]
    assert "tick" in node.run("trigger", "list")[1]
    fired = node.json("trigger", "fire", "tick", "by hand", "--key", "k")
    again = node.json("trigger", "fire", "tick", "by hand", "--key", "k")
    assert (fired["new"], again["new"], fired["run"]) == (True, False, again["run"])
    planned = node.json("trigger", "backfill", "tick", "1h", "--cap", "3", "--dry-run")
    filled = node.json("trigger", "backfill", "tick", "1h", "--cap", "3")
    assert (len(planned["runs"]), planned["more"], len(filled["runs"])) == (3, True, 3)
    assert all(one["run"] for one in filled["runs"])
    code, problem = node.refused("trigger", "create", "--id", "tick", "--workflow", "one", "--cron", "@daily")
    assert (code, problem["code"]) == (1, "trigger.exists")
    words = ("--id", "tick", "--workflow", "one", "--cron", "@daily", "--replace")
    assert node.json("trigger", "create", *words)["new"] is False
    assert node.json("trigger", "enable", "tick")["next_at"].endswith("T00:00:00.000Z")
    assert node.json("trigger", "remove", "tick")["removed"] is True
    assert node.refused("trigger", "show", "tick")[1]["code"] == "trigger.not_found"
    assert node.json("trigger", "history", "tick", "--limit", "1")["firings"]


def test_trying_keeps_nothing(node):
    tried = node.json("trigger", "test", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", "400")
    assert len(tried["times"]) == 400
    assert {one[11:] for one in tried["times"]} == {
        "00:30:00.000Z",
        "01:30:00.000Z",
        "01:00:00.000Z",
    }  # summer, winter, the odd day
    tried = node.ask(
        "trigger.test", subject="event.a", body={"n": 1}, definition={"filter": "body.n > `3`", "mapping": "body.n"}
    )
    assert (tried["meant"], tried["input"], tried["times"]) == (False, 1, [])
    code, problem = node.refused("trigger", "test", "--cron", "61 * * * *")
    assert (code, problem["code"]) == (2, "trigger.bad_definition")
    assert node.json("trigger", "test", "--at", "2020-01-01T00:00:00Z")["fires"] == "at once: its moment is over"


def test_a_definition_is_tried_as_a_file_before_it_is_kept(node):
    node.write("id: early\nworkflow: one\ncron: 0 3 * * *\nenabled: false\ninput: [1]\n", "early.yaml")
    tried = node.json("trigger", "test", f"@{node.folder / 'early.yaml'}", "-n", "2")
    assert (len(tried["times"]), tried["fires"], tried["input"]) == (2, "not before it is enabled", [1])
    assert node.refused("trigger", "show", "early")[1]["code"] == "trigger.not_found"
    assert node.refused("trigger", "test", '{"cron": "@daily", "workflow": "none"}')[1]["code"] == "flow.no_workflow"


def test_a_webhook_over_http(node):
    node.write(TRIGGER, "hook.toml")
    made = node.json("trigger", "create", f"@{node.folder / 'hook.toml'}")
    assert made["address"].endswith("/hooks/orders/in")
    body = b'{"what": "order"}'
    sign = {"x-signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
    answers = [node.http("POST", "/hooks/orders/in", body, **sign) for _ in range(2)]
    assert [one.status for one in answers] == [202, 202]
    run = answers[0].json["run"]
    assert (answers[1].json, answers[0].headers["knotwork-run"]) == ({"run": run, "new": False}, run)
    assert node.ask("run.await", id=run, timeout_s=60)["output"] == "ORDER"
    rows = {one["id"]: one for one in until(lambda: started(node, "hook") and node.json("triggers")["triggers"])}
    assert rows["hook"]["last_at"] == node.json("trigger", "show", "hook")["last_at"] != ""
    assert node.http("POST", "/hooks/orders/in", b"{}", **sign).status == 401
    assert node.http("GET", "/hooks/orders/in", **sign).status == 405
    assert node.http("POST", "/hooks/orders/out", body, **sign).status == 404
    assert SECRET not in node.run("trigger", "show", "hook")[1] + node.log
    node.json("trigger", "disable", "hook")
    assert until(lambda: node.http("POST", "/hooks/orders/in", body, **sign).status == 404)


def test_a_request_is_answered(node):
    fields = {"id": "say", "workflow": "say", "kind": "http", "path": "say", "unsigned": True}
    node.ask("trigger.create", definition={**fields, "max_body": 100, "body_schema": {"type": "string"}})
    answer = node.http("POST", "/run/say", b'"hello"')
    assert (answer.status, answer.json) == (203, "HELLO")
    assert node.http("POST", "/run/say", b"7").status == 422
    assert node.http("POST", "/run/say", b"7" * 101).status == 413
    assert node.http("DELETE", "/run/say").status == 405
    taken = node.call("trigger.create", definition={**fields, "id": "other"})
    assert (taken.status, taken.json["code"]) == (409, "trigger.route_taken")


def test_a_run_that_starts_later(node):
    later = node.json("run", "start", "one", "later", "--in", "1s")
    assert (later["state"], later["trigger"][:5]) == ("scheduled", "once-")
    found = until(lambda: node.call("run.show", id=later["id"]).status == 200)
    assert found
    assert node.ask("run.await", id=later["id"], timeout_s=60)["output"] == "LATER"
    assert node.refused("run", "start", "one", "--in", "1s", "--wait", "1s")[1]["code"] == "flow.bad_start"
    assert node.refused("run", "start", "none", "--at", "2030-01-01T00:00:00Z")[1]["code"] == "flow.no_workflow"


def test_a_key_of_runs_that_start_later_is_of_one_workflow_and_its_moment_stands(node):
    at, later = "2190-01-01T00:00:00Z", "2191-01-01T00:00:00Z"
    node.json("workflow", "register", json.dumps({**ONE, "name": "two"}))
    first = node.ask("run.start", workflow="one", input={"a": 1, "b": 2}, key="k", at=at)
    assert node.ask("run.start", workflow="two", key="k", at=at)["id"] != first["id"]
    again = node.ask("run.start", workflow="one", input={"b": 2, "a": 1}, key="k", at=later)
    assert (first["new"], again) == (True, {**first, "new": False})
    assert node.call("run.start", workflow="one", input="other", key="k", at=at).json["code"] == "flow.key_reused"
    assert node.ask("run.start", workflow="one", input={"a": 1, "b": 2}, key="k")["id"] == first["id"]
    assert node.ask("run.await", id=first["id"], timeout_s=60)["state"] == "completed"
    begun = node.ask("run.start", workflow="one", input={"a": 1, "b": 2}, key="k", at=later)
    assert (begun["id"], begun["state"], begun["new"]) == (first["id"], "completed", False)
    assert node.call("run.start", workflow="one", input="other", key="k", at=at).json["code"] == "flow.key_reused"
    coming = node.ask("run.list", state=["scheduled"], workflow="two")["runs"]
    assert [run["started_at"] for run in coming] == [at]


def test_what_cannot_start_later_is_told_at_once_and_nothing_is_asked_of_what_is_to_come(node):
    numbers = {"name": "numbers", "input_schema": {"type": "integer"}, "steps": {"a": {"capability": "shout"}}}
    node.json("workflow", "register", json.dumps(numbers))
    at = "2190-01-01T00:00:00Z"
    assert node.call("run.start", workflow="numbers", input="seven", at=at).json["code"] == "flow.schema"
    run = node.ask("run.start", workflow="numbers", input=7, at=at)["id"]
    for op, fields in {
        "run.replay": {}, "run.export": {}, "run.show": {"at": 1}, "run.link": {"step": "a", "by": "alice"},
    }.items():  # fmt: skip
        assert node.call(op, id=run, **fields).json["code"] == "flow.scheduled", op


def test_for_events_and_for_what_a_plugin_tells_and_after_a_kill(node):
    node.ask("trigger.create", definition={"id": "said", "workflow": "one", "kind": "plugin", "source": "lines"})
    assert until(lambda: node.ask("trigger.show", id="said")["node"] == "here")
    lines = node.folder / "lines.txt"

    def say(text: str) -> bool:  # until the first look was taken, what is there is none of its business
        with lines.open("a") as file:
            file.write(f"{text}\n")
        return bool(node.ask("trigger.history", id="said")["firings"])

    assert until(lambda: say("line"))
    node.json("trigger", "create", "--id", "paid", "--workflow", "one", "--subject", "event.order.paid")
    node.json("event", "publish", "order.paid", "first")
    started(node, "paid")
    hook = {"id": "again", "workflow": "one", "kind": "webhook", "path": "again", "secret": {"file": "hook.secret"}}
    node.ask("trigger.create", definition={**hook, "mapping": "body.what"})
    sign = {"x-signature-256": "sha256=" + hmac.new(SECRET.encode(), b'{"what": "x"}', hashlib.sha256).hexdigest()}
    assert [node.http("POST", "/hooks/again", b'{"what": "x"}', **sign).status for _ in range(2)] == [202, 202]
    ask = {"id": "asked", "workflow": "say", "kind": "http", "path": "asked", "unsigned": True}
    node.ask("trigger.create", definition=ask)
    assert node.http("POST", "/run/asked", b'"hello"').status == 203
    started(node, "again")
    started(node, "asked")
    later = node.ask("run.start", workflow="one", input="while it was down", in_s=1.5)
    os.kill(node.pid, signal.SIGKILL)
    node.process.wait()
    before = len(lines.read_text())
    say_now = f"line-{before}"
    with lines.open("a") as file:
        file.write("the last\n")
    node.up()
    assert until(lambda: node.call("run.show", id=later["id"]).status == 200)
    node.json("event", "publish", "order.paid", "second")
    rows = started(node, "paid", 2)
    outputs = [node.ask("run.await", id=row["run"], timeout_s=60)["output"] for row in rows]
    assert sorted(outputs) == ["FIRST", "SECOND"]
    told = until(lambda: [one for one in node.ask("trigger.history", id="said")["firings"] if say_now in one["key"]])
    assert node.ask("run.await", id=told[0]["run"], timeout_s=60)["output"] == "THE LAST"
    rows = node.ask("trigger.history", id="said")["firings"]
    assert node.json("trigger", "show", "said")["fired"] == len({one["run"] for one in rows}) == len(rows)
    counts = {one["id"]: one["fired"] for one in node.json("triggers")["triggers"]}
    # of every kind, runs and not requests, also after a kill
    assert (counts["again"], counts["paid"], counts["asked"]) == (1, 2, 1)
    assert (
        node.refused("trigger", "create", "--id", "x", "--workflow", "one", "--source", "none")[1]["code"]
        == "trigger.no_source"
    )
    lost = node.refused("trigger", "create", "--id", "x", "--workflow", "gone", "--source", "none")[1]
    assert lost["code"] == "trigger.bad_definition"
    assert [one["path"] for one in lost["detail"]["problems"]] == ["workflow", "source"]
