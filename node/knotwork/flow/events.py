"""How does a run notice an event that it waits for? The owner of the run reads EVENTS and records the first that matches.

Nothing published while a run waits is missed: whoever takes a run over reads on from the moment when it began to wait.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.bus import codec, patterns, publisher, reading, streams, subjects
from knotwork.bus.pauses import comes_again
from knotwork.bus.streams import KEY_S, NS, StreamSpec
from knotwork.bus.waits import set_within
from knotwork.flow import expressions
from knotwork.flow.run import decoded
from knotwork.sdk.errors import Conflict, Invalid

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.bus.wire import Message
    from knotwork.flow.effects import WatchEvent

EVENTS = StreamSpec(
    subjects.EVENTS, (patterns.EVENTS,), {"max_age": 14 * 86400 * NS, "duplicate_window": KEY_S * NS}
)  # fmt: skip
BATCH = 500
LOOK_S = 1.0
Found = Callable[[bytes], Awaitable[None]]


@dataclass(eq=False, slots=True)
class _Watch:
    effect: WatchEvent
    found: Found
    place: int = 0
    """What was looked at, up to here; 0: nothing yet."""


class Events:
    """The events that runs of this node wait for."""

    def __init__(self, connection: Connection) -> None:
        """Read over `connection`."""
        self._connection = connection
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Make the stream and listen."""
        await streams.ensure(self._connection, EVENTS)
        await self._connection.listen(patterns.EVENTS, self._heard)

    async def publish(self, kind: str, body: bytes, key: str = "") -> tuple[int, bool]:
        """Publish an event durably; returns its place, and whether it is new: with a `key` it counts once within `KEY_S`.

        Raises what `publisher.publish` raises, and `Conflict` (`flow.key_reused`) for a key that another body was
        published with.
        """
        subject = subjects.event(kind)
        mark = hashlib.sha256(codec.encode([kind, key])).hexdigest()
        head = publisher.head(publisher.once(mark)) if key else b""
        ack = await publisher.publish(self._connection, subject, body, head=head)
        if ack.duplicate:
            stored = await reading.at(self._connection, subjects.EVENTS, subject, ack.seq)
            if stored is not None and stored.data != body:
                raise Conflict(
                    f"The key {key!r} was used for another event.", code="flow.key_reused", hint="Use a new key."
                )
        return ack.seq, not ack.duplicate

    def watch(self, run: str, effect: WatchEvent, found: Found) -> None:
        """Call `found(body)` with the first event that matches; until `forget`."""
        self._watches[run, effect.token] = _Watch(effect, found)
        self._news.set()

    def forget(self, run: str) -> None:
        """Wait no more for a run that is over, or somebody else's."""
        for key in [key for key in self._watches if key[0] == run]:
            del self._watches[key]

    async def run(self) -> None:
        """Look for events whenever one was heard, and every second for those that were not; for ever."""
        while True:
            await set_within(self._news, LOOK_S if self._watches else None)
            self._news.clear()
            kinds = {watch.effect.event for watch in self._watches.values()}
            for kind in kinds:
                with comes_again(f"reading events {kind}"):
                    await self._look(kind)

    def _heard(self, _: Message) -> None:
        if self._watches:
            self._news.set()

    async def _look(self, kind: str) -> None:
        watches = [(key, watch) for key, watch in self._watches.items() if watch.effect.event == kind]
        new = [watch for _, watch in watches if watch.place == 0]
        if new:
            since_ns = min(watch.effect.since_ns for watch in new)
            place = await reading.place_at(self._connection, subjects.EVENTS, subjects.event(kind), since_ns)
            for watch in new:
                watch.place = max(1, place)
        place = min((watch.place for _, watch in watches), default=0)
        while place and (
            found := await reading.batch(self._connection, subjects.EVENTS, subjects.event(kind), place, BATCH)
        ):
            for stored in found:
                for key, watch in watches:
                    if stored.seq >= watch.place and self._watches.get(key) is watch and _matches(watch.effect, stored):
                        await watch.found(stored.data)  # when that fails it is found again
                        if self._watches.get(key) is watch:
                            del self._watches[key]
            place = found[-1].seq + 1
        for _, watch in watches:
            watch.place = max(watch.place, place)


def _matches(effect: WatchEvent, stored: Stored) -> bool:
    if stored.time_ns < effect.since_ns:
        return False
    if effect.match is None:
        return True
    try:
        event = decoded(stored.data)
        return expressions.is_true(expressions.evaluate(effect.match, {**effect.context, "event": event}))
    except (Invalid, ValueError):
        return False  # it is no JSON, or has not what the expression looks at: not the one that is meant
