"""What the shell makes of tasks: two names for one command, one line for a change of state, an exit code for each end."""

from __future__ import annotations

import json
from types import SimpleNamespace

import click
import pytest

from knotwork.cli import after, app, large, show, verbs
from knotwork.cli.options import Shared
from knotwork.ops import form, rows
from knotwork.ops.task_replies import ENDED

OPS = {row.name: row for row in form.rows(rows.ROWS)}


def test_submit_has_a_short_name_too():
    tree = app.tree()
    context = click.Context(tree)
    short, group = tree.get_command(context, "submit"), tree.get_command(context, "task")
    assert [param.name for param in short.params] == [
        param.name for param in group.get_command(click.Context(group), "submit").params
    ]
    assert "submit" in tree.list_commands(context)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("completed", 0),
        ("failed", 1),
        ("dead", 1),
        ("cancelled", 1),
        ("timed-out", 75),
        ("running", 75),
        ("waiting", 75),
    ],
)
def test_each_end_has_its_exit_code(state, code):
    reply = {"id": "t0", "state": state}
    for op, request in (("task.await", {}), ("task.watch", {}), ("task.submit", {"wait": True})):
        if code:
            with pytest.raises(SystemExit) as ended:
                after.leave(op, request, reply)
            assert ended.value.code == code
        else:
            after.leave(op, request, reply)
    for op in ("task.submit", "task.get", "task.retry"):
        after.leave(op, {}, reply)
    assert set(after.ENDS) == ENDED


@pytest.mark.parametrize(("phase", "code"), [("complete", 0), ("failed", 1), ("cancelled", 1), ("execution", 75)])
def test_who_watches_an_orchestration_ends_as_that_did(phase, code):
    after.leave("crew.state", {}, {"phase": phase})
    if not code:
        after.leave("crew.watch", {}, {"phase": phase})
        return
    with pytest.raises(SystemExit) as ended:
        after.leave("crew.watch", {}, {"phase": phase})
    assert ended.value.code == code


@pytest.mark.parametrize("shape", ["table", "jsonl", "json"])
def test_what_could_not_be_done_to_runs_is_told_beside_the_reply_where_it_does_not_hold_it(capsys, shape):
    reply = {"runs": [{"id": "x", "code": "flow.bad_id", "why": "no id"}, {"id": "w1", "changed": True}], "next": "w9"}
    with pytest.raises(SystemExit) as ended:
        after.leave("run.cancel", {}, reply, shape)
    assert ended.value.code == 1
    told = "there are more: go on with --cursor w9\nerror: x no id\n"
    assert capsys.readouterr().err == ("" if shape == "json" else told)


@pytest.mark.parametrize("op", ["memory.remember_bulk", "memory.forget_bulk"])
def test_one_of_many_memories_that_failed_is_a_failure(op):
    after.leave(op, {}, {"failed": 0})
    with pytest.raises(SystemExit) as ended:
        after.leave(op, {}, {"failed": 1, "errors": [{}]})
    assert ended.value.code == 1


@pytest.mark.parametrize(
    ("shape", "quiet", "told"),
    [("table", False, True), ("jsonl", False, True), ("json", False, False), ("table", True, False)],
)
def test_that_there_is_more_behind_a_page_is_told_beside_it(capsys, shape, quiet, told):
    page = {"dead": [{"id": "t1", "code": "c"}], "next": "8", "total": 2}
    verbs._print(OPS["task.dead_list"], page, Shared(output=shape, quiet=quiet), "")
    out, err = capsys.readouterr()
    assert ("t1" in out, "--cursor 8" in err) == (True, told)
    verbs._print(OPS["task.dead_list"], page | {"next": ""}, Shared(output=shape, quiet=quiet), "")
    assert not capsys.readouterr().err


def test_a_reply_with_nothing_in_it_is_no_empty_line(capsys):
    verbs._print(OPS["targets.disable"], {"changed": [], "already": []}, Shared(), "")
    assert capsys.readouterr().out == "nothing\n"


def test_what_is_printed_is_the_output_alone(capsys):
    op = OPS["task.submit"]
    shared = Shared()
    assert verbs._answer(op, {"wait": True}) == "output"
    assert verbs._answer(op, {}) == "id"
    verbs._print(op, {"id": "t0", "state": "pending", "note": "nobody\x1b[31m"}, shared, "id")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("t0\n", "note: nobody\ufffd[31m\n")
    failed = {
        "id": "t0",
        "state": "failed",
        "output": None,
        "error": {"message": "oops", "code": "x.y", "hint": "mend"},
    }
    verbs._print(op, failed, shared, "output")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: oops\n  mend\n  (failed, x.y)\n")
    verbs._print(op, {**failed, "note": "nobody"}, Shared(quiet=True), "output")  # quiet is no reason to hide an error
    assert capsys.readouterr() == said
    verbs._print(op, {"id": "t0", "state": "completed", "output": {"a": 1}}, Shared(quiet=True), "output")
    assert json.loads(capsys.readouterr().out) == {"a": 1}


@pytest.mark.parametrize(
    ("piece", "line"),
    [
        ({"output": "text"}, "text"),
        ({"output": {"a": 1}}, '{\n  "a": 1\n}'),
        ({"missed": 3}, "(3 pieces were missed)"),
        ({"state": "pending", "what": "seen", "attempt": 1}, "pending  attempt 1"),
        (
            {"at": "12:00", "what": "waiting", "state": "waiting", "attempt": 2, "worker": "n/a", "due_at": "12:05", "code": "x.y"},
            "12:00  waiting  attempt 2  n/a  12:05  x.y",
        ),
    ],
)  # fmt: skip
def test_a_piece_of_a_watch_is_one_line(piece, line):
    assert show.happened(piece) == line


def test_small_inputs_travel_in_their_request():
    request = {"capability": "do", "input": "x" * 1000}
    assert large.send_ahead(OPS["task.submit"], request, Shared()) == request
    assert large.send_ahead(OPS["agents.invoke"], {"target": "a", "input": "y"}, Shared()) == {
        "target": "a",
        "input": "y",
    }
    reply = {"output_blob": "", "output": None}
    large.fetch(reply, Shared())
    assert reply == {"output_blob": "", "output": None}


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.live])
def test_every_piece_of_what_goes_on_is_shown(name, capsys):
    row = {key: f"<{key}>" for key in (*OPS[name].cli.columns, "event")}
    verbs._printer(OPS[name], Shared())(SimpleNamespace(kind="chunk", data=json.dumps({"data": row})))
    assert "<" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("piece", "line"),
    [
        ({"event": "phase", "phase": "execution", "percent": 33.3, "held": ""}, "execution  33 %"),
        ({"event": "phase", "phase": "execution", "percent": 0.0, "held": "budget"}, "execution  0 %  held: budget"),
        ({"event": "part", "part": "db", "state": "waiting", "agent": "", "node": "", "percent": 0.0, "text": "", "attempt": 0},
         "db  waiting"),
        ({"event": "part", "part": "db", "state": "running", "agent": "ann", "node": "n1", "percent": 50.0, "text": "half\x1b[31m",
          "attempt": 2}, "db  running  ann  n1  50 %  attempt 2  half�[31m"),
    ],
)  # fmt: skip
def test_what_moves_in_an_orchestration_is_one_line(piece, line):
    assert show.moved(piece) == line
