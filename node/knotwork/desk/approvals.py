"""What do links ask, and what becomes of the answer? The desk's side of the route /approve, for all projects of this node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from knotwork.bus.away import why_away
from knotwork.desk.moments import moment
from knotwork.flow import approvals
from knotwork.ops import flow_replies, serve
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.flow.approvals import Approvals, Link
    from knotwork.flow.room import Flow


class ApprovalDesk:
    """Every question that a link may be about (`ops.flow_ports.Approvals`)."""

    def __init__(self, rooms: Sequence[Flow]) -> None:
        """Look in these rooms, one of each project."""
        self._rooms = rooms

    async def question(self, link: str) -> flow_replies.Question:
        """Return what is asked."""
        room, found = await self._find(link)
        return _told(await room.question(found))

    async def answer(self, link: str, comment: str, *, approve: bool) -> flow_replies.Question:
        """Approve or reject."""
        room, found = await self._find(link)
        return _told(await room.answer(found, approve=approve, comment=comment))

    async def _find(self, link: str) -> tuple[Approvals, Link]:
        away: KnotworkError | None = None
        for flow in self._rooms:
            if (gone := why_away(flow.connection)) is not None:
                away = gone
            elif (found := await flow.approvals.read(link)) is not None:
                return flow.approvals, found
        raise serve.told(away) if away is not None else approvals.not_ours()


def _told(question: approvals.Question) -> flow_replies.Question:
    link = question.link
    return flow_replies.Question(
        run=link.run, workflow=question.sight.start.workflow, step=link.step, title=question.title, input=question.input,
        by=question.by or link.by, state=question.state, comment=question.comment, asked_at=moment(question.asked_ns),
        expires_at=moment(link.until_ns),
    )  # fmt: skip
