"""Which runs of workflows are there, and how did they end? Their starts and ends, from FACTS and HISTORY, as rows.

What a run is doing in between is folded from its facts by whoever looks after it; here it goes on until it has ended.
Others may write to the streams, too: what cannot be read is passed over.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from knotwork.bus import subjects
from knotwork.view.fold import Message

Row = dict[str, Any]
SHOWN = (
    "id", "workflow", "digest", "state", "submitter", "trigger", "parent", "first", "number", "next", "labels", "code",
    "message", "started_ns", "ended_ns",
)  # fmt: skip
SEARCHED = ("id", "workflow", "submitter", "trigger", "code", "message")
_IN_LABELS = "EXISTS (SELECT 1 FROM json_each(labels) AS l WHERE instr(lower(l.key || '=' || l.value), ?))"
LIMIT_MAX = 10_001
FORGET_BATCH = 5000
_PARTS = 4  # run.<shard>.<run>.<what>
_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Whole = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000_000_000)]


class _Parent(msgspec.Struct):
    run: _Text = ""
    step: _Text = ""


class _Start(msgspec.Struct):
    workflow: _Text
    digest: _Text = ""
    by: _Text = ""
    trigger: _Text = ""
    parent: _Parent | None = None
    first: _Text = ""
    number: _Whole = 0
    labels: dict[str, _Text] = {}
    started_ns: _Whole = 0


class _Finish(msgspec.Struct):
    state: _Text
    error: dict[str, Any] | None = None
    ended_ns: _Whole = 0
    next: _Text = ""


class _Kept(msgspec.Struct):
    s: str
    d: msgspec.Raw


_start, _finish = msgspec.json.Decoder(_Start), msgspec.json.Decoder(_Finish)
_history = msgspec.json.Decoder(list[_Kept])
_encode = msgspec.json.Encoder().encode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)
_START = """
INSERT INTO runs (id, workflow, digest, submitter, trigger, parent, first, number, labels, started_ns)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET workflow = excluded.workflow, digest = excluded.digest, submitter = excluded.submitter,
  trigger = excluded.trigger, parent = excluded.parent, first = excluded.first, number = excluded.number,
  labels = excluded.labels, started_ns = excluded.started_ns
"""
_END = """
INSERT INTO runs (id, state, code, message, ended_ns, next) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, code = excluded.code, message = excluded.message,
  ended_ns = excluded.ended_ns, next = excluded.next
"""


def write(db: sqlite3.Connection, facts: Iterable[Message], histories: Iterable[Message]) -> None:
    """Write what facts, and runs that were packed away, tell of runs; twice is as good as once."""
    kept, told = [], [*_told((one.subject, one.data) for one in facts)]
    for one in histories:
        with contextlib.suppress(*_BROKEN):
            rows = [(row.s, bytes(row.d)) for row in _history.decode(one.data)]
            told += _told(rows)
            kept.append((one.seq, one.subject.rpartition(".")[2]))
    db.executemany(_START, [row for is_end, row in told if not is_end])
    db.executemany(_END, [row for is_end, row in told if is_end])
    db.executemany("UPDATE runs SET kept = ? WHERE id = ?", kept)


def _told(facts: Iterable[tuple[str, bytes]]) -> Iterator[tuple[bool, tuple[Any, ...]]]:
    for subject, data in facts:
        parts = subject.split(".")
        if len(parts) != _PARTS or not parts[2].startswith(subjects.WORKFLOW) or parts[3] not in ("start", "ended"):
            continue
        with contextlib.suppress(*_BROKEN):
            yield (True, _ended(parts[2], data)) if parts[3] == "ended" else (False, _started(parts[2], data))


def _started(run: str, data: bytes) -> tuple[Any, ...]:
    one = _start.decode(data)
    parent = f"{one.parent.run}/{one.parent.step}" if one.parent is not None else ""
    return (
        run, one.workflow, one.digest, one.by, one.trigger, parent, one.first, one.number,
        _encode(one.labels).decode(), one.started_ns,
    )  # fmt: skip


def _ended(run: str, data: bytes) -> tuple[Any, ...]:
    one = _finish.decode(data)
    error = one.error or {}
    return (
        run,
        one.state,
        str(error.get("code", ""))[:256],
        str(error.get("message", ""))[:4096],
        one.ended_ns,
        one.next,
    )


def forget(db: sqlite3.Connection, history_first: int) -> int:
    """Remove runs that HISTORY has forgotten: those kept before its first place; returns how many, more may be left."""
    query = "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE kept > 0 AND kept < ? LIMIT ?)"
    return db.execute(query, (history_first, FORGET_BATCH)).rowcount


@dataclass(frozen=True, slots=True)
class Ended:
    """Which runs that ended; empty fields mean any. `below` is the start and id of the last one before, in the list."""

    workflow: str = ""
    states: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    since_ns: int = 0
    until_ns: int = 0
    text: str = ""
    below: tuple[int, str] | None = None


def listed(wanted: Ended, limit: int) -> tuple[str, tuple[Any, ...]]:
    """Return the query for the newest runs that ended and fit."""
    conditions, values = ["workflow <> ''", "ended_ns > 0"], list[Any]()
    for name, sign, value in (
        ("workflow", "=", wanted.workflow), ("started_ns", ">=", wanted.since_ns), ("started_ns", "<", wanted.until_ns)
    ):  # fmt: skip
        if value:
            conditions.append(f"{name} {sign} ?")
            values.append(value)
    if wanted.states:
        conditions.append(f"state IN ({', '.join('?' * len(wanted.states))})")
        values += wanted.states
    for key, value in wanted.labels.items():
        conditions.append("EXISTS (SELECT 1 FROM json_each(labels) AS l WHERE l.key = ? AND l.value = ?)")
        values += [key, value]
    if wanted.text:
        conditions.append(f"({' OR '.join(f'instr(lower({name}), ?)' for name in SEARCHED)} OR {_IN_LABELS})")
        values += [wanted.text.lower()] * (len(SEARCHED) + 1)
    if wanted.below is not None:
        conditions.append("(started_ns < ? OR (started_ns = ? AND id < ?))")
        values += [wanted.below[0], *wanted.below]
    where = " AND ".join(conditions)
    query = f"SELECT {', '.join(SHOWN)} FROM runs WHERE {where} ORDER BY started_ns DESC, id DESC LIMIT ?"  # noqa: S608  names of ours
    return query, (*values, max(1, min(limit, LIMIT_MAX)))


def row(found: Sequence[Any]) -> Row:
    """Return what such a query found, by names."""
    made = dict(zip(SHOWN, found, strict=True))
    return {**made, "labels": msgspec.json.decode(made["labels"])}
