"""Which agents came in from outside, who are they, and how are they reached? The sessions of one project.

An agent's session is a line that it holds open at one node. Its record lies in the bucket AGENTS, written by that node
alone, and is kept in memory by every node, so that finding an agent costs no request. Its handle is a key of its own
beside it, which the server gives to one agent only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, codec, kv, subjects
from knotwork.bus.background import background
from knotwork.bus.waits import set_within
from knotwork.mesh import session_records as rules
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, Unavailable, Unreachable
from knotwork.trust.parents import ParentKeys, open_parent_keys
from knotwork.trust.scopes import may_see

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket, Entry
    from knotwork.bus.wire import Message
    from knotwork.mesh.afar import Afar
    from knotwork.mesh.directory import Directory
    from knotwork.mesh.session_records import AgentSession
    from knotwork.trust.who import Who

log = logging.getLogger(__name__)
RENEW_S = 600.0
"""How often the records of open sessions are written anew, so that the server does not forget them."""
NOTICES_MAX = 1000
OPEN_MAX = 10_000
READ_S = 30.0
_AGENT, _HANDLE = "agent.", "handle."


@dataclass(eq=False, slots=True)
class Line:
    """An open session: its secret, its agent, and what the agent is told. `over` says why it ended, "" while open."""

    secret: str = field(repr=False)
    record: AgentSession
    notices: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue(NOTICES_MAX))
    naming: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: str = ""

    def tell(self, notice: dict[str, Any]) -> None:
        """Tell the agent something; of an agent that does not listen the oldest is lost."""
        if self.notices.full():
            self.notices.get_nowait()
        self.notices.put_nowait(notice)


class Sessions:
    """The agents of one project that came in from outside. Made by `open_sessions`."""

    def __init__(
        self,
        connection: Connection,
        bucket: Bucket,
        directory: Directory,
        parents: ParentKeys,
        *,
        project: str,
        node: str,
        instance: str,
    ) -> None:
        """Know nobody yet; `parents` says whose sub-agent somebody is."""
        self._connection, self._bucket, self._directory = connection, bucket, directory
        self.project, self._node, self._instance, self.parents = project, node, instance, parents
        self._known: dict[str, AgentSession] = {}
        self._by_handle: dict[str, str] = {}
        self._lines: dict[str, Line] = {}
        self._by_secret: dict[str, Line] = {}
        self.current = asyncio.Event()
        self.changed: Callable[[Line], None] = lambda _line: None
        """Called when a session of this node was opened, is otherwise than before, or is over."""
        self.afar: Afar | None = None
        """Agents of other projects, and who tells of ours there; None where nothing is shared between projects."""

    # -- who is there ------------------------------------------------------------------------------------------------

    def all(self) -> Iterator[tuple[AgentSession, rules.Presence]]:
        """Yield every agent known with how it is now."""
        now_ns = clock.now_ns()
        for record in list(self._known.values()):
            yield record, self._presence(record, now_ns)

    def find(self, name: str) -> AgentSession:
        """Return the agent with this id or handle; raises `NotFound` (`agent.not_found`).

        Without one it is the agent that was called so before, when that can be one only: its messages bear that name.
        """
        found = self.known(name)
        before = [] if found is not None else [one for one in self._known.values() if name in one.formerly]
        if found is None and len(before) != 1:
            raise rules.unknown(name, self.project)
        return found or before[0]

    def known(self, name: str) -> AgentSession | None:
        """Return the agent with this id or handle, None when there is none."""
        return self._known.get(name) or self._known.get(self._by_handle.get(name, ""))

    def hides(self, handle: str, by: Who) -> bool:
        """Return whether there is an agent of this handle that somebody may not see."""
        record = self._known.get(self._by_handle.get(handle, ""))
        return record is not None and not may_see(record.scope, record.who, by)

    def names(self, record: AgentSession) -> tuple[str, ...]:
        """Return what an agent answers to: its handle, and those it had before that no other agent has now."""
        free = (one for one in record.formerly if one not in self._by_handle and not self._directory.runs(one))
        return (record.handle, *free)

    def presence(self, record: AgentSession) -> rules.Presence:
        """Return how an agent is now."""
        return self._presence(record, clock.now_ns())

    def _presence(self, record: AgentSession, now_ns: int) -> rules.Presence:
        if record.node == self._node:
            state, same = "online", record.id in self._lines
        else:
            state = self._directory.state(record.node)
            known = self._directory.record(record.node)
            same = known is not None and known.instance == record.instance
        return rules.presence(record, node=state, same_instance=same, now_ns=now_ns)

    def with_capability(self, capability: str) -> list[AgentSession]:
        """Return the registered agents that can do something and are not offline."""
        return [
            record
            for record, presence in self.all()
            if capability in record.capabilities and record.registered and presence != "offline"
        ]

    def asking(self, secret: str) -> Who:
        """Return whose session a secret belongs to; raises `Denied` (`session.unknown`)."""
        line = self._by_secret.get(secret)
        if line is None:
            raise Denied(
                "This session is not open at this node: it ended, or the node was restarted.", code="session.unknown",
                hint="Open a session again with session.open; the agent keeps its identity.",
            )  # fmt: skip
        return line.record.who

    # -- a session of this node --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, wanted: AgentSession, *, handle: str = "", take_over: bool = False) -> AsyncIterator[Line]:
        """Hold a session open inside the block. `wanted.handle` is what it is called when it never chose a name.

        Raises `Conflict` (`session.open`) when the same agent has a session already, unless it is to be taken over,
        `Conflict` (`session.handle_taken`) when somebody else has the handle asked for, and `NotFound`
        (`agent.not_found`) for a parent nobody knows.
        """
        await self._ready()
        self._check_parent(wanted)
        before, known = self._lines.get(wanted.id), self._known.get(wanted.id)
        elsewhere = known is not None and known.node != self._node and self.presence(known) in ("online", "busy")
        if (before is not None or elsewhere) and not take_over:
            raise Conflict(
                "This agent has an open session already.", code="session.open",
                hint="Give another label to be another agent, or take_over to end the other session.",
            )  # fmt: skip
        if len(self._lines) >= OPEN_MAX:
            raise Conflict(f"This node has {OPEN_MAX} open sessions already.", code="session.too_many")
        if before is not None:
            self._end(before, "taken over by another session of the same agent")
        elif elsewhere:
            self.tell(wanted.id, {"event": "closed", "why": "taken over by another session of the same agent"})
        line = Line(secrets.token_urlsafe(32), self._remembered(wanted, known))
        self._lines[wanted.id] = line
        self._by_secret[line.secret] = line
        listening = None
        try:
            await self._name(line, handle, wanted.handle, before=known.handle if known is not None else "")
            listening = await self._connection.listen(subjects.notice(wanted.id), lambda said: self._told(line, said))
            await self._write(line.record)  # behind it: whoever knows of the agent can tell it something
            self.changed(line)
            yield line
        finally:
            if listening is not None:
                self._connection.unlisten(listening)
            self._end(line, "it ended")
            if self._lines.get(wanted.id) is None and self._known.get(wanted.id) == line.record:
                with contextlib.suppress(KnotworkError):  # NATS is away: others see that our node does not know it
                    gone = msgspec.structs.replace(line.record, gone_ns=clock.now_ns(), tasks=0)
                    await self._write(gone)

    def _check_parent(self, wanted: AgentSession) -> None:
        parent = self.find(wanted.parent) if wanted.parent else None
        if parent is not None and parent.owner != wanted.owner:
            if not may_see(parent.scope, parent.who, wanted.who):
                raise rules.unknown(wanted.parent, self.project)
            raise Denied("An agent of somebody else cannot be the parent.", code="session.bad_parent")

    def _remembered(self, wanted: AgentSession, known: AgentSession | None) -> AgentSession:
        """Return the record of a session that begins: what the agent said of itself before still holds."""
        now_ns = clock.now_ns()
        made = msgspec.structs.replace(
            wanted, node=self._node, instance=self._instance, registered_ns=now_ns, seen_ns=now_ns
        )
        if known is None:
            return made
        return msgspec.structs.replace(
            made, handle=known.handle, registered=known.registered, registered_ns=known.registered_ns,
            capabilities=made.capabilities or known.capabilities, boundaries=made.boundaries or known.boundaries,
            scope=known.scope, description=made.description or known.description, formerly=known.formerly,
        )  # fmt: skip

    async def update(self, who: Who, handle: str, changes: dict[str, Any]) -> AgentSession:
        """Change what an agent of this node says of itself, and its handle unless that is "".

        Raises `Conflict` (`session.handle_taken`) and `Denied` (`session.unknown`).
        """
        line = self._lines.get(who.id)
        if line is not None and handle:
            await self._rename(line, handle)
        if line is None or line.over:
            raise Denied("Only an agent with an open session can be changed.", code="session.unknown",
                         hint="Open one with session.open, or `knotwork mcp`.")  # fmt: skip
        line.record = msgspec.structs.replace(line.record, **changes, seen_ns=clock.now_ns())
        await self._write(line.record)
        self.changed(line)
        return line.record

    def close(self, who: Who, why: str = "it was closed") -> None:
        """End an agent's session of this node, if it has one."""
        line = self._lines.get(who.id)
        if line is not None:
            self._end(line, why)

    def _end(self, line: Line, why: str) -> None:
        if line.over:
            return
        line.over = why
        line.tell({"event": "closed", "why": why})
        self._by_secret.pop(line.secret, None)
        if self._lines.get(line.record.id) is line:
            del self._lines[line.record.id]
            self.changed(line)

    # -- handles -----------------------------------------------------------------------------------------------------

    async def _name(self, line: Line, asked: str, otherwise: str, *, before: str) -> None:
        """Give an agent the handle it asks for; else the one it had `before`, or the first one like `otherwise`."""
        agent, handle = line.record.id, asked
        if asked:
            await self._take(asked, agent)
        elif before:
            with contextlib.suppress(Conflict):  # meanwhile somebody has a better right to it
                await self._take(before, agent)
                handle = before
        handle = handle or await self._first_free(otherwise, agent)
        had = msgspec.structs.replace(line.record, handle=before or handle)
        line.record = rules.renamed(had, handle)

    async def _first_free(self, like: str, agent: str) -> str:
        for name in rules.handles(like):
            if self._by_handle.get(name, agent) != agent:  # taken, as we know without asking
                continue
            with contextlib.suppress(Conflict):
                await self._take(name, agent)
                return name
        raise Conflict(f"Every name like {like} is taken.", code="session.handle_taken", hint="Choose a handle.")

    def _reserved(self, handle: str) -> bool:
        """Return whether a handle could be taken for a person, a node or what it runs, the id of an agent, or nobody."""
        owners = {one.owner for one, _, _ in self._directory.nodes()} | {one.owner for one in self._known.values()}
        taken = owners | set(self._directory.node_names())
        return rules.reserved(handle) or handle in taken or self._directory.runs(handle)

    async def _take(self, handle: str, agent: str) -> None:
        if self._reserved(handle):
            raise Conflict(
                f"The handle {handle} could be taken for a person, a node or its agents, the id of an agent or the system.",
                code="session.handle_taken", hint="Choose another one.",
            )  # fmt: skip
        key = _HANDLE + subjects.token(handle, "handle")
        try:
            await self._bucket.create(key, agent.encode(), ttl_s=rules.FORGET_S)
        except Conflict as error:
            entry = await self._bucket.get(key)
            if entry is not None and entry.value == agent.encode():
                return
            raise Conflict(
                f"The handle {handle} belongs to another agent.", code="session.handle_taken",
                hint="Choose another one; `knotwork session list` shows who has it, if you may see that.",
            ) from error  # fmt: skip

    async def _rename(self, line: Line, handle: str) -> None:
        async with line.naming:  # of two at once the later one would let go of the name that the other has just taken
            if handle == line.record.handle:
                return
            await self._take(handle, line.record.id)
            old, line.record = line.record.handle, rules.renamed(line.record, handle)
            entry = await self._bucket.get(_HANDLE + old)
            if not line.over and entry is not None and entry.value == line.record.id.encode():
                await self._bucket.delete(_HANDLE + old, ttl_s=60)

    # -- telling agents ----------------------------------------------------------------------------------------------

    def tell(self, agent: str, notice: dict[str, Any]) -> bool:
        """Tell an agent something over its open session, whatever node it is at; returns whether it seems to be there.

        A notice is a hint that something can be read, never the thing itself: it may get lost.
        """
        line = self._lines.get(agent)
        if line is not None:
            line.tell(notice)
            return True
        record = self._known.get(agent)
        if record is None or self.presence(record) not in ("online", "busy"):
            return False
        with contextlib.suppress(Unreachable):
            self._connection.send(subjects.notice(agent), codec.encode(notice))
        return True

    def _told(self, line: Line, message: Message) -> None:
        try:
            notice = codec.decode(message.data)
        except Invalid:
            return
        if not isinstance(notice, dict):
            return
        if notice.get("event") == "closed":
            self._end(line, str(notice.get("why", ""))[:256] or "it was closed")
        else:
            line.tell(notice)

    # -- the bucket --------------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        if not await set_within(self.current, READ_S):
            raise Unavailable(
                f"The agents of {self.project} are not known here yet.", code="session.not_ready", retry_after_s=1.0
            )

    async def _write(self, record: AgentSession) -> None:
        self._heard(record)
        if self.afar is not None:
            self.afar.tell(record)
        await self._bucket.put(_AGENT + record.id, rules.encode(record), ttl_s=rules.FORGET_S)

    def _heard(self, record: AgentSession) -> None:
        before = self._known.get(record.id)
        if before is not None and self._by_handle.get(before.handle) == record.id:
            del self._by_handle[before.handle]
        self._known[record.id] = record
        self._by_handle[record.handle] = record.id

    def entry(self, entry: Entry) -> None:
        """Take note of what the bucket says of an agent."""
        if not entry.key.startswith(_AGENT):
            return
        agent = entry.key.removeprefix(_AGENT)
        if agent in self._lines:
            return  # nobody knows better than we do
        if entry.value is None:
            gone = self._known.pop(agent, None)
            if gone is not None and self._by_handle.get(gone.handle) == agent:
                del self._by_handle[gone.handle]
            return
        try:
            self._heard(rules.decode(agent, entry.value))
        except Invalid as error:
            log.warning("%s", error)

    async def renew(self) -> None:
        """Keep the server from forgetting who is here; for ever."""
        while True:
            await asyncio.sleep(RENEW_S)
            for line in list(self._lines.values()):
                line.record = msgspec.structs.replace(line.record, seen_ns=clock.now_ns())
                with contextlib.suppress(KnotworkError):  # NATS is away: there is time until the next one
                    await self._write(line.record)
                    await self._bucket.put(_HANDLE + line.record.handle, line.record.id.encode(), ttl_s=rules.FORGET_S)


@asynccontextmanager
async def open_sessions(
    connection: Connection, directory: Directory, *, project: str, node: str, instance: str
) -> AsyncIterator[Sessions]:
    """Know the agents of a project inside the block."""
    bucket = await kv.open_bucket(connection, subjects.AGENTS)
    parents = await open_parent_keys(connection)
    sessions = Sessions(connection, bucket, directory, parents, project=project, node=node, instance=instance)
    async with background() as group:
        group.create_task(bucket.watch(sessions.entry, sessions.current.set), name=f"sessions {project}")
        group.create_task(sessions.renew(), name=f"sessions {project}, renewal")
        yield sessions
