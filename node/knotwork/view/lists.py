"""Which tasks are meant, and in which order do they come? Filters and cursors as SQL, newest first (pure).

A cursor names the last task of a page by its place in the order of submission, so it stays good whatever is added,
ends or is removed meanwhile; it also knows its filter, and is refused with another one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from knotwork.sdk.errors import Invalid
from knotwork.view import schema
from knotwork.view.fold import ORD_BITS, ORD_SPREAD

LIMIT_MAX = 10_000
TERMS_MAX = 16
ORD_MAX = 2**63 - 1
_CURSOR = re.compile(r"([0-9a-f]{12})([0-7][0-9a-f]{15})([0-7][0-9a-f]{15})([0-7][0-9a-f]{15})")
By = Literal["state", "capability", "boundary", "agent"]
SHOWN = tuple(name for name in schema.COLUMNS if name not in ("rank", "seq", "archived"))
"""The columns of a task that are handed out."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks; empty fields mean any. `states` are alternatives, `labels` must all be there.

    `since_ns` and `until_ns` bound the time of submission in nanoseconds since 1970, the second excluded. `text` are
    words that must all occur in id, capability, labels, error, or in an input or output of up to 4 KiB; a word that
    ends with `*` is the beginning of one. `node` and `agent` are who runs or ran it, else whom it was sent to. `moving`
    is how the bounds were given when they count from now, such as `2h`: all pages of a list have those of the first.
    """

    states: frozenset[str] = frozenset()
    capability: str = ""
    boundary: str = ""
    node: str = ""
    agent: str = ""
    parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    since_ns: int = 0
    until_ns: int = 0
    text: str = ""
    moving: tuple[str, str] = ("", "")
    priority_min: int = 1
    priority_max: int = 10
    circles: tuple[str, ...] | None = None
    """Of what is not the whole project's, only that of these circles (`trust.scopes`); None: all."""

    @property
    def digest(self) -> str:
        """Return what tells this filter from others."""
        parts = [
            sorted(self.states), self.capability, self.boundary, self.node, self.agent, self.parent,
            sorted(self.labels.items()), self.moving[0] or self.since_ns, self.moving[1] or self.until_ns, self.text,
            self.priority_min, self.priority_max,
        ]  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]


