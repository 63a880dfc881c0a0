"""How does a message reach an agent of another project? It is stored in COMMONS, and a node of that project fetches it.

It is acknowledged when COMMONS has it on disk, and waits there until a node of the recipient's project has put it into
the inbox: from then on it is a message like any other. Its sender finds it here for a week.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from knotwork.bus import clock, patterns, publisher, reading, streams, subjects
from knotwork.bus.blobs import Blobs
from knotwork.sdk.errors import Conflict, Unavailable, Unreachable
from knotwork.talk import inbox_state, message
from knotwork.talk.stores import POST, POST_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.publisher import Ack
    from knotwork.talk.message import Said
    from knotwork.trust.who import Who


class Post:
    """What goes between projects. One for each node."""

    def __init__(self, commons: Callable[[], Connection | None]) -> None:
        """Use the connection to COMMONS, None where this node has none."""
        self._commons = commons
        self._opened: Connection | None = None
        self._blobs: Blobs | None = None
        self._copying = asyncio.Lock()
        """A value may have 64 MiB: one at a time is enough to hold."""

    async def connection(self) -> Connection:
        """Return the connection to COMMONS with the stream there; raises `Unavailable` (`message.no_post`)."""
        found = self._commons()
        if found is None:
            raise Unavailable(
                "This node has no access to COMMONS, which lies between projects.", code="message.no_post",
                hint="Give it credentials for that account: `nats.commons` in its configuration.",
            )  # fmt: skip
        if found is not self._opened:
            await streams.ensure(found, POST)
            self._opened, self._blobs = found, None
        return found

    def reopen(self) -> None:
        """Make sure of the stream before it is used again: NATS may have come back with another store of COMMONS."""
        self._opened = None

    async def lend(self, name: str, blobs: Blobs) -> None:
        """Keep a value of a project in COMMONS, for the message that tells of it; raises what `Blobs.copy` does."""
        async with self._copying:
            await (await self._lent()).copy(name, blobs)

    async def fetch(self, name: str, blobs: Blobs) -> None:
        """Keep in a project what was lent to it; raises what `Blobs.copy` does."""
        async with self._copying:
            await blobs.copy(name, await self._lent())

    async def _lent(self) -> Blobs:
        connection = await self.connection()
        if self._blobs is None:
            blobs = Blobs(connection)
            await blobs.open()
            self._blobs = blobs
        return self._blobs

    async def send(self, to: Who, payload: bytes, head: bytes) -> Ack:
        """Store a message for an agent of another project; returns when it is on disk.

        Raises `Unavailable` (`message.no_post`, `message.inbox_full`), and what storing raises.
        """
        subject = subjects.post(to.project, to.id)
        try:
            try:
                return await publisher.publish(await self.connection(), subject, payload, head=head)
            except Unreachable as error:
                if error.code != "bus.no_stream":
                    raise
                self.reopen()
                return await publisher.publish(await self.connection(), subject, payload, head=head)
        except Conflict as error:
            if error.code != "bus.exists":
                raise
        raise Unavailable(
            f"{to.name} got {POST_MAX} messages from other projects within a week: no more go there now.",
            code="message.inbox_full", hint="Wait some days, or write to another agent.", retry_after_s=3600.0,
            detail={"to": to.id},
        )  # fmt: skip

    async def get(self, place: int, who: Who) -> Said:
        """Return a message that somebody sent to another project or got from one; raises `NotFound`."""
        said = await self.find(place)
        if said is not None and not inbox_state.expired(said, clock.now_ns()):
            known = ((said.envelope.sender, said.envelope.project), (said.to, said.to_project))
            if (who.id, who.project) in known:
                return said
        raise message.unknown(message.name("post", place))

    async def find(self, place: int) -> Said | None:
        """Return the message at a place, None for nothing."""
        found = await reading.at(await self.connection(), subjects.POST, patterns.POST, place)
        return message.posted(found.subject, found.data, found.seq, found.time_ns) if found is not None else None
