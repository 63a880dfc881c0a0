"""When did a trigger fire, and what came of it? The last firings of each are kept in FIRINGS, for a month at most."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from knotwork.bus import publisher, reading, streams, subjects
from knotwork.bus.streams import NS, StreamSpec
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

log = logging.getLogger(__name__)
KEPT = 1000
AT_ONCE = 1000
STREAM = StreamSpec(
    subjects.FIRINGS, ("firing.>",),
    {
        "max_msgs_per_subject": KEPT, "max_age": 30 * 86400 * NS, "discard": "old", "compression": "s2",
        "duplicate_window": 600 * NS,
    },
)  # fmt: skip
What = Literal["started", "skipped", "failed"]


class Fired(msgspec.Struct, frozen=True, omit_defaults=True):
    """One firing: what came of it, which run, on which node, and why nothing came of it. Times are nanoseconds."""

    key: str
    what: What
    at_ns: int
    due_ns: int = 0
    run: str = ""
    node: str = ""
    why: str = ""
    count: int = 1


_decoder = msgspec.json.Decoder(Fired)


class Firings:
    """What is known of the past of triggers."""

    def __init__(self, connection: Connection) -> None:
        """Keep it over `connection`."""
        self._connection = connection

    async def open(self) -> None:
        """Make the stream."""
        await streams.ensure(self._connection, STREAM)

    async def add(self, trigger: str, fired: Fired) -> None:
        """Keep one; added twice (by two nodes) it is one. That it cannot be kept harms nobody."""
        head = publisher.head(("Nats-Msg-Id", f"{trigger}/{fired.key}/{fired.what}"[:256].replace(" ", "_")))
        try:
            await publisher.publish(self._connection, subjects.firing(trigger), msgspec.json.encode(fired), head=head)
        except KnotworkError as error:
            log.warning("a firing of %s is not in its history: %s", trigger, error)

    async def newest(self, triggers: Sequence[str]) -> dict[str, int]:
        """Return when each trigger fired last, in nanoseconds since 1970; those that did not are left out."""
        found: dict[str, int] = {}
        for begin in range(0, len(triggers), AT_ONCE):
            named = {subjects.firing(one): one for one in triggers[begin : begin + AT_ONCE]}
            for stored in await reading.each_last(self._connection, subjects.FIRINGS, list(named)):
                with contextlib.suppress(msgspec.DecodeError):
                    found[named[stored.subject]] = _decoder.decode(stored.data).at_ns
        return found

    async def last(self, trigger: str, limit: int) -> list[Fired]:
        """Return the last firings, the newest first."""
        found: list[Fired] = []
        place = 1
        while batch := await reading.batch(self._connection, subjects.FIRINGS, subjects.firing(trigger), place, 500):
            for stored in batch:
                try:
                    found.append(_decoder.decode(stored.data))
                except msgspec.DecodeError:
                    continue
            place = batch[-1].seq + 1
        return found[::-1][:limit]
