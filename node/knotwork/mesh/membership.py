"""What does this node do in one project? Presence, directory, calls out and calls in, over the project's connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.bus import frames, patterns, subjects
from knotwork.bus.way import Way
from knotwork.mesh import listening, micro, records, twins
from knotwork.mesh.agent_protocol import AgentProtocol
from knotwork.mesh.calls import Calls
from knotwork.mesh.directory import Directory
from knotwork.mesh.micro import Micro
from knotwork.mesh.policy import READY
from knotwork.mesh.presence import Presence
from knotwork.sdk.errors import KnotworkError, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Kind
    from knotwork.bus.wire import Message
    from knotwork.mesh.hosting import HostedAgent, Hosting
    from knotwork.mesh.micro import Service
    from knotwork.mesh.policy import Policy
    from knotwork.mesh.records import NodeRecord
    from knotwork.sockets.slot import Slot
    from knotwork.telemetry.emitter import Emitter

LISTENS_S = 0.5


class _Back:
    """The way back to a caller on the bus (`hosting.Answering`)."""

    __slots__ = ("_connection", "_reply", "_way")

    def __init__(self, connection: Connection, reply: str, gone: Callable[[], None] | None = None) -> None:
        """Answer to `reply`; `gone` is called when the caller listens there no more."""
        self._connection, self._reply = connection, reply
        self._way = Way(connection, reply, gone)

    def frame(self, kind: Kind, data: bytes) -> None:
        """Send a frame; a caller that is gone gets nothing.

        Raises `TooLarge`, and `Unreachable` for a frame that must be tried again.
        """
        if not self._reply:
            return
        if kind == "alive":
            self._way.sign()
        elif kind == "progress":
            with contextlib.suppress(Unreachable):  # only the newest counts, and another comes
                self._connection.send(self._reply, data, "", frames.HEADS[kind])
        else:
            self._way.send(data, frames.HEADS.get(kind) or _head(kind, data))
            if kind in frames.LAST:
                self._way.close()

    def close(self) -> None:
        """Give up: nothing more will be sent."""
        self._way.close()


def _head(kind: Kind, data: bytes) -> bytes:
    """Return the header block of a frame; a result has none, that of an error tells about it."""
    return frames.error_head(frames.read_error(data)) if kind == "error" else b""


class Membership:
    """This node in one project. Made by `join`."""

    def __init__(
        self,
        project: str,
        connection: Connection,
        hosting: Hosting,
        *,
        routers: Callable[[], Sequence[Slot]],
        emitter: Emitter,
        record: Callable[[str], NodeRecord],
        policy: Callable[[], Policy] = lambda: READY,
    ) -> None:
        """Wire the parts; `record(project)` makes our record of this moment, `policy()` is what holds now."""
        self.routers, self.policy = routers, policy
        self.project = project
        self.connection = connection
        self._hosting = hosting
        self._record = record
        mine = record(project)
        self.here = mine.node
        self._listening = listening.Listening(time.monotonic)
        self.directory = Directory(self._listening.now_s, mine.node)
        self.presence = Presence(connection, self.directory, lambda: record(project))
        self.calls = Calls(
            connection, self.directory, hosting, routers, emitter, here=mine.node, project=project, policy=policy,
            now_s=self._listening.now_s,
        )  # fmt: skip
        self.instance = mine.instance
        self.prompts = AgentProtocol(
            connection, hosting, self.agents, project=project, node=mine.node, instance=mine.instance
        )  # fmt: skip
        self.micro = Micro(connection, self.services, version=mine.version, started_ns=mine.started_ns)

    def agents(self) -> tuple[HostedAgent, ...]:
        """Return our agents that serve this project and may be called now."""
        return tuple(
            agent
            for agent in self._hosting.agents()
            if self.project in agent.projects and agent.slot.state == "running"
        )

    def services(self, name: str) -> Iterator[Service]:
        """Yield what plain NATS tools see of us: the services of this name, all for the empty one."""
        for agent in self.agents():
            if name in ("", agent.record.name):
                yield micro.of_agent(agent, self.here, self.instance)
        yield from self.prompts.services(name)

    def changed(self) -> None:
        """Take note that our agents or state changed: in our own directory at once, at the others' within a moment."""
        self.look()
        self.presence.changed()
        self.prompts.changed()

    def look(self) -> None:
        """Bring our own directory up to date about ourselves; others learn it with the next beat."""
        mine = self._record(self.project)
        self.directory.heard(mine.node, records.encode(mine))

    async def open(self) -> None:
        """Claim our name and listen for calls; raises `Conflict` when the name is taken."""
        await self.presence.open()
        self.changed()
        await self.connection.listen(patterns.agents_of(self.here), self._called, queue=self.here)
        await self.connection.listen(patterns.cancels_of(self.here), self._cancelled)
        await self.prompts.open()
        await self.micro.open()

    async def listens(self, node: str) -> bool:
        """Return whether a node listens for calls: one whose process is gone does not, long before it counts as stale.

        Whoever cannot be asked now counts as listening. Raises nothing that the bus raises.
        """
        try:
            await self.connection.request(subjects.cancel(node, twins.NO_CALL), timeout_s=LISTENS_S)
        except Unreachable as error:
            return error.code != "bus.no_responders"
        except KnotworkError:  # too busy to say so
            pass
        return True

    async def run(self) -> None:
        """Beat, listen and watch over calls until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.presence.run(), name=f"presence {self.project}")
            group.create_task(self.prompts.run(), name=f"prompts {self.project}")
            while True:
                self._listening.tick()
                self.calls.watch_over()
                await asyncio.sleep(listening.EVERY_S)

    def _called(self, message: Message) -> None:
        if message.reply and not subjects.may_answer(message.reply):
            return
        try:
            envelope = frames.read_envelope(message.headers)
        except KnotworkError as error:
            with contextlib.suppress(KnotworkError):  # no room for it
                _Back(self.connection, message.reply).frame("error", frames.error_body(error))
            return
        back = _Back(self.connection, message.reply, lambda: self._hosting.cancel(self.project, envelope.id))
        name = message.subject.rpartition(".")[2]
        self._hosting.arrive(self.project, name, message.data, envelope, back)

    def _cancelled(self, message: Message) -> None:
        call = message.subject.rpartition(".")[2]
        if call != twins.NO_CALL:
            self._hosting.cancel(self.project, call)
        elif message.reply and subjects.may_answer(message.reply):
            with contextlib.suppress(KnotworkError):
                self.connection.send(message.reply, self.instance.encode())


@asynccontextmanager
async def join(membership: Membership, *, ready_s: float = 2.0) -> AsyncIterator[Membership]:
    """Be a member inside the block; others are told when it is left."""
    await membership.open()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(membership.run(), name=f"membership {membership.project}")
        await membership.presence.ready(ready_s)
        try:
            yield membership
        finally:
            running.cancel()
            await membership.presence.goodbye()
