"""When did a trigger fire, and what came of it? The last firings of each are kept in FIRINGS, for a month at most.

How often it did is in COUNTS, where the server adds up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from knotwork.bus import patterns, publisher, reading, streams, subjects
from knotwork.bus.streams import NS, StreamSpec
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

log = logging.getLogger(__name__)
KEPT = 1000
AT_ONCE = 1000
STREAM = StreamSpec(
    subjects.FIRINGS, (patterns.FIRINGS,),
    {
        "max_msgs_per_subject": KEPT, "max_age": 30 * 86400 * NS, "discard": "old", "compression": "s2",
        "duplicate_window": 600 * NS,
    },
)  # fmt: skip
COUNTS = StreamSpec(
    subjects.COUNTS, (patterns.COUNTS,),
    {"allow_msg_counter": True, "max_msgs_per_subject": 1, "discard": "old", "duplicate_window": 600 * NS},
)  # fmt: skip
"""The server adds up: the last message of a subject is how often. (Counters: ADR-49 of the NATS architecture.)"""
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


class _Count(msgspec.Struct):
    val: str


_decoder = msgspec.json.Decoder(Fired)
_counted = msgspec.json.Decoder(_Count)


def _id(told: str) -> str:
    """Return what the server knows a message by when two nodes send the same."""
    return told[:256].replace(" ", "_")


class Firings:
    """What is known of the past of triggers."""

    def __init__(self, connection: Connection) -> None:
        """Keep it over `connection`."""
        self._connection = connection

    async def open(self) -> None:
        """Make the streams."""
        await streams.ensure(self._connection, STREAM)
        await streams.ensure(self._connection, COUNTS)

    async def add(self, trigger: str, fired: Fired, *, counts: bool = False) -> None:
        """Keep one, and count it; added twice (by two nodes) it is one. That it cannot be kept harms nobody."""
        if counts:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._count(trigger, fired.key))
                group.create_task(self._keep(trigger, fired))
        else:
            await self._keep(trigger, fired)

    async def _count(self, trigger: str, key: str) -> None:
        head = publisher.head(("Nats-Incr", "1"), publisher.once(_id(f"{trigger}/{key}")))
        try:
            await publisher.publish(self._connection, subjects.fired_count(trigger), b"", head=head)
        except KnotworkError as error:
            log.warning("a firing of %s is not counted: %s", trigger, error)

    async def counts(self, triggers: Sequence[str]) -> dict[str, int]:
        """Return how often each trigger started a run; those that did not are left out."""
        found: dict[str, int] = {}
        for begin in range(0, len(triggers), AT_ONCE):
            named = {subjects.fired_count(one): one for one in triggers[begin : begin + AT_ONCE]}
            for stored in await reading.each_last(self._connection, subjects.COUNTS, list(named)):
                with contextlib.suppress(msgspec.DecodeError, ValueError):
                    found[named[stored.subject]] = int(_counted.decode(stored.data).val)
        return found

    async def forget(self, trigger: str) -> None:
        """Begin to count anew, for another one of that name."""
        await reading.purge(self._connection, subjects.COUNTS, subjects.fired_count(trigger), 0)

    async def _keep(self, trigger: str, fired: Fired) -> None:
        head = publisher.head(publisher.once(_id(f"{trigger}/{fired.key}/{fired.what}")))
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
        async for stored in reading.every(self._connection, subjects.FIRINGS, subjects.firing(trigger)):
            with contextlib.suppress(msgspec.DecodeError):
                found.append(_decoder.decode(stored.data))
        return found[::-1][:limit]
