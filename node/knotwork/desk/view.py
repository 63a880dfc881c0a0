"""How does the view of the past look to those who ask about it? Its queries and its state, as the ops' replies."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from knotwork.ops.view_replies import Rebuilding, SqlReply, ViewStatus
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from pathlib import Path

    from knotwork.view.room import View

NEVER_S = -1.0


class ViewDesk:
    """One project's view (`ops.view_replies.PastView`)."""

    def __init__(self, view: View) -> None:
        """Answer from `view`."""
        self._view = view

    async def sql(self, query: str, *, limit: int, timeout_s: float) -> SqlReply:
        """Return what a query finds."""
        found = await self._view.sql(query, rows_max=limit, timeout_s=timeout_s)
        return SqlReply(
            columns=found.columns, rows=found.rows, truncated=found.truncated, took_s=round(found.took_s, 6)
        )

    async def status(self) -> ViewStatus:
        """Return how it stands."""
        view, told = self._view, self._view.told()
        try:
            tasks = sum((await view.counts((), fresh_s=0)).values())
        except KnotworkError:
            tasks = 0
        return ViewStatus(
            project=view.project,
            state=told.state,
            why=told.why,
            behind=told.behind,
            behind_s=round(view.behind().seconds, 3) if told.caught_up_ns else NEVER_S,
            folded=told.folded,
            garbage=told.garbage,
            made=told.made,
            places=told.places,
            tasks=tasks,
            file=str(view.path),
            size_bytes=await asyncio.to_thread(_size, view.path),
            pid=view.pid,
            starts=view.starts,
        )

    async def rebuild(self) -> Rebuilding:
        """Begin to read everything again."""
        self._view.rebuild()
        return Rebuilding(project=self._view.project)


def _size(path: Path) -> int:
    """Return the bytes of a database and of its log."""
    size = 0
    for one in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(OSError):
            size += one.stat().st_size
    return size
