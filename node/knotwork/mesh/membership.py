"""What does this node do in one project? Presence, directory, calls out and calls in, over the project's connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.bus import frames, subjects
from knotwork.bus.connection import is_no_responders
from knotwork.mesh import micro, records, room
from knotwork.mesh.agent_protocol import AgentProtocol
from knotwork.mesh.calls import Calls
from knotwork.mesh.directory import Directory
from knotwork.mesh.micro import Micro
from knotwork.mesh.presence import Presence
from knotwork.sdk.errors import KnotworkError, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Kind
    from knotwork.bus.wire import Message
    from knotwork.mesh.hosting import HostedAgent, Hosting
    from knotwork.mesh.micro import Service
    from knotwork.mesh.records import NodeRecord
    from knotwork.sockets.slot import Slot
    from knotwork.telemetry.emitter import Emitter

log = logging.getLogger(__name__)
WATCH_EVERY_S = 1.0
UNHEARD_MAX = 6
"""Signs of life in a row, two in each keepalive, that nobody heard, after which a caller is gone: as patient as he is."""


class _Back:
    """The way back to a caller on the bus (`hosting.Answering`)."""

    __slots__ = ("_connection", "_gone", "_probe", "_reply")

    def __init__(self, connection: Connection, reply: str, gone: Callable[[], None] | None = None) -> None:
        """Answer to `reply`; `gone` is called when nobody has listened there for long."""
        self._connection, self._reply, self._gone = connection, reply, gone
        self._probe: _Probe | None = None

    def frame(self, kind: Kind, data: bytes) -> None:
        """Send a frame; a caller that is out of reach gets nothing.

        Raises `TooLarge`, and `Unreachable` for a frame that must be tried again (`room.comes_again`).
        """
        if not self._reply:
            return
        head = frames.HEADS.get(kind)
        if head is None:
            head = frames.error_head(frames.read_error(data))
        probe = ""
        if kind == "alive" and self._gone is not None:
            self._probe = self._probe or _Probe(self._connection)
            if self._probe.misses() >= UNHEARD_MAX:
                self._gone()
                return
            probe = self._probe.reply
        elif self._probe is not None and kind in frames.LAST:
            self._probe.close()
        try:
            self._connection.send(self._reply, data, probe, head)
        except Unreachable as error:
            if room.comes_again(error, kind):
                raise
            log.debug("an answer is lost: %s", error)


class _Probe:
    """Whether anybody listens to our signs of life: NATS itself answers a message that nobody gets."""

    __slots__ = ("_connection", "_misses", "_unheard", "reply")

    def __init__(self, connection: Connection) -> None:
        self._connection, self._misses, self._unheard = connection, 0, False
        self.reply = connection.open_reply(self._arrived)

    def misses(self) -> int:
        """Return how many signs in a row nobody heard; call it before each."""
        self._misses = self._misses + 1 if self._unheard else 0
        self._unheard = False
        return self._misses

    def close(self) -> None:
        """Ask no more."""
        self._connection.close_reply(self.reply)

    def _arrived(self, message: Message) -> None:
        self._unheard = self._unheard or is_no_responders(message)


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
    ) -> None:
        """Wire the parts; `record(project)` makes our record of this moment."""
        self.project = project
        self.connection = connection
        self._hosting = hosting
        self._record = record
        mine = record(project)
        self.here = mine.node
        self.directory = Directory(time.monotonic, mine.node)
        self.presence = Presence(connection, self.directory, lambda: record(project))
        self.calls = Calls(
            connection, self.directory, hosting, routers, emitter, here=mine.node, project=project
        )  # fmt: skip
        self._instance = mine.instance
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
                yield micro.of_agent(agent, self.here, self._instance)
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
        await self.connection.listen(subjects.agents_of(self.here), self._called, queue=self.here)
        await self.connection.listen(subjects.cancels_of(self.here), self._cancelled)
        await self.prompts.open()
        await self.micro.open()

    async def run(self) -> None:
        """Beat, listen and watch over calls until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.presence.run(), name=f"presence {self.project}")
            group.create_task(self.prompts.run(), name=f"prompts {self.project}")
            while True:
                self.calls.watch_over()
                await asyncio.sleep(WATCH_EVERY_S)

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
        self._hosting.cancel(self.project, message.subject.rpartition(".")[2])


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
