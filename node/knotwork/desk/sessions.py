"""How do agents that came in get a session, and how are they shown? One project's sessions, as the ops' replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from knotwork.bus.away import leaves
from knotwork.desk.moments import rfc3339
from knotwork.mesh import session_records
from knotwork.mesh.session_records import AgentSession
from knotwork.ops import pages, replies, session_replies
from knotwork.trust.scopes import may_see

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.mesh.session_records import Presence
    from knotwork.mesh.sessions import Sessions
    from knotwork.ops.session_ports import Newcomer, SessionFilter
    from knotwork.trust.who import Who


class SessionDesk:
    """One project's sessions (`ops.session_ports.Sessions`)."""

    def __init__(self, sessions: Sessions, owner: Callable[[], str], node: str) -> None:
        """Let agents of `owner()` in at this node."""
        self._sessions, self._owner, self._node = sessions, owner, node

    async def open(self, newcomer: Newcomer, caller: Who) -> AsyncGenerator[replies.Chunk, None]:
        """Hold a session open until the generator is closed; yields what the agent is told.

        Raises `Unavailable` (`bus.disconnected`) when the node leaves the project.
        """
        project = self._sessions.project
        keys = self._sessions.parents
        parent = keys.parent(newcomer.parent) if newcomer.parent else ""
        wanted = AgentSession(
            session_records.identity(project, caller.owner, newcomer.host, newcomer.path, newcomer.label, parent),
            newcomer.type, project, caller.owner, self._node, "", newcomer.type, newcomer.description,
            newcomer.capabilities, newcomer.boundaries, host=newcomer.host, path=newcomer.path, label=newcomer.label,
            parent=parent, registered=bool(newcomer.capabilities), max_tasks=newcomer.max_tasks,
        )  # fmt: skip
        async with self._sessions.open(wanted, handle=newcomer.handle, take_over=newcomer.take_over) as line:
            record = line.record
            opened = {"event": "opened", "id": record.id, "handle": record.handle, "session": line.secret}
            told = {"project": project, "node": self._node, "parent_key": keys.of(record.id)}
            yield replies.Chunk(data=opened | told)
            while True:
                notice = await line.notices.get()
                if line.over == session_records.LEFT:
                    raise leaves(self._node, project)
                yield replies.Chunk(data=notice)
                if notice["event"] == "closed":
                    return

    async def update(self, who: Who, changes: dict[str, Any]) -> session_replies.SessionRow:
        """Change what an agent says of itself."""
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()
        }
        if "capabilities" in made:  # who says what it can wants to be found
            made.setdefault("registered", True)
        record = await self._sessions.update(who, made.pop("handle", ""), made)
        return self._row(record, self._sessions.presence(record), who)

    async def close(self, who: Who) -> None:
        """End an agent's session."""
        self._sessions.close(who)

    async def list(self, wanted: SessionFilter, by: Who) -> session_replies.SessionList:
        """Return a page of the agents that fit and may be seen; only those shown are written out."""
        offline = wanted.offline or wanted.status == "offline"
        found = [
            (record, presence)
            for record, presence in self._all(by)
            if (not wanted.capability or wanted.capability in record.capabilities)
            and (offline or presence != "offline")
            and wanted.status in ("", presence)
            and wanted.type in ("", record.type)
            and wanted.host in ("", record.host)
            and wanted.project in ("", record.project)
            and wanted.scope in ("", record.scope)
            and wanted.parent in ("", record.parent)
            and (record.registered or record.id == by.id)
            and may_see(record.scope, record, by)
        ]
        shown, following = pages.page(found, lambda one: one[0].handle, wanted.cursor, wanted.limit)
        rows = [self._row(record, presence, by) for record, presence in shown]
        return session_replies.SessionList(agents=rows, total=len(found), next=following)

    def _all(self, by: Who) -> Iterator[tuple[AgentSession, Presence]]:
        """Yield the agents of the project, then those of others that are seen from here, by the names they have here."""
        yield from self._sessions.all()
        if self._sessions.afar is not None:
            for record, presence in self._sessions.afar.seen_by(by):
                yield session_records.from_afar(record), presence

    async def get(self, name: str, by: Who) -> session_replies.SessionRow:
        """Return one agent; one that may not be seen is not found."""
        afar = self._sessions.afar
        far = afar.find(name, by) if afar is not None else None
        if afar is not None and far is not None:
            return self._row(session_records.from_afar(far), afar.presence(far), by)
        record = self._sessions.find(name.removesuffix(f"@{self._sessions.project}"))
        if not may_see(record.scope, record.who, by):
            raise session_records.unknown(name, self._sessions.project)
        row = self._row(record, self._sessions.presence(record), by)
        return row.model_copy(update={"parent_key": self._sessions.parents.of(record.id)}) if row.me else row

    @staticmethod
    def _row(record: AgentSession, presence: Presence, by: Who) -> session_replies.SessionRow:
        """Return what `by` may see of an agent."""
        near, same_owner = record.project == by.project, record.owner == by.owner
        return session_replies.SessionRow(
            id=record.id, handle=record.handle, type=record.type, status=presence, scope=record.scope,
            capabilities=list(record.capabilities), boundaries=list(record.boundaries),
            description=record.description, tasks=record.tasks, registered=record.registered,
            seen_at=rfc3339(record.seen_ns), registered_at=rfc3339(record.registered_ns) if near else "",
            project=record.project if near or same_owner or record.scope == "public" else "", owner=record.owner if same_owner else "",
            node=record.node if near else "", host=record.host if near or record.scope == "public" else "",
            path=record.path if same_owner else "", label=record.label if same_owner else "",
            parent=record.parent if near else "", me=record.id == by.id,
        )  # fmt: skip
