"""What does it mean for the node that an agent's session is here, or gone? It is in the directory, or its tasks are free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from knotwork.bus.background import begin_in
from knotwork.desk import claims
from knotwork.mesh.records import AgentRecord
from knotwork.mesh.session_records import LEFT
from knotwork.sdk.errors import Conflict

if TYPE_CHECKING:
    from knotwork.mesh.session_records import AgentSession
    from knotwork.mesh.sessions import Line, Sessions
    from knotwork.work.room import Work

AGAIN_S = 3.0
"""How long an agent whose session was lost may take to come back before its tasks go to others."""


class Attending:
    """Shows agents with a session in the directory, and takes their tasks back when they are gone."""

    def __init__(self, sessions: Sessions, work: Work, group: asyncio.TaskGroup) -> None:
        """Follow the sessions of this node; what waits runs in `group`."""
        self._sessions, self._work, self._group = sessions, work, group
        self._shown: dict[str, ExitStack] = {}
        sessions.changed = self.changed

    def changed(self, line: Line) -> None:
        """Show an agent as it is now, or no more."""
        shown = self._shown.pop(line.record.id, None)
        if shown is not None:
            shown.close()
        if line.over:
            begin_in(self._group, self._abandon(line.record))
        elif line.record.registered and line.record.status != "offline":
            stack = self._shown[line.record.id] = ExitStack()
            try:
                notices = stack.enter_context(
                    self._work.attached.line(_shown(line.record), self._sessions.names(line.record), line.record.id)
                )
            except Conflict:  # an executor of ours has that name: it can be found, but is given no work by name
                del self._shown[line.record.id]
                return
            task = begin_in(self._group, _tell(line, notices))
            if task is not None:
                stack.callback(task.cancel)

    def leave(self) -> None:
        """End every session of this node, which leaves the project: who holds one over HTTP would not hear of it."""
        for record, _ in self._sessions.all():
            self._sessions.close(record.who, LEFT)

    async def _abandon(self, record: AgentSession) -> None:
        await asyncio.sleep(AGAIN_S)
        known = self._sessions.known(record.id)  # None: it got no name, so its session never began
        if known is not None and self._sessions.presence(known) in ("stale", "offline"):
            self._work.claims.keeper.abandon(*self._sessions.names(known), agent=known.id)


async def _tell(line: Line, notices: AsyncGenerator[Any, None]) -> None:
    async for notice in notices:
        line.tell(claims.lost(notice.claim, notice.why))


def _shown(record: AgentSession) -> AgentRecord:
    """Return an agent as the directory shows it."""
    return AgentRecord(
        record.handle, record.capabilities, record.description, boundaries=record.boundaries, executor=record.type,
        concurrency=record.max_tasks, attached=True,
    )  # fmt: skip
