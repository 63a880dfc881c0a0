"""Which tasks stand in their queues although they have ended? Those whose acknowledgement a server that crashed forgot.

Whoever gets such a task next finds its outcome and passes it over. Until then it would count as waiting, and agents
would be started for it, for as long as nobody asks for more of that queue. So queues are looked through once after each
(re)connect, and again when something has stood in one for a while: what has its outcome in FACTS is taken out, after what
that outcome calls for was done once more. One node of a project does it; that two do it is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.bus import reading, subjects
from knotwork.sdk.errors import KnotworkError, NotFound
from knotwork.work import fold, proof

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.mesh.membership import Membership
    from knotwork.work.queues import Depth
    from knotwork.work.recording import Recorder

log = logging.getLogger(__name__)
STILL_S = 5.0
"""How long a queue must have stood as it is to be looked through again."""
SHARE = 50
"""So many times as long as the last look took, queues are left alone after it."""
CHUNK = 64
"""Outcomes that are read at a time: each may have a megabyte."""


@dataclass(slots=True)
class Rest:
    """How a queue stands, since when (monotonic seconds), and how it stood when it was looked through."""

    depth: Depth
    since_s: float
    looked: Depth | None = None
    anew: bool = False
    """The server may have forgotten what it knew of it: it is looked through however it moves."""


class Rests:
    """Which queues are to be looked through: all after a (re)connect, then those that stand still."""

    def __init__(self) -> None:
        """Know of none."""
        self._rests: dict[str, Rest] = {}
        self._anew = True

    def reconnected(self) -> None:
        """Take note that the server may have forgotten something."""
        self._anew = True

    def swept(self, depths: Sequence[Depth], now_s: float) -> None:
        """Take note of how the queues stand."""
        filled = {depth.queue.consumer: depth for depth in depths if depth.pending or depth.taken}
        self._rests = {name: rest for name, rest in self._rests.items() if name in filled}
        for name, depth in filled.items():
            rest = self._rests.setdefault(name, Rest(depth, now_s))
            if rest.depth != depth:
                rest.depth, rest.since_s = depth, now_s
            rest.anew = rest.anew or self._anew
        self._anew = False

    def due(self, now_s: float, *, tired: bool) -> list[Rest]:
        """Return those whose turn it is; while `tired` only those of which the server may have forgotten something."""
        return [
            rest
            for rest in self._rests.values()
            if rest.anew or (not tired and rest.looked != rest.depth and now_s - rest.since_s >= STILL_S)
        ]


class Finished:
    """Takes what has ended out of the queues of one project."""

    def __init__(self, connection: Connection, recorder: Recorder, *, mine: Callable[[], bool]) -> None:
        """Look while it is `mine()` to do."""
        self._connection, self._recorder, self._mine = connection, recorder, mine
        self._rests = Rests()
        self._next_s = self._after_s = 0.0
        self.removed = 0
        """How many were taken out."""

    def reconnected(self) -> None:
        """Take note that the server may have forgotten something."""
        self._rests.reconnected()

    def swept(self, depths: Sequence[Depth]) -> None:
        """Take note of how the queues stand."""
        self._rests.swept(depths, time.monotonic())

    async def look(self) -> None:
        """Look through the queues whose turn it is; call it every second. Raises what reading raises."""
        began_s = time.monotonic()
        if began_s < self._after_s or not self._mine():
            return
        due = self._rests.due(began_s, tired=began_s < self._next_s)
        try:
            for rest in due:
                await self._look_at(rest)
        except KnotworkError:  # not from the beginning every second: the next look may fail as late as this one
            now_s = time.monotonic()
            self._after_s = now_s + SHARE * (now_s - began_s)
            raise
        if due:
            now_s = time.monotonic()
            self._next_s = now_s + SHARE * (now_s - began_s)

    async def _look_at(self, rest: Rest) -> None:
        depth, anew = rest.depth, rest.anew
        rest.anew = False  # before: a connection that is lost and back meanwhile asks for another look
        try:
            await self._look_through(depth.queue.filter)
        except KnotworkError:
            rest.anew = rest.anew or anew
            raise
        rest.looked = depth

    async def _look_through(self, pattern: str) -> None:
        """Take what has ended out of a queue."""
        before = self.removed
        places = await reading.subjects_of(self._connection, subjects.TASKS, pattern)
        for begin in range(0, len(places), CHUNK):  # to name the outcomes of all at once takes a second
            named = ((subjects.outcome_of(place), place) for place in places[begin : begin + CHUNK])
            ends = {end: place for end, place in named if end}
            found = await reading.each_last(self._connection, subjects.FACTS, list(ends)) if ends else []
            async with asyncio.TaskGroup() as group:
                for stored in found:
                    group.create_task(self._take_out(ends[stored.subject], stored))
        if self.removed > before:
            log.info("%d tasks had ended and are taken out of the queue %s", self.removed - before, pattern)

    async def _take_out(self, place: str, stored: Stored) -> None:
        """Take an attempt out of its queue; what does not belong together is left to whoever gets it."""
        end = fold.outcome_at(stored.subject, stored.data)
        try:
            waits = await reading.last(self._connection, subjects.TASKS, place)
            task = None if waits is None else fold.task_at(waits)
            if (
                waits is None
                or task is None
                or end is None
                or not await proof.proved(self._connection, task, exactly=True)
            ):
                return
            await self._recorder.carry_out(task, end[1])
            with contextlib.suppress(NotFound):
                await reading.delete(self._connection, subjects.TASKS, waits.seq)
                self.removed += 1
                log.debug("%s had ended (%s) and is taken out of its queue", task.run, end[1].state)
        except KnotworkError as error:  # the others are looked at all the same, and this one by whoever gets it
            log.debug("what stands on %s is left there: %s", place, error)


def first_of(membership: Membership | None, node: str) -> Callable[[], bool]:
    """Return what says whether this node is the first, by name, of those that are online; alone it is."""

    def is_first() -> bool:
        if membership is None:
            return True
        online = (record.node for record, state, _ in membership.directory.nodes() if state == "online")
        return next(online, node) == node

    return is_first
