"""What is left of a run that is over? All its facts, together, in HISTORY; FACTS forgets them a little later.

The owner of the run does it: one message for a run, and one purge for many. Doing it twice stores the same again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from knotwork.bus import reading, streams, subjects
from knotwork.bus.streams import NS, StreamSpec
from knotwork.flow import facts
from knotwork.sdk.errors import Invalid, KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored

log = logging.getLogger(__name__)
MONTH_S = 30 * 86400.0
KEEP_S = 5.0
"""How long the facts of a run that is over stay where they are."""
EVERY_S = 0.5
AT_ONCE = 200
LATE_S = 2.0
LATE_AT_ONCE = 20
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Keeps:
    """How long runs that are over are kept, in seconds, and in how many bytes all together; 0: in any number."""

    age_s: float = MONTH_S
    max_bytes: int = 0


def stream(keeps: Keeps) -> StreamSpec:
    """Return the stream of the past: the oldest go first (pure)."""
    bounds = {"max_age": int(keeps.age_s * NS), "max_bytes": keeps.max_bytes or -1, "discard": "old"}
    settings = {"max_msgs_per_subject": 1, "compression": "s2", "allow_atomic": True, **bounds}
    return StreamSpec(subjects.HISTORY, ("history.>",), settings)


class Kept(msgspec.Struct, frozen=True):
    """One fact of a run that is over: its subject and place, when it was stored (RFC 3339), and what it says."""

    s: str
    q: int
    t: str
    d: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(list[Kept])


@dataclass(eq=False, slots=True)
class Over:
    """A run that is over: where its first and last fact stand, and all of them, unless they are too many to hold."""

    id: str
    first: int
    last: int
    found: list[Stored]
    timed: bool = False
    """Timers are left of it."""
    ended_s: float = 0.0
    kept_s: float = 0.0
    """When it was put into HISTORY; 0: it was not yet."""


class LooksAfter(Protocol):
    """Who looks after the runs of some shards."""

    def floor(self, name: str) -> int:
        """Return up to which place of a shard nothing is of a run that is not over; 0 when that is not known."""

    async def missed(self, name: str) -> bool:
        """Return whether there may be runs in a shard of which nobody was told."""


class Historian:
    """Keeps the past of the runs that this node looked after."""

    def __init__(
        self,
        connection: Connection,
        writing: GroupCommit,
        looking_after: LooksAfter,
        over: dict[str, Over],
        keeps: Callable[[], Keeps] = Keeps,
    ) -> None:
        """Write through `writing`; `over` are the runs that ended, put there by who is `looking_after` them.

        `keeps()` says how much is kept; it may change while we run.
        """
        self._connection, self._writing, self._engine, self._over = connection, writing, looking_after, over
        self._keeps, self._kept = keeps, Keeps()
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Make the stream, or have it keep what is wanted now."""
        wanted = self._keeps()
        await streams.ensure(self._connection, stream(wanted))
        self._kept = wanted

    async def run(self) -> None:
        """Keep what is over, and have FACTS forget it, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                if self._keeps() != self._kept:
                    await self.open()
                await self._keep_due()
                await self._forget()
            except KnotworkError as error:
                log.debug("the past is kept in a moment: %s", error)

    async def _keep_due(self) -> None:
        now_s = self._loop.time()
        due = [over for over in self._over.values() if not over.kept_s and over.ended_s + KEEP_S <= now_s]
        for start in range(0, len(due), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for over in due[start : start + AT_ONCE]:
                    group.create_task(self._keep(over))

    async def _keep(self, over: Over) -> None:
        """Put one run into HISTORY; what fails is tried in the next round."""
        try:
            found = over.found if is_whole(over.found) else await all_facts(self._connection, over.id)
            if found and (is_whole(found) or not await is_kept(self._connection, over.id)):
                await self._writing.append(subjects.history(over.id), packed(found))
            if found:
                over.last = found[-1].seq
            if over.timed:
                await reading.purge(self._connection, subjects.TIMERS, f"timer.{facts.shard(over.id)}.{over.id}.>", 0)
        except KnotworkError as error:
            log.debug("run %s is kept later: %s", over.id, error)
            return
        over.found, over.kept_s = [], self._loop.time()

    async def _forget(self) -> None:
        """Remove what is kept from FACTS: of a shard all below the first run that goes on, in one step.

        Ended runs above it, because a long one goes on, are removed one by one, and not many at a time: that costs the
        server some milliseconds each.
        """
        late = []
        for name, (floor, runs) in self._floors().items():
            below = [over for over in runs if over.last < floor]
            if below and not await self._engine.missed(name):
                await reading.purge(self._connection, subjects.FACTS, f"run.{name}.>", floor)
                for over in below:
                    del self._over[over.id]
            late += [over for over in runs if over.last >= floor and self._loop.time() - over.kept_s > LATE_S]
        for over in late[:LATE_AT_ONCE]:
            await reading.purge(self._connection, subjects.FACTS, f"{facts.subject(over.id)}.>", over.last + 1)
            del self._over[over.id]

    def _floors(self) -> dict[str, tuple[int, list[Over]]]:
        """Return what is kept of each shard, and up to which place nothing of it goes on or is not in HISTORY yet.

        All in one step, with nothing awaited between: a run that ended meanwhile would have left those that go on, and
        not be among those that are over, and its facts would be purged before anything else holds them.
        """
        kept: dict[str, list[Over]] = {}
        ended: dict[str, int] = {}
        for over in self._over.values():
            name = facts.shard(over.id)
            if over.kept_s:
                kept.setdefault(name, []).append(over)
            else:
                ended[name] = min(ended.get(name, over.first), over.first)
        return {name: (min(self._engine.floor(name), ended.get(name, 2**62)), runs) for name, runs in kept.items()}


async def all_facts(connection: Connection, run: str) -> list[Stored]:
    """Return the facts of a run that FACTS holds, in their order."""
    found: list[Stored] = []
    while batch := await reading.batch(
        connection, subjects.FACTS, f"{facts.subject(run)}.>", found[-1].seq + 1 if found else 1, BATCH
    ):
        found += batch
    return found


async def is_kept(connection: Connection, run: str) -> bool:
    """Return whether a run is over and packed away."""
    return await reading.last(connection, subjects.HISTORY, subjects.history(run)) is not None


def is_whole(found: list[Stored]) -> bool:
    """Return whether a run begins and ends in these facts: else others have packed it away while we read (pure)."""
    whats = {one.subject.split(".", 3)[3] for one in found}
    return {"start", "ended"} <= whats


async def kept_facts(connection: Connection, run: str) -> list[Stored]:
    """Return the facts of a run that is over and packed away; [] when nothing is known of it."""
    stored = await reading.last(connection, subjects.HISTORY, subjects.history(run))
    return [] if stored is None else unpacked(stored.data)


def packed(found: list[Stored]) -> bytes:
    """Return facts as one JSON list (pure)."""
    return facts.encode([Kept(one.subject, one.seq, one.time, msgspec.Raw(one.data or b"null")) for one in found])


def unpacked(data: bytes) -> list[Stored]:
    """Return the facts in such a list (pure); raises `Invalid` (`flow.bad_history`)."""
    try:
        return [reading.Stored(one.s, bytes(one.d), one.q, one.t) for one in _decoder.decode(data)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"This is no history: {error}.", code="flow.bad_history") from error
