"""What is left of a run that is over? All its facts, together, in HISTORY; FACTS forgets them a little later.

The owner of the run does it: one message for a run (`packing`), and one purge for many. Doing it twice stores the same
again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from knotwork.bus import patterns, publisher, reading, streams, subjects
from knotwork.bus.pauses import comes_again
from knotwork.bus.streams import NS, StreamSpec
from knotwork.flow import forgetting, packing
from knotwork.flow.packing import is_whole, packed, unpacked
from knotwork.sdk.errors import Invalid, KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.flow.forgetting import Over

__all__ = ["Historian", "Keeps", "is_whole", "packed", "unpacked"]
log = logging.getLogger(__name__)
MONTH_S = 30 * 86400.0
KEEP_S = 5.0
"""How long the facts of a run that is over stay where they are."""
EVERY_S = 0.5
AT_ONCE = 200
PART = "part"
"""What stands for the pieces of a run that is being brought in."""


@dataclass(frozen=True, slots=True)
class Keeps:
    """How long runs that are over are kept, in seconds, and in how many bytes all together; 0: in any number."""

    age_s: float = MONTH_S
    max_bytes: int = 0


def stream(keeps: Keeps) -> StreamSpec:
    """Return the stream of the past: the oldest go first (pure)."""
    bounds = {"max_age": int(keeps.age_s * NS), "max_bytes": keeps.max_bytes or -1, "discard": "old"}
    settings = {"max_msgs_per_subject": 1, "compression": "s2", "allow_atomic": True, **bounds}
    return StreamSpec(subjects.HISTORY, (patterns.HISTORIES,), settings)


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
            with comes_again("keeping the past"):
                if self._keeps() != self._kept:
                    await self.open()
                await self._keep_due()
                await self._forget()

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
                for subject, payload in packing.messages(over.id, found):
                    await self._writing.append(subject, payload)
            if found:
                over.last = found[-1].seq
            if over.timed:
                await reading.purge(self._connection, subjects.TIMERS, patterns.timers_of(over.id), 0)
        except KnotworkError as error:
            log.debug("run %s is kept later: %s", over.id, error)
            return
        over.found, over.kept_s = [], self._loop.time()

    async def _forget(self) -> None:
        """Remove from FACTS what may go; what came up meanwhile, such as another owner, is looked at before each step."""
        for purge in forgetting.due(self._over.values(), self._engine.floor, self._loop.time()):
            if not purge.run and await self._engine.missed(purge.shard):
                continue
            if forgetting.stands(purge, self._over.values(), self._engine.floor):
                await reading.purge(self._connection, subjects.FACTS, purge.pattern, purge.below)
                for run in purge.gone:
                    self._over.pop(run, None)


async def all_facts(connection: Connection, run: str) -> list[Stored]:
    """Return the facts of a run that FACTS holds, in their order."""
    return [stored async for stored in reading.every(connection, subjects.FACTS, patterns.facts_of(run))]


async def is_kept(connection: Connection, run: str) -> bool:
    """Return whether a run is over and packed away."""
    return await reading.last(connection, subjects.HISTORY, subjects.history(run)) is not None


async def kept_of(connection: Connection, runs: list[str]) -> list[str]:
    """Return which of up to 1000 runs are over and packed away."""
    places = [subjects.history(run) for run in runs]
    found = await reading.each_last(connection, subjects.HISTORY, places) if places else []
    return [stored.subject.split(".")[1] for stored in found]


async def kept_facts(connection: Connection, run: str) -> list[Stored]:
    """Return the facts of a run that is over and packed away; [] when nothing is known of it, or a piece is gone."""
    stored = await reading.last(connection, subjects.HISTORY, subjects.history(run))
    rows = unpacked(stored.data) if stored is not None else []
    pattern, count = packing.pieces_of(rows)
    if not pattern:
        return rows
    pieces = await _pieces(connection, pattern)
    if any(number not in pieces for number in range(1, count + 1)):
        return []
    return [one for number in range(1, count + 1) for one in pieces[number]]


async def kept_ends(connection: Connection, run: str) -> list[Stored]:
    """Return of a run that is over and packed away its start and its end at least; [] when nothing is known of it."""
    stored = await reading.last(connection, subjects.HISTORY, subjects.history(run))
    return packing.ends(unpacked(stored.data)) if stored is not None else []


async def put_by(connection: Connection, run: str, part: int, found: list[Stored]) -> None:
    """Store a part of a run that was written down, until all its parts are there."""
    await publisher.publish(connection, subjects.history_piece(run, PART, part), packed(found))


async def parts_before(connection: Connection, run: str, part: int) -> list[Stored]:
    """Return the facts of the parts before one that were put by; raises `Invalid` (`flow.bad_history`) when one lacks."""
    pieces = await _pieces(connection, patterns.history_pieces(run, PART)) if part > 1 else {}
    lacking = [number for number in range(1, part) if number not in pieces]
    if lacking:
        raise Invalid(
            f"Of {run} this is part {part}, and part {lacking[0]} is not here.", code="flow.bad_history",
            hint="Bring in all its lines, in their order.",
        )  # fmt: skip
    return [one for number in range(1, part) for one in pieces[number]]


async def keep(connection: Connection, run: str, found: list[Stored], *, parts: bool) -> None:
    """Store the facts of a run that is over; `parts` that were put by go."""
    for subject, payload in packing.messages(run, found):
        await publisher.publish(connection, subject, payload)
    if parts:
        await reading.purge(connection, subjects.HISTORY, patterns.history_pieces(run, PART), 0)


async def _pieces(connection: Connection, pattern: str) -> dict[int, list[Stored]]:
    found: dict[int, list[Stored]] = {}
    async for stored in reading.every(connection, subjects.HISTORY, pattern, timeout_s=30):
        number = stored.subject.rpartition(".")[2]
        if number.isdecimal():  # else somebody else wrote it
            found[int(number)] = unpacked(stored.data)
    return found
