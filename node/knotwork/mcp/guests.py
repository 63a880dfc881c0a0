"""Who is behind a request to `/mcp`? An agent with a session of its own, opened at its first call and closed when it is silent.

A client is known by the label that it gives in the address (`/mcp?session=reviewer`). Without one it is known by its MCP
session when it began with a handshake, or else (2026-07-28) by its name. Who gives a label is that agent at every node;
who gives none is an agent of this node.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec
from knotwork.bus.background import begin_in
from knotwork.bus.waits import set_within
from knotwork.mcp import labels
from knotwork.mcp.calling import OpSession
from knotwork.mcp.held import Held
from knotwork.mcp.keeping import Keeping
from knotwork.ops import serve
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Busy, KnotworkError, Unavailable, from_wire

if TYPE_CHECKING:
    from knotwork.ops.ports import NodeControl

IDLE_S = 30 * 60.0
"""How long an agent may be silent before its session is closed; it comes back as itself."""
KEEP_S = 300.0
"""How long what it claimed is kept for it while it is silent."""
OPEN_S = 30.0
GUESTS_MAX = 1000
SESSIONS_MAX = 64
"""MCP sessions that are remembered of one agent: most clients that end say nothing."""
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class Door:
    """How a client came in: the project, what it calls itself, what tells its agents apart, the label it gave or "".

    `session` is its MCP session, "" for a client without a handshake; `parent` the parent key of the agent that started
    it, "" for none.
    """

    project: str
    client: str
    key: str = field(repr=False)
    label: str = ""
    session: str = ""
    parent: str = field(default="", repr=False)


@dataclass(eq=False)
class Guest:
    """One agent behind HTTP."""

    door: Door
    label: str
    keeping: Keeping
    secret: str = field(default="", repr=False)
    """What asks as it, "" while it has no session."""
    more: tuple[str, ...] = ()
    """Toolsets that it asked for with the tool `toolsets`, beside those of its address."""
    trouble: KnotworkError | None = None
    heard_s: float = 0.0
    sessions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The MCP sessions that it is heard of, the last one last: several clients may give one label. Each with what its
    client was told of `more`, which another client may have asked for."""
    inside: int = 0
    """Requests that are being answered."""
    task: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_here(self) -> bool:
        """Return whether it has a session, or is being answered."""
        return self.inside > 0 or (self.task is not None and not self.task.done())

    def heard(self, session: str, now_s: float) -> None:
        """Take note of a request in one of its MCP sessions; the one unheard of for longest goes when they are many."""
        self.heard_s = now_s
        self.sessions[session] = self.sessions.pop(session, ())
        if len(self.sessions) > SESSIONS_MAX:
            del self.sessions[next(iter(self.sessions))]

    def is_news(self, session: str) -> bool:
        """Return whether the client of a session is to be told that more is listed; from now on it was told."""
        if self.sessions.get(session, self.more) == self.more:  # one that said goodbye meanwhile is told nothing
            return False
        self.sessions[session] = self.more
        return True


