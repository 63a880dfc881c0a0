"""Which tasks have not ended? Those in TASKS, and those that wait for their next attempt, page by page.

For whoever means many of them at once, such as a cancel by filter; a single one is found by `lookup`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from knotwork.bus import reading, subjects
from knotwork.sdk.errors import Invalid
from knotwork.work import records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.work.records import Task

PAGE = 500


async def tasks(connection: Connection, *, boundary: str = "", capability: str = "") -> AsyncIterator[Task]:
    """Yield the present attempt of each task that has not ended, or ended this very second; each run once.

    With a boundary or a capability the server picks them out; everything else is the caller's to look at.
    """
    seen: set[str] = set()
    pattern = f"task.{_part(boundary)}.{_part(capability)}.>"
    async for stored in _each(connection, subjects.TASKS, pattern):
        task = _task(stored)
        if task is not None and task.run not in seen:
            seen.add(task.run)
            yield task
    async for stored in _each(connection, subjects.FACTS, f"run.*.*.next.{records.STEP}.>"):
        task = _task(stored)
        fits = task is not None and boundary in ("", task.boundary) and capability in ("", task.capability)
        if task is not None and fits and task.run not in seen:
            seen.add(task.run)
            yield task


async def _each(connection: Connection, stream: str, pattern: str) -> AsyncIterator[Stored]:
    after = 0
    while page := await reading.batch(connection, stream, pattern, after + 1, PAGE):
        for stored in page:
            yield stored
        after = page[-1].seq


def _task(stored: Stored) -> Task | None:
    try:
        return records.decode_task(stored.data)
    except Invalid:
        return None


def _part(name: str) -> str:
    return subjects.token(name, "name") if name else "*"
