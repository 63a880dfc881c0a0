"""How does the bridge stay with its node? One connection and one open session, made again whenever either is lost.

A node may be stopped and started under us: what was asked before it was lost is asked again where that does no harm. One
that was stopped on purpose is left alone until the agent asks for something.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Conflict, KnotworkError, Unavailable, Unreachable, from_wire

if TYPE_CHECKING:
    from knotwork.mcp.ways import Asker, Piece, Way

PATIENCE_S = 30.0
"""How long a call waits for a node that is away."""
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 2.0
TAKEN_OVER_S = 10.0
SESSION_S = 6 * 86400.0
_AGAIN = frozenset({"session.unknown", "bus.disconnected", "bus.closed", "bus.no_responders"})
"""Errors that say that nothing was done."""
STOPPED = "node.stopped"
"""The code by which `find` says that a node was stopped on purpose and nobody has asked for anything since."""
MAYBE = frozenset({"node.lost", "bus.lost"})
"""Errors that leave open whether it was."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Who comes in (`session.open`)."""

    host: str
    path: str
    label: str
    type: str = "agent"
    parent: str = ""

    def request(self) -> dict[str, Any]:
        """Return what the op is asked with; we hold the label's lock, so an open session under it is an old one."""
        told = {"host": self.host, "path": self.path, "label": self.label, "type": self.type, "take_over": True}
        return told | ({"parent": self.parent} if self.parent else {})


@dataclass(eq=False, slots=True)
class Up:
    """A session that is open: whom to ask, and as whom."""

    asker: Asker
    secret: str = field(repr=False)
    over: asyncio.Event
    handle: str = ""
    node: str = ""