class Guests:
    """Every agent that came in by HTTP, with the session that is held open for it."""

    def __init__(self, node: NodeControl, held: Held, group: asyncio.TaskGroup) -> None:
        """Hold sessions of `node` open in tasks of `group`."""
        self._node, self._held, self._group = node, held, group
        self._guests: dict[tuple[str, str], Guest] = {}

    def known(self, door: Door) -> Guest | None:
        """Return the agent behind a request, None when it has asked for nothing yet: who only looks round is no agent."""
        return self._guests.get((door.project, door.key))

    def of(self, door: Door) -> Guest:
        """Return the agent behind a request, a new one if need be; raises `Busy` (`mcp.too_many`)."""
        key = (door.project, door.key)
        guest = self._guests.get(key)
        if guest is None:
            self._guests = {name: one for name, one in self._guests.items() if one.is_here}
            if len(self._guests) >= GUESTS_MAX and not self._let_one_go():
                raise Busy(f"{GUESTS_MAX} agents are here over HTTP already.", code="mcp.too_many", retry_after_s=60.0)
            guest = self._guests[key] = self._made(door)
        guest.heard(door.session, asyncio.get_running_loop().time())
        return guest

    def _made(self, door: Door) -> Guest:
        async def extend(work_id: str, claim: str, lease_s: float) -> None:
            if asyncio.get_running_loop().time() - guest.heard_s < KEEP_S or guest.inside:
                asking = OpSession(self.caller(guest), self._node, self._held)
                await asking.ask("work.extend", claim=claim, id=work_id, lease_s=lease_s)

        guest = Guest(door, door.label or self._free_label(door), Keeping(extend))
        return guest

    def _free_label(self, door: Door) -> str:
        """Return the first number that no other agent of the same client has in this project."""
        name = labels.token_of(door.client)
        others = (guest for guest in self._guests.values() if guest.door.project == door.project)
        taken = {guest.label for guest in others if labels.token_of(guest.door.client) == name}
        return next(str(number) for number in range(1, GUESTS_MAX + 2) if str(number) not in taken)

    def opener(self, project: str) -> Caller:
        """Return as whom sessions are opened: whoever holds the node's token."""
        return Caller("http", project, "mcp", "write", who=self._node.who(project, ""))

    def caller(self, guest: Guest) -> Caller:
        """Return as whom an agent asks; raises `Unavailable` while it has no session, `Denied` when it was just ended."""
        if not guest.secret:
            raise guest.trouble or Unavailable("This session is just being opened.", code="mcp.no_session")
        who = self._node.who(guest.door.project, guest.secret)  # each time: it may be called otherwise by now
        return Caller("http", guest.door.project, "mcp", "write", label=guest.door.client, who=who)

    async def caller_of(self, guest: Guest) -> Caller:
        """Return as whom an agent asks, after opening its session; raises what stands in the way."""
        if guest.task is None or guest.task.done():
            guest.ready.clear()
            guest.task = begin_in(self._group, self._attend(guest))
        await set_within(guest.ready, OPEN_S)  # else what is said is what is said without a session
        return self.caller(guest)

    async def _attend(self, guest: Guest) -> None:
        """Hold a session open until the agent was silent for long."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(self._session(guest)), group.create_task(guest.keeping.run())]
            while not work[0].done() and (guest.inside or loop.time() - guest.heard_s < IDLE_S):
                await asyncio.wait(work[:1], timeout=_LOOK_S)
            for task in work:
                task.cancel()
        guest.secret = ""
        if self._guests.get((guest.door.project, guest.door.key)) is guest and not guest.inside:
            del self._guests[guest.door.project, guest.door.key]

    async def _session(self, guest: Guest) -> None:
        name = labels.token_of(guest.door.client) or "agent"
        opener = self.opener(guest.door.project)
        place = f"/mcp/{name}" if guest.door.label else f"/mcp/{name} at {opener.who.node}"
        fields = {"host": "http", "path": place, "label": guest.label, "type": name, "take_over": True}
        fields |= {"parent": guest.door.parent} if guest.door.parent else {}
        try:
            async with aclosing(serve.dispatch("session.open", codec.encode(fields), opener, self._node)) as frames:
                async for frame in frames:
                    value: Any = codec.decode(frame.data)
                    if frame.kind == "error":
                        raise from_wire(value)
                    if frame.kind == "chunk" and value["data"].get("event") == "opened":
                        guest.secret = value["data"]["session"]
                        guest.trouble = None
                        guest.ready.set()
                    elif frame.kind == "chunk" and value["data"].get("event") == "lost":
                        guest.keeping.lost(value["data"])
        except KnotworkError as error:
            guest.trouble = error
        finally:
            guest.secret = ""
            guest.ready.set()

    def left(self, session: str) -> None:
        """Close what a client had that said goodbye, in whatever project, unless other clients are that agent, too."""
        for guest in [one for one in self._guests.values() if session in one.sessions]:
            del guest.sessions[session]
            if not guest.sessions:
                self._close(guest)

    def _let_one_go(self) -> bool:
        """Close the session of who was silent for longest, when nothing is kept for him any more; return whether there is one."""
        now_s = asyncio.get_running_loop().time()
        silent = [one for one in self._guests.values() if not one.inside and now_s - one.heard_s > KEEP_S]
        if silent:
            self._close(min(silent, key=lambda one: one.heard_s))
        return bool(silent)

    def _close(self, guest: Guest) -> None:
        del self._guests[guest.door.project, guest.door.key]
        if guest.task is not None:
            guest.task.cancel()