def page(wanted: Filter, below: int, limit: int, lost: str = "") -> tuple[str, list[Any]]:
    """Return the query of one page, and its values; the first column is the place. Raises `Invalid`.

    `lost` are the places of tasks that count as pending although they are on record as running (`vanished.places`).
    """
    if wanted.until_ns:  # one bound, since SQLite looks up by one
        below = min(below, (wanted.until_ns // 1000 + 1 << ORD_BITS) + ORD_SPREAD)
    tables, joins, values = "tasks t", [], list[Any]()
    if wanted.text:
        tables = "words w CROSS JOIN tasks t ON t.ord = w.rowid"
        joins.append("w.text MATCH ?")
        values.append(match(wanted.text))
        place = "w.rowid"
    elif wanted.labels:
        tables = "labels l CROSS JOIN tasks t ON t.ord = l.ord"
        name, value = next(iter(wanted.labels.items()))
        joins += ["l.name = ?", "l.value = ?"]
        values += [name, value]
        place = "l.ord"
    else:
        place = "t.ord"
    conditions, more = where(wanted, lost)
    text = " AND ".join([*joins, f"{place} < ?", *conditions])
    columns = ", ".join(f"t.{name}" for name in SHOWN)
    query = f"SELECT t.ord, {columns} FROM {tables} WHERE {text} ORDER BY {place} DESC LIMIT ?"  # noqa: S608  names of ours
    return query, [*values, below, *more, limit]


def where(wanted: Filter, lost: str = "") -> tuple[list[str], list[Any]]:
    """Return the conditions on a task `t`, and their values; `lost` is as for `page`."""
    conditions: list[str] = []
    values: list[Any] = []
    if wanted.states:
        splits = bool(lost) and ("running" in wanted.states) != ("pending" in wanted.states)
        states = sorted(wanted.states | {"running"} if splits else wanted.states)
        conditions.append(f"t.state IN ({', '.join('?' * len(states))})")
        values += states
        if splits:
            fits = "IN" if "pending" in wanted.states else "NOT IN"
            conditions.append(f"(t.state <> 'running' OR t.ord {fits} (SELECT value FROM json_each(?)))")  # noqa: S608  words of ours
            values.append(lost)
    for name, usual in (("capability", None), ("boundary", "none"), ("node", ""), ("agent", ""), ("parent", "")):
        if value := getattr(wanted, name):
            conditions.append(f"t.{name} = ?")
            values.append(value)
            if usual is not None and value != usual:  # said outright, so that the index without the usual can be used
                conditions.append(f"t.{name} <> '{usual}'")
    for name, value in wanted.labels.items():
        conditions.append("EXISTS (SELECT 1 FROM labels m WHERE m.name = ? AND m.value = ? AND m.ord = t.ord)")
        values += [name, value]
    if wanted.circles is not None:
        marks = ", ".join("?" * len(wanted.circles))
        own = "substr(t.target, 3, instr(substr(t.target, 3), '=') - 1)"
        conditions.append(f"(t.target NOT GLOB '==*' OR {own} IN ({marks}))")
        values += wanted.circles
    between, bounds = _between(wanted)
    return [*conditions, *between], [*values, *bounds]


def _between(wanted: Filter) -> tuple[list[str], list[Any]]:
    """Return the conditions that are a lower and an upper bound, and their values."""
    conditions: list[str] = []
    values: list[Any] = []
    if (wanted.priority_min, wanted.priority_max) != (1, 10):
        conditions.append("t.priority BETWEEN ? AND ?")
        values += [wanted.priority_min, wanted.priority_max]
    if wanted.since_ns:
        conditions.append("t.ord >= ? AND t.submitted_ns >= ?")
        values += [wanted.since_ns // 1000 << ORD_BITS, wanted.since_ns]
    if wanted.until_ns:
        conditions.append("t.submitted_ns < ?")
        values.append(wanted.until_ns)
    return conditions, values


def match(text: str) -> str:
    """Return words as a query of the index, in which nothing is an operator; raises `Invalid` for none or too many."""
    words = text.replace("\0", " ").split()
    if not words or len(words) > TERMS_MAX:
        raise Invalid(
            f"Search for 1 to {TERMS_MAX} words.",
            code="view.bad_search",
            hint="End a word with * to find its beginning.",
        )
    quoted = []
    for word in words:
        begins = word.endswith("*") and len(word) > 1
        clean = word.rstrip("*") if begins else word
        quoted.append('"' + clean.replace('"', '""') + '"' + ("*" if begins else ""))
    return " ".join(quoted)


def write_cursor(place: int, wanted: Filter) -> str:
    """Return the cursor behind a task."""
    numbers = (min(max(one, 0), ORD_MAX) for one in (place, wanted.since_ns, wanted.until_ns))
    text = wanted.digest + "".join(f"{one:016x}" for one in numbers)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, wanted: Filter) -> tuple[int, Filter]:
    """Return the place that a cursor names, and the filter with the bounds of the first page.

    Raises `Invalid` (`view.bad_cursor`, `view.other_filter`).
    """
    if not cursor:
        return ORD_MAX, wanted
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    named = _CURSOR.fullmatch(text)
    if named is None:
        raise Invalid(
            "This is no cursor of ours.", code="view.bad_cursor", hint="Use what the last page gave, or none to begin."
        )
    if named[1] != wanted.digest:
        raise Invalid(
            "This cursor belongs to a list with other filters.", code="view.other_filter",
            hint="Keep the filters while you turn pages, or begin without a cursor.",
        )  # fmt: skip
    return int(named[2], 16), replace(wanted, since_ns=int(named[3], 16), until_ns=int(named[4], 16))


def counts(by: tuple[By, ...], wanted: Filter) -> tuple[str, list[Any]]:
    """Return the query that counts tasks by some of the four; it can only be narrowed by the same four."""
    conditions, values = ["1"], list[Any]()
    if wanted.states:
        conditions.append(f"state IN ({', '.join('?' * len(wanted.states))})")
        values += sorted(wanted.states)
    for name in ("capability", "boundary", "agent"):
        if value := getattr(wanted, name):
            conditions.append(f"{name} = ?")
            values.append(value)
    columns = ", ".join(by)
    group = f" GROUP BY {columns} ORDER BY {columns}" if by else ""
    chosen = f"{columns}, " if by else ""
    text = " AND ".join(conditions)
    return f"SELECT {chosen}coalesce(sum(count), 0) FROM counters WHERE {text}{group}", values  # noqa: S608  names of ours