class Link:
    """One lasting session with a node. `run` it beside whatever asks."""

    def __init__(
        self,
        find: Callable[[bool], Way],
        newcomer: Callable[[], Newcomer],
        on_notice: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        """Look for the node with `find`, which may block, and start one; it raises what stands in the way.

        `find(False)` does not start one that was stopped on purpose: it raises `Unreachable` (`STOPPED`).
        """
        self._find, self._newcomer, self._on_notice = find, newcomer, on_notice
        self._up: Up | None = None
        self._changed, self._asked = asyncio.Event(), asyncio.Event()
        self._met, self._askers = False, 0
        self.trouble: KnotworkError | None = None
        """Why there is no session now."""

    @property
    def handle(self) -> str:
        """Return the name we are known by, "" while there is no session."""
        return self._up.handle if self._up is not None else ""

    @property
    def stopped(self) -> bool:
        """Return whether the node was stopped on purpose, and is not started before somebody asks for something."""
        return self.trouble is not None and self.trouble.code == STOPPED

    # -- the life of it ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Find the node, open a session, and again, for ever."""
        pause_s = PAUSE_MIN_S
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                self._asked.clear()
                await self._attend(await asyncio.to_thread(self._find, not self._met or self._askers > 0))
            except KnotworkError as error:
                self._failed(error)
            steady = asyncio.get_running_loop().time() - began_s > PAUSE_MAX_S
            pause_s = PAUSE_MIN_S if steady else min(pause_s * 2, PAUSE_MAX_S)
            left_s = TAKEN_OVER_S if isinstance(self.trouble, Conflict) else pause_s
            if self.stopped:
                await set_within(self._asked, left_s)
            else:
                await asyncio.sleep(left_s)

    async def _attend(self, way: Way) -> None:
        """Hold a session open until it is over."""
        from knotwork.bus import codec  # a list of tools needs none of it

        request = codec.encode(self._newcomer().request())
        async with way() as asker:
            limit = asyncio.timeout(None)
            try:
                async with limit, aclosing(asker("session.open", request, timeout_s=SESSION_S)) as pieces:
                    async for piece in pieces:
                        self._heard(piece, asker, limit)
            except TimeoutError:
                if not limit.expired():
                    raise
            finally:
                self._lost(None)

    def _heard(self, piece: Piece, asker: Asker, limit: asyncio.Timeout) -> None:
        from knotwork.bus import codec  # loaded long ago

        if piece.kind == "error":
            raise from_wire(codec.decode(piece.data))
        if piece.kind != "chunk":
            return
        said = codec.decode(piece.data).get("data")
        match said.get("event"):
            case "opened":
                self._up = Up(asker, said["session"], _Ends(limit), said["handle"], said.get("node", ""))
                self.trouble, self._met = None, True
                self._tell()
            case "closed":
                raise Conflict(
                    f"This session was closed: {said.get('why', '')}.", code="mcp.session_closed",
                    hint="It is tried again. When that does not end, another machine of this name has the same folder: "
                    "give one of both a label with --session or KNOTWORK_SESSION.",
                )  # fmt: skip
            case _:
                self._on_notice(said)

    def _failed(self, error: KnotworkError) -> None:
        if error.code == STOPPED and self._askers:  # somebody asked while we looked
            return
        if self.trouble is None or self.trouble.message != error.message:
            print(f"knotwork mcp: {error}", file=sys.stderr, flush=True)  # noqa: T201  people read it in their client's log
        self.trouble = error
        self._tell()

    def _lost(self, up: Up | None) -> None:
        """Take note that a session is over: this one, or whatever there is."""
        if self._up is not None and (up is None or up is self._up):
            self._up.over.set()
            self._up = None
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- asking ------------------------------------------------------------------------------------------------------

    async def ask(
        self,
        op: str,
        fields: dict[str, Any] | Callable[[float], dict[str, Any]],
        *,
        timeout_s: float,
        on_piece: Callable[[dict[str, Any]], None] = lambda _: None,
        again: bool = True,
        patience_s: float = PATIENCE_S,
        waits_s: float = 0.0,
        traceparent: str = "",
        wakes: bool = True,
    ) -> dict[str, Any]:
        """Return the reply of an op, over restarts of the node; raises what it raises.

        Who may not ask `again` is told (`node.lost`) when it is unknown whether it was done. A call that `waits_s` at
        its own wish waits as long for a node that went away under it; `fields` may then be made anew for each asking,
        from how many seconds are gone. What is not asked for an agent `wakes` no node that was stopped on purpose.
        """
        from knotwork.bus import codec  # the same

        loop = asyncio.get_running_loop()
        began_s = loop.time()
        until_s = began_s + patience_s
        held = False
        while True:
            up = await self._wait_up(until_s, held=held, wakes=wakes)
            wakes = wakes and not waits_s  # a node that is stopped while a call only waits there stays so
            asked_s = loop.time()
            body = codec.encode(fields(asked_s - began_s) if callable(fields) else fields)
            try:
                return await self._once(up, op, body, timeout_s, on_piece, traceparent=traceparent)
            except KnotworkError as error:
                if not (error.code in _AGAIN or (again and error.code in MAYBE)):
                    raise
                held = held or error.code in MAYBE
                if loop.time() - asked_s > PAUSE_MAX_S:  # it was there for a while
                    until_s = loop.time() + patience_s
                until_s = max(until_s, began_s + waits_s)
                if loop.time() >= until_s:
                    raise
                self._lost(up)
                await asyncio.sleep(PAUSE_MIN_S)

    async def _wait_up(self, until_s: float, *, held: bool, wakes: bool) -> Up:
        """Return the open session; one that is just coming is waited for, and with `held` also one that is gone."""
        self._askers += wakes
        try:
            return await self._waited_up(until_s, held=held, wakes=wakes)
        finally:
            self._askers -= wakes

    async def _waited_up(self, until_s: float, *, held: bool, wakes: bool) -> Up:
        loop = asyncio.get_running_loop()
        while self._up is None:
            if wakes and self.stopped:
                self.trouble = None
                self._asked.set()
            if self.trouble is not None and not isinstance(self.trouble, Unavailable | Conflict):
                raise self.trouble
            if not held and isinstance(self.trouble, Unreachable) and self.trouble.code == "node.not_running":
                raise self.trouble
            in_time = await set_within(self._changed, max(0.0, until_s - loop.time()))
            if not in_time and self._up is None:
                raise self.trouble or Unreachable("The node does not answer.", code="node.unreachable")
        return self._up

    @staticmethod
    async def _once(
        up: Up,
        op: str,
        body: bytes,
        timeout_s: float,
        on_piece: Callable[[dict[str, Any]], None],
        *,
        traceparent: str,
    ) -> dict[str, Any]:
        from knotwork.bus import codec  # loaded long ago

        asked = up.asker(op, body, timeout_s=timeout_s, session=up.secret, at=up.node, traceparent=traceparent)
        async with aclosing(asked) as pieces:
            async for piece in pieces:
                value = codec.decode(piece.data)
                if piece.kind == "error":
                    raise from_wire(value)
                if piece.kind == "result":
                    reply: dict[str, Any] = value
                    return reply
                on_piece(value)
        raise Unreachable("The node went away before it answered.", code="node.lost")


class _Ends(asyncio.Event):
    """An event that ends the block of a time-out when it is set."""

    def __init__(self, limit: asyncio.Timeout) -> None:
        super().__init__()
        self._limit = limit

    def set(self) -> None:
        """Set it, and end the block."""
        if not self.is_set():
            super().set()
            with contextlib.suppress(RuntimeError):  # the block is over
                self._limit.reschedule(asyncio.get_running_loop().time())
