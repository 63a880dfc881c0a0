"""Runs that are watched at the shell, changed by a filter, and carried as lines, on a real node."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess

import pytest
from tests.e2e.conftest import PROGRAM, until
from tests.e2e.test_workflows import CONFIG, listed

FAILS = {
    "name": "fails",
    "steps": {
        "one": {"capability": "shout"},
        "boom": {"capability": "shout", "depends_on": ["one"], "output_schema": {"type": "integer"}},
    },
}
ASKS = {"name": "asks", "steps": {"go": {"kind": "wait_for_signal", "signal": "go"}}}
SPREADS = {"name": "spreads", "steps": {"each": {"kind": "map", "items": "input", "capability": "shout"}}}


@pytest.fixture(scope="module")
def node(shared_nodes):
    found = shared_nodes.node(CONFIG, "hub").up()
    for workflow in (FAILS, ASKS, SPREADS):
        found.json("workflow", "register", json.dumps(workflow))
    return found


def test_a_run_is_started_and_watched(node):
    code, out, err = node.run("run", "start", "spreads", '["a", "b"]', "--watch")
    assert (code, json.loads(out)) == (0, ["A", "B"])
    lines = err.splitlines()
    assert lines[0].startswith("w")
    assert lines[-1].endswith("ended completed")
    for words in (("--watch",), ("--wait", "60s")):
        code, out, err = node.run("run", "start", "fails", '"x"', *words)
        assert (code, out) == (1, "")
        assert "(failed, flow.schema)" in err
    code, out, _ = node.run("run", "start", "spreads", '["a"]', "--watch", "-o", "jsonl")
    pieces = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {piece["kind"] for piece in pieces} == {"progress", "chunk", "result"}
    steps = [step for piece in pieces if piece["kind"] == "chunk" for step in piece["data"]["changed"]]
    assert (steps[0]["id"], steps[-1]["state"], steps[-1]["attempt"]) == ("each", "completed", 1)
    assert (pieces[-1]["kind"], pieces[-1]["output"]) == ("result", ["A"])
    assert node.refused("run", "start", "spreads", "[]", "--in", "1h", "--watch")[1]["code"] == "flow.bad_start"


def drawn(node, *words, until_seen: str):
    """Start a command on a terminal of its own; returns the process and what it drew up to something, and reads on."""
    ours, theirs = pty.openpty()
    env = {**node.env, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    process = subprocess.Popen(
        [*PROGRAM, *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=node.folder, env=env, start_new_session=True
    )
    os.close(theirs)
    seen = ""
    while until_seen not in seen:
        seen += os.read(ours, 65536).decode(errors="replace")
    return process, ours, seen


def rest(ours: int) -> str:
    found = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while piece := os.read(ours, 65536):
            found += piece
    os.close(ours)
    return found.decode(errors="replace")


def test_on_a_terminal_it_is_drawn_in_place_and_ctrl_c_leaves_it_going(node):
    process, ours, seen = drawn(node, "run", "start", "asks", "--watch", until_seen="open")
    run = next(word for word in seen.split() if word.startswith("w0"))
    assert "asks" in seen
    assert "━" in seen
    process.send_signal(signal.SIGINT)
    told = rest(ours)
    assert process.wait(60) != 0
    assert f"{run} goes on" in told
    assert f"knotwork run watch {run}" in told
    assert node.json("run", "show", run)["state"] == "running"
    process, ours, seen = drawn(node, "run", "watch", run, until_seen="open")
    node.json("run", "signal", run, "go", '"done"')
    told = rest(ours)
    assert process.wait(60) == 0
    assert "completed" in told
    assert told.rstrip().endswith("done")
    assert "\x1b[" in seen, "nothing was drawn in place"


def test_many_by_a_filter_with_an_answer_for_each(node):
    runs = [
        node.json("run", "start", "asks", "--labels", f"n={number % 2}", "--labels", "of=many")["id"]
        for number in range(5)
    ]
    odd = {runs[1], runs[3]}
    until(lambda: set(listed(node, labels=["of=many"])) == set(runs))
    assert {one["id"] for one in node.json("run", "list", "--labels", "of=many", "--labels", "n=1")["runs"]} == odd
    assert {
        one["id"] for one in node.json("run", "list", "--text", "n=1", "--workflow", "asks", "--since", "1h")["runs"]
    } == odd
    assert node.json("run", "list", "--labels", "of=many", "--until", "1h")["runs"] == []
    dry = node.json("run", "pause", "--labels", "of=many", "--dry-run")
    assert (dry["matched"], dry["done"], dry["dry_run"]) == (5, 0, True)
    some = node.json("run", "pause", "--labels", "of=many", "--limit", "2")
    assert [one["id"] for one in some["runs"]] == [runs[4], runs[3]]
    rest = node.json("run", "pause", "--labels", "of=many", "--cursor", some["next"])
    assert ([one["id"] for one in rest["runs"]], rest["next"]) == ([runs[2], runs[1], runs[0]], "")
    until(lambda: len(node.json("run", "list", "--state", "paused", "--labels", "of=many")["runs"]) == 5)
    assert node.json("run", "resume", "--labels", "n=1", "--labels", "of=many")["done"] == 2
    node.json("run", "cancel", runs[0])
    until(lambda: node.json("run", "show", runs[0])["ended_at"])
    code, out, err = node.run("run", "cancel", *runs, "-o", "json")
    told = json.loads(out)
    assert (code, told["done"], told["failed"]) == (1, 4, 1)
    assert [one["code"] for one in told["runs"]] == ["flow.over", "", "", "", ""]
    assert err == ""
    assert f"error: {runs[0]} has ended." in node.run("run", "cancel", runs[0])[2]
    assert node.refused("run", "resume")[1]["code"] == "flow.filter_needed"


def test_what_failed_is_retried_once_with_a_key(node):
    runs = {node.json("run", "start", "fails", "--labels", "of=retry")["id"] for _ in range(2)}
    for run in runs:
        assert node.run("run", "await", run)[0] == 1
    failed = {"workflow": "fails", "state": ["failed"], "labels": ["of=retry"]}
    until(lambda: set(listed(node, **failed)) == runs)
    words = ("run", "retry", "--workflow", "fails", "--state", "failed", "--labels", "of=retry", "--key", "once")
    first = node.json(*words)
    assert {one["id"] for one in first["runs"] if one["changed"]} == runs
    for run in first["id"].split():
        assert node.run("run", "await", run)[0] == 1
    until(lambda: len(listed(node, **failed)) == 4)
    again = node.json(*words)
    assert (again["matched"], again["done"], again["failed"]) == (4, 0, 0)
    assert node.ask("run.retry", ids=sorted(runs)[:1], step="boom")["done"] == 1


def test_many_are_written_down_and_a_bad_line_loses_no_other(node, nodes):
    runs = [
        node.json("run", "start", "spreads", '["a"]', "--labels", "of=copies", "--wait", "60s")["id"] for _ in range(3)
    ]
    until(lambda: listed(node, labels=["of=copies"], state=["completed"]) == runs[::-1])
    code, out, _ = node.run("run", "export", "--labels", "of=copies")
    lines = out.splitlines()
    assert (code, [json.loads(line)["id"] for line in lines]) == (0, runs[::-1])
    code, part, err = node.run("run", "export", "--labels", "of=copies", "--limit", "2")
    assert (code, part.splitlines()) == (0, lines[:2])
    cursor = err.rpartition("--cursor ")[2].strip()
    assert node.run("run", "export", "--labels", "of=copies", "--cursor", cursor)[1].splitlines() == lines[2:]
    assert node.refused("run", "export")[1]["code"] == "flow.filter_needed"
    going = node.json("run", "start", "asks", "--labels", "of=going")["id"]
    until(lambda: listed(node, labels=["of=going"]) == [going])
    assert node.run("run", "export", "--labels", "of=going") == (0, "", "1 run has not ended and was left out\n")
    assert node.ask("run.resume", ids=[runs[0], "bogus"], dry_run=True)["failed"] == 1
    told = node.ask("run.cancel", ids=[going, "w000nope", "bogus"])
    assert [one["code"] for one in told["runs"]] == ["", "flow.no_run", "flow.bad_id"]
    code, _, err = node.run("run", "show", runs[0], "--at", "99")
    assert (code, "facts, not 99" in err) == (2, True)
    other = nodes.node("# nothing").up()
    half = json.dumps({**json.loads(lines[1]), "facts": json.loads(lines[1])["facts"][:1]})
    file = other.write("\n".join([lines[0], "{not json", half, "", lines[2]]), "runs.jsonl")
    code, out, err = other.run("run", "import", f"@{file}", "-o", "json")
    told = json.loads(out)
    assert (code, told["done"], told["failed"]) == (1, 2, 2)
    assert [(one["line"], one["code"]) for one in told["runs"]] == [
        (1, ""), (2, "wire.not_json"), (3, "flow.bad_history"), (5, ""),
    ]  # fmt: skip
    assert err == ""
    bad = other.write("{not json", "bad.jsonl")
    assert "error: line 1:" in other.run("run", "import", f"@{bad}")[2]
    assert "had not ended when it was written" in told["runs"][2]["why"]
    until(lambda: set(listed(other)) == {runs[0], runs[2]})
    file = other.write("\n".join(lines), "runs.jsonl")
    assert other.json("run", "import", f"@{file}")["done"] == 1  # what is there already stays
    for run in runs:  # purged elsewhere or not, this is all that is left of them
        assert other.ask("run.show", id=run)["output"] == ["A"]
        assert other.json("run", "events", run)["events"][-1]["what"] == "ended"
