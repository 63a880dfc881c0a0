"""Which ops are there: the one table that every door reads. A new op is a row in one of these rooms, nothing else.

A room is imported when the first of its ops is called: together they take a fifth of the time in which a node starts, and
most are never asked for. What a door must know of all ops beforehand it reads from `rows.py`, which is made from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from knotwork.ops import rows
from knotwork.ops.op import REGISTERED, Caller, CliForm, Effect, Example, Op, Reply, Request, op

ROOMS = (
    "node",
    "nodes",
    "agents",
    "sessions",
    "channels",
    "messages",
    "memory",
    "memory_care",
    "tasks",
    "task_changes",
    "dead",
    "blobs",
    "claims",
    "children",
    "workflows",
    "runs",
    "run_changes",
    "run_copies",
    "approvals",
    "crew",
    "crew_steering",
    "triggers",
    "tools",
    "targets",
    "project",
    "view",
    "config",
    "plugin",
)
"""Modules of this folder. Importing one puts its rows into the table."""
_WHERE: dict[str, str] = {row["name"]: row["module"] for row in rows.ROWS}


class Table(Mapping[str, Op]):
    """Every op by name. Looking one up imports its room alone; everything else imports all of them."""

    def __getitem__(self, name: str) -> Op:
        """Return an op; raises `KeyError`."""
        if name in _WHERE:  # also when it is registered: another thread may not have come to the end of its room yet
            _load(_WHERE[name])
        return REGISTERED[name] if name in REGISTERED else _all()[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names in the order of the rooms, whoever imported one of them first."""
        return iter(_all())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(_all())


@cache
def _load(room: str) -> str:
    """Import a room, whole, and return the name of its module."""
    return import_module(f"{__package__}.{room}").__name__


@cache
def _all() -> dict[str, Op]:
    rooms = [_load(room) for room in ROOMS]
    return {name: op for room in rooms for name, op in REGISTERED.items() if op.handler.__module__ == room}


TABLE = Table()

__all__ = ["ROOMS", "TABLE", "Caller", "CliForm", "Effect", "Example", "Op", "Reply", "Request", "op"]
