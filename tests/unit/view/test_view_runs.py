"""Runs of workflows as rows: from their facts and from the past, in any order, however often, whatever else stands there."""

from __future__ import annotations

import itertools
import json
import sqlite3
from typing import Any

import pytest

from knotwork.view import runs, schema
from knotwork.view.fold import Message


@pytest.fixture
def db():
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript(schema.TABLES)
    yield made
    made.close()


def fact(run: str, what: str, seq: int = 1, **body: Any) -> Message:
    return Message(f"run.w3.{run}.{what}", json.dumps(body).encode(), seq)


def history(run: str, seq: int, *facts: Message) -> Message:
    rows = [{"s": one.subject, "q": one.seq, "t": "2026-01-01T00:00:00Z", "d": json.loads(one.data)} for one in facts]
    return Message(f"history.{run}", json.dumps(rows).encode(), seq)


def listed(
    db: Any, workflow: str = "", states: tuple[str, ...] = (), limit: int = 100, **more: Any
) -> list[dict[str, Any]]:
    query, values = runs.listed(runs.Ended(workflow, states, **more), limit)
    return [runs.row(one) for one in db.execute(query, values)]


START = fact(
    "w0000001",
    "start",
    workflow="w",
    digest="d",
    by="me",
    labels={"a": "b"},
    started_ns=5,
    parent={"run": "wp", "step": "s"},
)
END = fact("w0000001", "ended", state="failed", error={"code": "x.y", "message": "no"}, ended_ns=9, next="")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_in_any_order_and_twice_it_is_the_same_row(db, order):
    parts = ([START], []), ([END], []), ([], [history("w0000001", 7, START, END)])
    for place in (*order, *order):
        runs.write(db, *parts[place])
    (only,) = listed(db)
    assert (only["id"], only["workflow"], only["state"], only["code"], only["message"]) == (
        "w0000001",
        "w",
        "failed",
        "x.y",
        "no",
    )
    assert (only["parent"], only["labels"], only["started_ns"], only["ended_ns"]) == ("wp/s", {"a": "b"}, 5, 9)
    assert db.execute("SELECT count(*), max(kept) FROM runs").fetchone() == (1, 7)


def test_filters_and_order(db):
    for number in range(20):
        run, name = f"w{number:07}", ("one", "two")[number % 2]
        runs.write(db, [fact(run, "start", workflow=name, started_ns=number)], [])
        if number < 15:
            runs.write(db, [fact(run, "ended", state=("completed", "failed")[number % 3 == 0], ended_ns=99)], [])
    assert [one["started_ns"] for one in listed(db, limit=3)] == [14, 13, 12]
    assert [one["started_ns"] for one in listed(db, "two", ("failed",))] == [9, 3]
    assert len(listed(db)) == 15
    assert db.execute("SELECT count(*) FROM runs WHERE state = 'running'").fetchone() == (5,)


def test_what_is_garbage_is_passed_over(db):
    bad = [
        Message("run.w3.w0000002.start", b"\xff", 1), Message("run.w3.w0000002.ended", b"[]", 1), Message("run.w3", b"{}", 1),
        Message("run.0a.t0000002.start", b"{}", 1), fact("w0000003", "start", workflow=7), fact("w0000003", "start"),
        fact("w0000003", "outcome", state="completed"), Message("run.w3.w0000004.start", b"[" * 100_000, 1),
    ]  # fmt: skip
    runs.write(db, bad, [Message("history.w0000005", b"{", 1), Message("history.w0000005", b'[{"s": 7}]', 2)])
    runs.write(db, [START, END], [])
    assert [one["id"] for one in listed(db)] == ["w0000001"]
    assert db.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_what_history_has_forgotten_is_forgotten(db):
    for number in range(1, 6):
        run = f"w{number:07}"
        start = fact(run, "start", workflow="w", started_ns=number)
        runs.write(db, [], [history(run, number, start, fact(run, "ended", state="completed", ended_ns=9))])
    runs.write(db, [fact("w9999999", "start", workflow="w", started_ns=9)], [])
    assert runs.forget(db, 4) == 3
    assert runs.forget(db, 4) == 0
    assert [one["started_ns"] for one in listed(db)] == [5, 4]
    assert db.execute("SELECT state FROM runs WHERE id = 'w9999999'").fetchone() == ("running",)


def test_labels_times_texts_and_going_on(db):
    for number in range(6):
        run = f"w{number:07}"
        start = fact(
            run,
            "start",
            workflow="w",
            by=f"Me{number}",
            labels={"c": str(number % 2), "a'b": "x"},
            started_ns=10 * (number // 2),
        )
        error = {"code": "x.y", "message": f"It broke at {number}"}
        runs.write(db, [start, fact(run, "ended", state="failed", error=error, ended_ns=99)], [])

    def ids(**more: Any) -> list[int]:
        return [int(one["id"][1:]) for one in listed(db, **more)]

    assert ids() == [5, 4, 3, 2, 1, 0]
    assert ids(labels={"c": "1"}) == [5, 3, 1]
    assert ids(labels={"c": "1", "a'b": "x"}) == [5, 3, 1]
    assert ids(labels={"c": "2"}) == []
    assert ids(since_ns=10, until_ns=20) == [3, 2]
    assert ids(text="BROKE at 4") == [4]
    assert ids(text="c=1") == [5, 3, 1]
    assert ids(text="me2") == [2]
    assert ids(text="%") == []
    assert ids(below=(10, "w0000003")) == [2, 1, 0]
    assert ids(below=(10, "w0000003"), labels={"c": "0"}, limit=1) == [2]
