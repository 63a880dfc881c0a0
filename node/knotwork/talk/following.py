"""How does the index of channels keep up with the stream? Whoever reads brings it up to date first, and then reads.

So an answer holds everything that was stored before it was asked for, wherever it was sent. Those who ask at the same
time share one look at the stream; what is in the file costs no request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from knotwork.bus import clock, patterns, reading, streams, subjects
from knotwork.bus.background import background
from knotwork.bus.waits import set_within
from knotwork.sdk.errors import KnotworkError, Unavailable
from knotwork.talk.index import Index

if TYPE_CHECKING:
    from pathlib import Path

    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.talk.channel import Channel

log = logging.getLogger(__name__)
BATCH = 1000
FULL_BYTES = reading.BATCH_MAX_BYTES // 2
"""A batch of more bytes may have been cut there."""
TRIM_S = 2.0
"""After something was sent, so long until what is over the limits leaves the stream."""
LOOK_S = 60.0
"""Between two looks when nothing is sent from here: others may have sent, and messages grow old."""
CALM = 2000
"""Up to so many messages are sent between two such times when not very much is said."""
SLACK, SLACK_BYTES = 0.05, 0.25
"""By so much of its limits a channel may be over them in the stream; what is read is always within."""
TRIES = 3
T = TypeVar("T")


class Following:
    """The index of one project, and how far it is. Made by `open_following`."""

    def __init__(self, connection: Connection, index: Index, channels: Callable[[], Iterable[Channel]]) -> None:
        """Follow TALK; `channels` tells the limits that are in force."""
        self._connection, self._index, self._channels = connection, index, channels
        self._lock = asyncio.Lock()
        self._asked = self._answered = 0
        self._cut: dict[str, int] = {}
        self._sent: dict[str, tuple[int, int]] = {}
        self._looked_s = 0.0
        self._fresh, self._behind = 0, False
        self._some = asyncio.Event()

    async def ask(self, look: Callable[[Index], T]) -> T:
        """Return what `look` finds in the index, which holds all that was stored until now.

        Raises what the stream's reading raises, `Unavailable` (`talk.index_damaged`) when the file cannot be used.
        """
        self._asked += 1
        mine = self._asked
        async with self._lock:
            for _ in range(TRIES):
                made = self._index.made
                if self._answered < mine:
                    upto = self._asked
                    await self._catch_up()
                    self._answered = upto
                found = await asyncio.to_thread(self._look, look)
                if found is not None and self._index.made == made:
                    return found[0]
                self._answered = mine - 1  # it was damaged, and is empty now
                await self._begin()
        raise Unavailable("The index of channels is damaged again and again.", code="talk.index_damaged")

    def _look(self, look: Callable[[Index], T]) -> tuple[T] | None:
        def work() -> tuple[T]:
            self._cut |= self._index.trim(self._channels(), clock.now_ns())
            return (look(self._index),)

        return self._index.safely(work)

    async def _begin(self) -> None:
        info = await streams.api(self._connection, f"STREAM.INFO.{subjects.TALK}")
        await asyncio.to_thread(self._index.safely, lambda: self._index.belongs_to(str(info.get("created"))))

    async def _catch_up(self) -> None:
        made = self._index.made
        while True:
            place = self._index.place + 1
            found = await reading.batch(self._connection, subjects.TALK, patterns.CHANNELS, place, BATCH)
            if not found:
                return
            await asyncio.to_thread(self._index.safely, lambda batch=found: self._index.add(batch))
            if self._index.made != made or _at_the_end(found):
                return

    # -- what is over the limits -------------------------------------------------------------------------------------

    def sent(self, channel: str, size: int) -> None:
        """Take note that a message of so many bytes was sent to a channel from here."""
        count, before = self._sent.get(channel, (0, 0))
        self._sent[channel] = (count + 1, before + size)
        self._fresh += 1
        self._some.set()

    def changed(self) -> None:
        """Take note that the limits are different."""
        self._looked_s = 0.0
        self._some.set()

    async def run(self) -> None:
        """Keep the stream within the limits of its channels; for ever."""
        while True:
            await set_within(self._some, 0 if self._behind else LOOK_S)
            await asyncio.sleep(TRIM_S)
            self._some.clear()
            try:
                await self.trim()
            except KnotworkError as error:
                log.debug("channels are trimmed in a moment: %s", error)
                self._some.set()

    async def trim(self) -> None:
        """Take out of the stream what is over the limits of its channels.

        The server counts messages for us, which costs little; bytes and ages we find in the index. That is brought up to
        date for it, and so that who reads next need not wait for it; not while very much is said, unless it must be.
        """
        fresh, self._fresh = self._fresh, 0
        self._behind = fresh > CALM
        look = not self._behind or time.monotonic() - self._looked_s >= LOOK_S
        for channel in self._channels():
            count, size = self._sent.get(channel.name, (0, 0))
            if count > channel.max_messages * SLACK:
                subject = subjects.channel(channel.name)
                await reading.purge_but(self._connection, subjects.TALK, subject, channel.max_messages)
                self._sent[channel.name] = (0, size)
            look = look or size > channel.max_bytes * SLACK_BYTES
        if not look:
            return
        self._behind = False
        self._looked_s = time.monotonic()
        self._sent = {name: (count, 0) for name, (count, _) in self._sent.items()}
        await self.ask(lambda _index: None)
        for name, place in list(self._cut.items()):
            await reading.purge(self._connection, subjects.TALK, subjects.channel(name), place)
            if self._cut.get(name) == place:
                del self._cut[name]

    async def open(self) -> None:
        """Find out whether the index belongs to this stream."""
        await self._begin()

    async def close(self) -> None:
        """Close the file, when nobody reads it any more."""
        async with self._lock:
            await asyncio.to_thread(self._index.close)


def _at_the_end(found: list[Stored]) -> bool:
    """Return whether a batch was all there was."""
    return len(found) < BATCH and sum(len(one.data) for one in found) < FULL_BYTES


@asynccontextmanager
async def open_following(
    connection: Connection, path: Path, channels: Callable[[], Iterable[Channel]]
) -> AsyncIterator[Following]:
    """Follow what is said in channels inside the block; the index lies at `path`."""
    following = Following(connection, await asyncio.to_thread(Index, path), channels)
    try:
        await following.open()
        async with background() as group:
            group.create_task(following.run(), name="channels' limits")
            yield following
    finally:
        await following.close()
