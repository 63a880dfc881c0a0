"""Which tasks have not ended? Those in TASKS, and those that wait for their next attempt, page by page.

For whoever means many of them at once, such as a cancel by filter; a single one is found by `lookup`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from knotwork.bus import patterns, reading, subjects
from knotwork.sdk.errors import Invalid
from knotwork.work import records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.work.records import Task


async def tasks(connection: Connection, *, boundary: str = "", capability: str = "") -> AsyncIterator[Task]:
    """Yield the present attempt of each task that has not ended, or ended this very second; each run once.

    With a boundary or a capability the server picks them out; everything else is the caller's to look at.
    """
    seen: set[str] = set()
    async for stored in reading.every(connection, subjects.TASKS, patterns.tasks_for(boundary, capability)):
        task = _task(stored)
        if task is not None and task.run not in seen:
            seen.add(task.run)
            yield task
    async for stored in reading.every(connection, subjects.FACTS, patterns.NEXT):
        task = _task(stored)
        fits = task is not None and boundary in ("", task.boundary) and capability in ("", task.capability)
        if task is not None and fits and task.run not in seen:
            seen.add(task.run)
            yield task


def _task(stored: Stored) -> Task | None:
    try:
        return records.decode_task(stored.data)
    except Invalid:
        return None
