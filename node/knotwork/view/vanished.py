"""Which tasks that were begun are with nobody any more? A worker that dies writes nothing: so it is asked at each look.

Such a task waits for another worker and is shown so, as it is to whoever asks for it by its id.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from knotwork.view import evidence

if TYPE_CHECKING:
    from knotwork.view.lists import By, Filter

_HOLDERS = "SELECT node, claimed, min(at_ns) FROM traces WHERE started > released GROUP BY node, claimed"
_RUNNING = """SELECT t.ord, t.id, t.node, t.started_ns, r.claimed, t.capability, t.boundary, t.agent, t.target
  FROM traces r CROSS JOIN tasks t ON t.id = r.id
  WHERE t.state = 'running' AND (r.claimed OR r.node IN (SELECT value FROM json_each(?)))"""


class Begun(NamedTuple):
    """A task that is on record as running. `claimed`: by an agent that came in, which holds it by its claim."""

    ord: int
    id: str
    node: str
    started_ns: int
    claimed: int
    capability: str = ""
    boundary: str = ""
    agent: str = ""
    target: str = ""


Holds = Callable[[Begun], bool]
"""Whether whoever began a task still has it."""


def oldest(db: sqlite3.Connection) -> list[Begun]:
    """Return, without a task's name, what each node began first of what it may have, and so for what was claimed there."""
    return [Begun(0, "", node, at_ns, claimed) for node, claimed, at_ns in db.execute(_HOLDERS)]


def suspects(found: Sequence[Begun], holds: Holds) -> list[str] | None:
    """Return the nodes that may have vanished, of those that `oldest` found; None when all is well, nothing claimed."""
    nodes = [one.node for one in found if not one.claimed and not holds(one)]
    return nodes if nodes or any(one.claimed for one in found) else None


def begun(db: sqlite3.Connection, nodes: Sequence[str]) -> list[Begun]:
    """Return every task that is on record as running on these nodes, and those that were claimed on any."""
    return [Begun(*row) for row in db.execute(_RUNNING, (json.dumps(nodes),))]


def places(lost: Sequence[Begun]) -> str:
    """Return the `ord` of each as JSON, as `lists.page` wants it; "" for none."""
    return json.dumps([one.ord for one in lost]) if lost else ""


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of such a task as it is shown: it waits, as it was asked for."""
    node, agent = evidence.asked(row["target"])
    return {**row, "state": "pending", "started_ns": 0, "worker": "", "node": node, "agent": agent}


def recounted(
    counts: Mapping[tuple[str, ...], int], by: tuple[By, ...], wanted: Filter, lost: Sequence[Begun]
) -> dict[tuple[str, ...], int]:
    """Return counts in which such tasks are pending (pure); `wanted` is what narrows them."""
    found = Counter(counts)
    for one in lost:
        was = {"state": "running", "capability": one.capability, "boundary": one.boundary, "agent": one.agent}
        for change, row in ((-1, was), (1, {**was, "state": "pending", "agent": evidence.asked(one.target)[1]})):
            if _fits(row, wanted):
                found[tuple(row[name] for name in by)] += change
    return {key: max(count, 0) for key, count in sorted(found.items())}


def _fits(row: Mapping[str, str], wanted: Filter) -> bool:
    if wanted.states and row["state"] not in wanted.states:
        return False
    return all(getattr(wanted, name) in ("", row[name]) for name in ("capability", "boundary", "agent"))
