"""Workflows asked for at the shell and over HTTP, on two real nodes, one of which is killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal

import httpx
import pytest
from tests.e2e.conftest import until

CONFIG = """
[node]
name = "hub"
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
concurrency = 4
[executors.slow]
type = "process"
command = ["sleep", "600"]
[executors.broken]
type = "rehearsal"
steps = [{ fail = "out of paper", retriable = true }]
"""
FAR = """
[node]
name = "far"
[nats]
mode = "join"
urls = ["{url}"]
nkey_seed = {{file = "{seed}"}}
"""
RELEASE = """
name = "release"
description = "Shout, ask, shout again."
[steps.each]
kind = "map"
items = "input.words"
capability = "shout"
[steps.ask]
kind = "approval"
depends_on = ["each"]
[steps.last]
capability = "shout"
depends_on = ["ask"]
input = "join('-', steps.each.output)"
"""


@pytest.fixture(scope="module")
def node(shared_nodes):
    found = shared_nodes.node(CONFIG, "hub").up()
    found.write(RELEASE, "release.toml")
    assert found.json("workflow", "register", f"@{found.folder / 'release.toml'}")["new"] is True
    return found


def listed(node, **fields):
    """Return the ids of the runs in a list, which follows a moment later."""
    return [one["id"] for one in node.ask("run.list", **fields)["runs"]]


def test_a_run_from_start_to_end_at_the_shell(node):
    code, out, _ = node.run("run", "start", "release", '{"words": ["a", "b"]}')
    run = out.strip()
    assert code == 0
    why = until(lambda: [one for one in node.json("run", "why", run)["waits"] if one["step"] == "ask"])
    assert why[0]["what"] == "somebody to approve or reject"
    assert node.json("run", "approve", run, "ask", "--comment", "fine")["changed"] is True
    code, out, _ = node.run("run", "await", run)
    assert (code, out) == (0, "A-B\n")
    shown = node.json("run", "show", run)
    assert (shown["state"], shown["done"], shown["steps"]) == ("completed", 3, 3)
    assert shown["progress"][0]["output"] == ["A", "B"]
    assert shown["progress"][1]["output"]["comment"] == "fine"
    told = [(one["what"], one["step"]) for one in node.json("run", "events", run)["events"]]
    assert (told[0], told[-1]) == (("start", ""), ("ended", ""))
    assert node.json("run", "show", run, "--at", "1")["state"] == "running"
    until(lambda: run in listed(node, workflow="release"))
    assert run in [one["id"] for one in node.json("runs", "--workflow", "release")["runs"]]
    code, out, _ = node.run("run", "output", run)
    assert (code, out) == (0, "A-B\n")


def test_why_a_step_waits_is_said_as_of_any_task(node):
    retry = {"max_attempts": 3, "delay": "4m", "backoff": "fixed", "jitter": False}
    steps = {
        "fails": {"agent": "broken", "retry": retry},
        "missing": {"capability": "nobody-has-it"},
        "works": {"agent": "slow"},
        "barred": {"capability": "shout", "boundary": "corporate"},
    }
    node.ask("workflow.register", definition={"name": "stuck", "steps": steps})
    run = node.ask("run.start", workflow="stuck", input="1")["id"]

    def told():
        found = {one["step"]: one for one in node.json("run", "why", run)["waits"]}
        return found if found["fails"]["until"] and "has it since" in found["works"]["why"] else None

    why = until(told)
    assert why["fails"]["why"].startswith(f"Attempt 2 of 3 begins at {why['fails']['until']}, in ")
    assert "The one before failed: out of paper" in why["fails"]["why"]
    assert "nobody who is there offers capability nobody-has-it" in why["missing"]["why"]
    assert "the one agent that could take it does not: " in why["barred"]["why"]
    assert "hub/slow has it since" in node.run("run", "why", run)[1]
    node.ask("run.cancel", ids=[run])


def test_somebody_without_a_token_answers_by_a_link(node):
    asking = {
        "name": "asking",
        "steps": {"ask": {"kind": "approval", "title": "Ship <it>?"}},
        "output": "steps.ask.output.by",
    }
    node.ask("workflow.register", definition=asking)
    run = node.ask("run.start", workflow="asking")["id"]
    until(lambda: node.ask("run.why", id=run)["waits"])
    link = node.json("run", "link", run, "ask", "--by", "alice", "--expires", "2h")
    assert link["by"] == "alice"
    with httpx.Client(trust_env=False, timeout=60) as plain:
        must_answer(plain, node, run, link)


def must_answer(plain, node, run, link):
    page = plain.get(link["url"], headers={"accept": "text/html"})
    assert (page.status_code, "Ship &lt;it&gt;?" in page.text) == (200, True)
    assert node.ask("run.show", id=run)["state"] == "running"
    answer = plain.post(link["url"], data={"decision": "approve", "comment": "yes"})
    assert (answer.status_code, answer.json()["state"]) == (200, "approved")
    assert node.ask("run.await", id=run, timeout_s=55)["output"] == "alice"
    assert plain.post(link["url"], json={"decision": "reject"}).status_code == 409
    assert plain.get(link["url"].replace("ka1", "ka2")).status_code == 404


def test_a_run_starts_itself_anew(node):
    steps = {
        "hear": {"kind": "wait_for_signal", "signal": "go"},
        "again": {
            "kind": "continue_as_new",
            "depends_on": ["hear"],
            "when": "steps.hear.output",
            "input": "steps.hear.output",
        },
    }
    node.ask("workflow.register", definition={"name": "anew", "steps": steps, "output": "input"})
    first = node.ask("run.start", workflow="anew", input="a")["id"]
    for word in ("b", "c"):
        node.ask("run.signal", id=first, signal="go", payload=word)
    until(lambda: node.ask("run.show", id=first)["next"])
    node.ask("run.signal", id=first, signal="go", payload=False)
    assert node.ask("run.await", id=first, timeout_s=55)["output"] == "c"
    shown = node.ask("run.show", id=first)
    second = node.ask("run.show", id=shown["next"])
    third = node.ask("run.show", id=second["next"])
    assert (second["previous"], second["number"], third["previous"], third["number"]) == (first, 1, second["id"], 2)
    assert (third["next"], third["output"]) == ("", "c")
    assert [node.run("run", "output", one["id"])[:2] for one in (shown, second, third)] == [(0, "c\n")] * 3
    assert third["id"] in node.ask("run.why", id=first)["waits"][0]["what"]
    wanted = {first: second["id"], second["id"]: third["id"], third["id"]: ""}
    until(lambda: {one["id"]: one["next"] for one in node.ask("run.list", workflow="anew")["runs"]} == wanted)


def test_who_holds_a_step_starts_more_under_its_budget(node):
    piece = {"name": "piece", "steps": {"p": {"capability": "shout"}}}
    lead = {"name": "lead", "steps": {"a": {"capability": "lead", "children": {"workflows": ["piece"], "max": 2}}}}
    for one in (piece, lead):
        node.ask("workflow.register", definition=one)
    run = node.ask("run.start", workflow="lead")["id"]
    (task,) = node.json("work", "claim", "laptop", "-c", "lead", "--wait", "30s")["tasks"]
    made = node.json("work", "spawn", task["claim"], "hello", "--workflow", "piece", "--key", "one")
    assert (made["step"], made["new"], made["left"]) == ("a--c1", True, 1)
    again = node.ask("work.spawn", claim=task["claim"], input="hello", workflow="piece", key="one")
    assert (again["new"], again["run"]) == (False, made["run"])
    assert node.ask("run.await", id=made["run"], timeout_s=55)["output"] == "HELLO"
    (child,) = until(
        lambda: [one for one in node.ask("work.children", claim=task["claim"])["children"] if one["output"]]
    )
    assert (child["what"], child["run"], child["state"], child["output"]) == (
        "piece",
        made["run"],
        "completed",
        "HELLO",
    )
    node.ask("work.spawn", claim=task["claim"], input="x", workflow="piece")
    for workflow, code in (("piece", "flow.budget_spent"), ("lead", "flow.no_grant")):
        assert node.call("work.spawn", claim=task["claim"], input="x", workflow=workflow).json["code"] == code
    node.ask("work.complete", claim=task["claim"], output=1)
    assert node.ask("run.await", id=run, timeout_s=55)["state"] == "completed"
    assert [one["step"] for one in node.ask("run.show", id=run)["children"]] == ["a--c1", "a--c2"]
    assert node.ask("run.show", id=made["run"])["parent"] == f"{run}/a--c1"


def test_runs_are_seen_by_lists_and_by_sql(node):
    steps = {"a": {"capability": "shout", "when": "input"}}
    node.ask("workflow.register", definition={"name": "seen", "steps": steps, "output": "steps.a.output.x.y"})
    ids = [node.ask("run.start", workflow="seen", input="a", labels=[f"n={n}"], wait_s=55)["id"] for n in range(3)]
    until(lambda: listed(node, workflow="seen", state=["completed"]) == ids[::-1])
    found = node.ask("run.list", workflow="seen", state=["completed"])["runs"]
    assert [one["labels"] for one in found] == [{"n": str(n)} for n in (2, 1, 0)]
    query = "select id, state, labels from runs where workflow = 'seen' and ended_ns > 0 order by started_ns"
    found = until(lambda: (rows := node.ask("view.sql", query=query)["rows"]) and len(rows) == 3 and rows)
    assert [(one["id"], one["state"]) for one in found] == [(one, "completed") for one in ids]
    assert node.ask("run.list", workflow="seen", state=["failed"])["runs"] == []


def test_waiting_and_keys(node):
    node.json("workflow", "register", json.dumps({"name": "one", "steps": {"a": {"capability": "shout"}}}))
    code, out, _ = node.run("run", "start", "one", "hello", "--key", "k1", "--wait", "60s")
    assert (code, out) == (0, "HELLO\n")
    first = node.json("run", "start", "one", "hello", "--key", "k1")
    assert (first["new"], first["state"]) == (False, "completed")
    assert node.json("run", "start", "one", "hello", "--key", "k1", "--wait", "60s")["new"] is False
    code, problem = node.refused("run", "start", "one", "other", "--key", "k1")
    assert (code, problem["code"]) == (1, "flow.key_reused")
    told = node.ask("run.start", workflow="one", input="x" * 600_000)
    shown = node.ask("run.await", id=told["id"], timeout_s=55)
    known = ("workflow", "steps", "by", "started_at", "labels", "digest", "input", "input_blob")
    assert told | {name: shown[name] for name in known} == told
    assert (told["steps"], told["input"], shown["output"]) == (1, None, None)
    for verb in ("await", "output", "watch"):  # what is told by its digest is fetched
        code, out, _ = node.run("run", verb, told["id"])
        assert (code, len(out), out[:2]) == (0, 600_001, "XX")


def test_an_input_that_is_too_large_for_one_request_goes_ahead_of_it(node):
    big = {"name": "big", "input_schema": {"type": "string"}, "steps": {"a": {"kind": "sleep", "duration": "1ms"}}}
    node.json("workflow", "register", json.dumps({**big, "output": "length(input)"}))
    node.write(json.dumps("x" * 9_000_000), "big.json")
    code, out, _ = node.run("run", "start", "big", "@big.json", "--wait", "60s")
    assert (code, out) == (0, "9000000\n")
    assert node.refused("run", "start", "big", "@big.json", "--in", "1h")[1]["code"] == "trigger.too_large"
    number = node.ask("blob.put", data="MTIz", digest="sha256-" + hashlib.sha256(b"123").hexdigest())["digest"]
    assert node.call("run.start", workflow="big", blob=number).json["code"] == "flow.schema"
    assert node.call("run.start", workflow="big", blob=number, input=1).json["code"] == "ops.bad_request"
    assert node.call("run.start", workflow="big", blob="sha256-" + "0" * 64).json["code"] == "blob.not_found"


def test_everything_wrong_is_told_with_its_place(node):
    text = 'name = "bad"\n[steps.a]\ncapabilty = "x"\n[steps.b]\nkind = "sleep"\nduration = "5 minutes"\n'
    node.write(text, "bad.toml")
    code, out, _ = node.run("workflow", "check", f"@{node.folder / 'bad.toml'}", "-o", "json")
    assert code == 1
    verdict = json.loads(out)
    assert verdict["ok"] is False
    places = {(one["path"], one["line"]) for one in verdict["problems"]}
    assert {("steps.a.capabilty", 3), ("steps.b.duration", 6)} <= places
    code, problem = node.refused("workflow", "register", f"@{node.folder / 'bad.toml'}")
    assert (code, problem["code"]) == (2, "flow.bad_workflow")
    made = {"name": "bad", "steps": {"a": {"capabilty": "x"}, "b": {"capability": "x", "when": "nofunc(input.x)"}}}
    node.write(json.dumps(made, indent=2), "bad.json")
    code, out, _ = node.run("workflow", "check", f"@{node.folder / 'bad.json'}", "-o", "json")
    places = [(one["line"], one["column"]) for one in json.loads(out)["problems"]]
    assert (code, places) == (1, [(5, 7), (9, 7)])  # in one answer
    cycle = {"name": "c", "steps": {name: {"capability": "x", "depends_on": [to]} for name, to in ("ab", "ba")}}
    code, out, _ = node.run("workflow", "check", json.dumps(cycle), "-o", "json")
    told = json.loads(out)["problems"]
    assert code == 1
    assert "a → b → a" in told[0]["message"] or "b → a → b" in told[0]["message"]


def test_pictures(node):
    for form in ("mermaid", "dot", "svg"):
        assert "ask" in node.ask("workflow.graph", name="release", form=form)["text"]
    code, out, _ = node.run("workflow", "schema")  # a file for an editor
    assert (code, json.loads(out)["title"], "max_items" in out) == (0, "Workflow", True)
    code, out, _ = node.run("workflow", "graph", "release", "--form", "ascii")
    assert code == 0
    assert "ask" in out


def test_cancel_stops_the_process_that_works(node):
    node.ask("workflow.register", definition={"name": "long", "steps": {"a": {"capability": "slow"}}})
    run = node.ask("run.start", workflow="long")["id"]
    until(lambda: node.status()["running"] == 1)
    assert node.json("run", "cancel", run, "--why", "enough")["runs"][0]["changed"] is True
    ended = json.loads(node.run("run", "await", run, "-o", "json")[1])
    assert (ended["state"], ended["error"]["code"]) == ("cancelled", "flow.cancelled")
    until(lambda: node.status()["running"] == 0)
    assert node.refused("run", "cancel", run)[1]["code"] == "flow.over"


def test_http_speaks_of_the_same(node):
    assert "release" in [one["name"] for one in node.call("workflow.list").json["workflows"]]
    run = node.ask("run.start", workflow="release", input={"words": []})["id"]
    until(lambda: node.ask("run.why", id=run)["waits"][0]["step"] == "ask")
    assert node.ask("run.reject", id=run, step="ask", comment="no")["changed"] is True
    assert node.ask("run.await", id=run, timeout_s=60)["error"]["code"] == "flow.rejected"
    assert node.call("run.show", id="w" + "0" * 22).status == 404
    assert node.call("run.show", id="../x").status == 422


def test_pause_signals_events_and_watching(node):
    steps = {
        "go": {"kind": "wait_for_signal", "signal": "go"},
        "paid": {"kind": "wait_for_event", "event": "order.paid", "depends_on": ["go"]},
    }
    node.ask("workflow.register", definition={"name": "waits", "steps": steps})
    run = node.ask("run.start", workflow="waits")["id"]
    assert node.json("run", "pause", run)["runs"][0]["changed"] is True
    assert node.ask("run.signal", id=run, signal="go", payload={"with": "care"})["changed"] is True
    until(lambda: node.ask("run.show", id=run)["progress"][0]["state"] == "completed")
    until(lambda: run in listed(node, state=["paused"]))
    assert run in [one["id"] for one in node.json("run", "list", "--state", "paused")["runs"]]
    assert node.json("run", "resume", run)["done"] == 1
    until(lambda: node.ask("run.why", id=run)["waits"][0]["what"] == "an event order.paid")
    told = [node.json("event", "publish", "order.paid", '{"sum": 3}', "--key", "3") for _ in range(2)]
    assert [(one["number"] - told[0]["number"], one["already"]) for one in told] == [(0, False), (0, True)]
    code, out, err = node.run("run", "watch", run)
    assert (code, json.loads(out)) == (0, {"sum": 3})
    assert "paid" in err


def test_a_run_is_written_down_and_brought_to_another_place(node, nodes):
    node.json("workflow", "register", json.dumps({"name": "carried", "steps": {"a": {"capability": "shout"}}}))
    run = node.json("run", "start", "carried", "hello", "--wait", "60s")["id"]
    written = node.run("run", "export", run, "-o", "json")[1]
    other = nodes.node("# nothing").up()
    half = {**json.loads(written), "facts": json.loads(written)["facts"][:1]}
    assert other.refused("run", "import", json.dumps(half))[1]["code"] == "flow.bad_history"
    assert other.refused("run", "import", json.dumps({**half, "facts": [{"s": 1}]}))[1]["code"] == "flow.bad_history"
    file = other.write(written, "run.json")
    [kept] = other.json("run", "import", f"@{file}")["runs"]
    assert (kept["id"], kept["changed"], kept["why"]) == (run, True, "")
    assert other.json("run", "import", f"@{file}")["runs"][0]["changed"] is False
    assert other.json("run", "show", run)["output"] == "HELLO"
    assert other.json("run", "replay", run)["same"] is True
    until(lambda: listed(other) == [run])
    assert [one["id"] for one in other.json("runs")["runs"]] == [run]


def test_cancel_all_of_a_workflow(node):
    steps = {"a": {"kind": "wait_for_signal", "signal": "go"}}
    for name in ("many", "other"):
        node.ask("workflow.register", definition={"name": name, "steps": steps})
    runs = {node.ask("run.start", workflow="many")["id"] for _ in range(3)}
    other = node.ask("run.start", workflow="other")["id"]
    assert node.refused("run", "cancel")[1]["code"] == "flow.filter_needed"
    until(lambda: set(listed(node, workflow="many")) == runs)
    assert {one["id"] for one in node.json("run", "cancel", "--workflow", "many", "--dry-run")["runs"]} == runs
    assert all(one["changed"] for one in node.json("run", "cancel", "--workflow", "many")["runs"])
    for run in runs:
        assert node.ask("run.await", id=run, timeout_s=55)["state"] == "cancelled"
    assert node.ask("run.show", id=other)["state"] == "running"
    node.ask("run.cancel", ids=[other])


def test_retry_fork_and_replay(node):
    steps = {
        "one": {"capability": "shout"},
        "two": {"capability": "shout", "depends_on": ["one"], "when": "input != 'skip'"},
        "ask": {"kind": "approval", "depends_on": ["two"]},
    }
    more = {"output": {"was": "steps.one.output", "now": "input"}}
    node.ask("workflow.register", definition={"name": "thrice", "steps": steps, **more})
    run = node.ask("run.start", workflow="thrice", input="word")["id"]
    until(lambda: node.ask("run.why", id=run)["waits"][0]["step"] == "ask")
    node.ask("run.reject", id=run, step="ask")
    assert node.run("run", "await", run)[0] == 1
    assert node.ask("run.await", id=run, timeout_s=55)["state"] == "failed"
    again = node.json("run", "retry", run)["id"]
    until(lambda: node.ask("run.why", id=again)["waits"][0]["step"] == "ask")
    told = [(one["what"], one["step"]) for one in node.ask("run.events", id=again)["events"]]
    assert told == [("start", "")]  # nothing that was done is done again
    told = node.refused("run", "retry", again)[1]
    assert (told["code"], "run await" in told["hint"]) == ("flow.not_over", True)
    node.ask("run.approve", id=again, step="ask")
    assert node.ask("run.await", id=again, timeout_s=55)["output"] == {"was": "WORD", "now": "word"}
    other = node.json("run", "fork", run, "two", "--run-input", '"other"')["id"]
    until(lambda: node.ask("run.why", id=other)["waits"][0]["step"] == "ask")
    node.ask("run.approve", id=other, step="ask")
    assert node.ask("run.await", id=other, timeout_s=55)["output"] == {"was": "WORD", "now": "other"}
    own = node.json("run", "fork", run, "two", "mine")["id"]
    until(lambda: node.ask("run.why", id=own)["waits"][0]["step"] == "ask")
    shown = node.ask("run.show", id=own)
    assert [one["output"] for one in shown["progress"] if one["id"] == "two"] == ["MINE"]
    assert shown["input"] == "word"
    for one in (run, again, other, own):
        assert node.ask("run.replay", id=one) == {"id": one, "same": True, "number": 0, "fact": "", "expected": ""}
    told = node.refused("run", "retry", run, "--step", "nothing")[1]
    assert (told["code"], "knotwork run show" in told["hint"]) == ("flow.no_step", True)
    steps = {
        "again": {"kind": "continue_as_new", "when": "input.n < `2`", "input": {"n": "sum([input.n, `1`])"}},
        "ask": {"kind": "approval", "when": "input.n == `2`"},
    }
    node.ask("workflow.register", definition={"name": "pieces", "steps": steps})
    first = node.ask("run.start", workflow="pieces", input={"n": 0})["id"]
    second = until(lambda: node.ask("run.show", id=first)["next"])
    third = until(lambda: node.ask("run.show", id=second)["next"])
    until(lambda: node.ask("run.why", id=third)["waits"][0]["step"] == "ask")
    node.ask("run.reject", id=third, step="ask")
    assert node.ask("run.await", id=first, timeout_s=55)["state"] == "failed"
    told = node.ask("run.retry", ids=[first])
    assert told["runs"][0]["why"] == f"from {third}, which went on for it"
    assert node.ask("run.show", id=told["id"])["input"] == {"n": 2}, "what went before is not done again"
    node.ask("run.cancel", ids=[told["id"]])


def test_a_dead_step_that_is_redriven_revives_its_run(node):
    retry = {"max_attempts": 2, "delay": "10ms", "jitter": False}
    hard = {"capability": "hard", "retry": retry, "input": "'x'"}
    below = {
        "name": "below",
        "steps": {"hard": {**hard, "allow_failure": True}, "harder": {**hard, "depends_on": ["hard"]}},
    }
    steps = {"easy": {"capability": "shout"}, "part": {"kind": "workflow", "workflow": "below", "depends_on": ["easy"]}}
    kept = {"name": "kept", "steps": {"hard": {**hard, "allow_failure": True}}}
    for one in (below, {"name": "above", "steps": steps, "output": {"was": "steps.easy.output"}}, kept):
        node.ask("workflow.register", definition=one)

    def dies(workflow: str, state: str, count: int) -> tuple[str, str]:
        run = node.ask("run.start", workflow=workflow, input="word")["id"]
        for _ in range(2 * count):
            (task,) = node.ask("work.claim", worker="weak", capabilities=["hard"], wait_s=30)["tasks"]
            node.ask("work.fail", claim=task["claim"], message=task["step"], retriable=True)
        assert node.ask("run.await", id=run, timeout_s=55)["state"] == state
        letters = until(lambda: len(found := node.ask("task.dead_list", capability="hard")["dead"]) == count and found)
        assert [one["step"] for one in letters] == ["hard", "harder"][:count]
        assert len({one["id"] for one in letters}) == 1
        return run, letters[0]["id"]

    _, letter = dies("kept", "completed", 1)
    (row,) = node.ask("task.redrive", ids=[letter])["tasks"]
    assert (row["done"], "completed without it" in row["why"]) == (False, True), "it was not missed"
    node.ask("task.drop", ids=[letter])
    run, letter = dies("above", "failed", 2)
    assert letter != run  # it lies under the run that it was a step of
    for step in ("hard", "harder"):
        assert node.json("dead", "show", letter, "--step", step)["attempts"][0]["message"] == step
    rows = node.json("dead", "redrive", letter, "--dry-run")["tasks"]
    assert [(row["done"], row["run"], row["why"]) for row in rows] == [(False, run, "")] * 2
    row, other = node.json("dead", "redrive", letter)["tasks"]
    assert (row["id"], row["done"], other["run"]) == (letter, True, row["run"]), "it is retried once"
    assert node.ask("task.dead_list", capability="hard")["dead"] == []
    for step in ("hard", "harder"):
        (task,) = node.ask("work.claim", worker="strong", capabilities=["hard"], wait_s=30)["tasks"]
        assert task["step"] == step
        node.ask("work.complete", claim=task["claim"], output=1)
    revived = node.ask("run.await", id=row["run"], timeout_s=55)
    assert (revived["state"], revived["output"]) == ("completed", {"was": "WORD"})
    told = [one["step"] for one in node.ask("run.events", id=row["run"])["events"] if one["step"] == "easy"]
    assert told == [], "what was done is not done again"


def test_files_bring_workflows_and_take_them_with_them(node):
    folder = node.folder / "workflows"
    folder.mkdir()
    node.ask("workflow.register", definition={"name": "mine", "steps": {"a": {"kind": "sleep", "duration": 1}}})

    def names() -> dict[str, str]:
        return {one["name"]: one["owner"] for one in node.ask("workflow.list")["workflows"]}

    node.write('name = "brought"\n[steps.a]\nkind = "sleep"\nduration = "1s"\n', "workflows/one.toml")
    node.write("name: mine\nsteps:\n  a: {kind: sleep, duration: 2s}\n", "workflows/two.yaml")
    node.write("name: also\nsteps:\n  a: {kind: sleep, duration: 2s}\n", "workflows/three.yaml")
    until(lambda: names().get("brought") == "one.toml on hub" and names().get("also") == "three.yaml on hub")
    assert node.ask("workflow.show", name="mine")["definition"]["steps"]["a"]["duration"] == 1
    assert names()["mine"] == ""  # what others made is never touched
    taken = {"name": "brought", "steps": {"a": {"kind": "sleep", "duration": 3}}}
    assert node.refused("workflow", "register", json.dumps(taken))[1]["code"] == "flow.owned"
    assert node.refused("workflow", "remove", "brought")[1]["code"] == "flow.owned"
    with node.watching("workflow.refused") as told:
        node.write('name = "brought"\n[steps.a]\nkind = "nap"\n', "workflows/one.toml")
        until(lambda: told)
    assert node.ask("workflow.show", name="brought")["definition"]["steps"]["a"]["duration"] == 1
    node.write('name = "renamed"\n[steps.a]\nkind = "sleep"\nduration = "1s"\n', "workflows/one.toml")
    until(lambda: "renamed" in names() and "brought" not in names())
    (folder / "one.toml").unlink()
    until(lambda: "renamed" not in names())
    assert "release" in names()


def test_names_come_and_go(node):
    node.ask("workflow.register", definition={"name": "gone", "steps": {"a": {"kind": "sleep", "duration": 1}}})
    shown = node.ask("workflow.show", name="gone")
    assert shown["definition"]["steps"]["a"]["duration"] == 1
    assert node.ask("workflow.remove", name="gone") == {"name": "gone", "removed": True}
    assert node.ask("workflow.remove", name="gone")["removed"] is False
    assert node.refused("workflow", "show", "gone")[1]["code"] == "flow.no_workflow"
    assert node.ask("workflow.show", name=shown["digest"])["name"] == "gone"


def test_a_run_survives_kill_9_of_the_only_node(nodes):
    node = nodes.node(CONFIG).up()
    steps = {
        "a": {"capability": "shout"},
        "nap": {"kind": "sleep", "duration": "1s", "depends_on": ["a"]},
        "b": {"capability": "shout", "depends_on": ["nap"]},
    }
    node.ask("workflow.register", definition={"name": "w", "steps": steps})
    runs = [node.ask("run.start", workflow="w", input=f"word{number}")["id"] for number in range(3)]
    os.kill(node.pid, signal.SIGKILL)
    node.ended()
    node.up()
    for number, run in enumerate(runs):
        assert node.ask("run.await", id=run, timeout_s=55)["output"] == f"WORD{number}"
