"""Sessions for the doors' tests: they keep `ops.session_ports.Sessions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from knotwork.ops import replies, session_replies
from knotwork.ops.session_ports import Newcomer, SessionFilter
from knotwork.sdk.errors import NotFound
from knotwork.trust.who import Who

ROW = session_replies.SessionRow(
    id="00000000-0000-4000-8000-000000000001", handle="claude-code", type="claude-code", status="online",
    capabilities=["code"], boundaries=[],
)  # fmt: skip


class StandInSessions:
    """One agent called `claude-code`; a session is closed at once."""

    async def open(self, newcomer: Newcomer, _caller: Who) -> AsyncGenerator[replies.Chunk, None]:
        opened = {"id": ROW.id, "handle": newcomer.type, "session": "open-sesame", "parent_key": "kp1.YTE.c2VhbA"}
        yield replies.Chunk(data={"event": "opened", **opened})
        yield replies.Chunk(data={"event": "closed", "why": "it was closed"})

    async def update(self, _who: Who, changes: dict[str, Any]) -> session_replies.SessionRow:
        return ROW.model_copy(update=changes)

    async def close(self, who: Who) -> None:
        pass

    async def list(self, _wanted: SessionFilter, _by: Who) -> session_replies.SessionList:
        return session_replies.SessionList(agents=[ROW], total=1)

    async def get(self, name: str, _by: Who) -> session_replies.SessionRow:
        if name not in (ROW.id, ROW.handle):
            raise NotFound("nobody", code="agent.not_found")
        return ROW
