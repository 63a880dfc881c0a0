"""In which order do the facts of our runs come, and is none of them missed? Each shard is read from FACTS, then told of.

FACTS tells every listener of each fact as it is stored; what is stored while a shard is taken over, or the connection is
away, is read. What nobody told of all the same is found by `untold`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from knotwork.bus import patterns, reading, subjects
from knotwork.bus.background import begin_in
from knotwork.bus.pauses import Pauses, insist
from knotwork.bus.reading import Stored
from knotwork.flow import admission, calls, facts, forgetting
from knotwork.flow.forgetting import Over
from knotwork.flow.history import all_facts, is_whole, kept_of
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection, Listening
    from knotwork.bus.wire import Message
    from knotwork.flow.facts import Fact
    from knotwork.flow.run import Run

log = logging.getLogger(__name__)
BATCH = 500
FOUND_MAX_BYTES = 1024 * 1024
"""Facts of a run that are held until it is over, so that they need not be read again; of a larger run they are."""


@dataclass(eq=False, slots=True)
class Shard:
    """A shard that is ours. `place`: up to where its facts were taken; `early`: those told while it was being read."""

    name: str
    ready: bool = False
    doubtful: bool = False
    """A run of it could not be read."""
    distrusted: bool = False
    """Something of what was told while it was being read may be untold."""
    listening: Listening | None = None
    place: int = 0
    early: list[Stored] = field(default_factory=list)
    runs: dict[str, Live] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Live:
    """A run that this node looks after. `waiting` are facts not taken yet, `busy` while one of them needs time."""

    id: str
    shard: Shard
    replaying: bool
    """It is being read from its facts; what is open in the end is carried out then."""
    run: Run | None = None
    waiting: deque[Stored] = field(default_factory=deque)
    early: list[Fact] = field(default_factory=list)
    """What was recorded of it before its start."""
    busy: bool = False
    told: list[Stored] | None = None
    """What was told of it while it is being read: to be taken behind what is read; None: it is not being read."""
    begun: bool = False
    """Its start was taken, or waits."""
    left: bool = False
    """It cannot be looked after here: a newer version wrote of it, or what it is made of is gone."""
    heard_s: float = 0.0
    found: list[Stored] = field(default_factory=list)
    """Its facts, for HISTORY; nothing once they are too large to be kept here."""
    count: int = 0
    size: int = 0
    first: int = 0
    last: int = 0
    """The places of its first fact, and of the last that was taken."""
    timers: set[str] = field(default_factory=set)
    """Timers that were set and have not fired."""

    @property
    def is_known(self) -> bool:
        """Return whether it began, or may have: else there is only what was recorded of it too early, or of none."""
        return self.run is not None or self.busy or self.left

    @property
    def is_being_read(self) -> bool:
        """Return whether where its first fact stands is not known yet."""
        return self.told is not None


class Taker(Protocol):
    """Who takes facts."""

    def take(self, live: Live) -> None:
        """Take the facts of a run that wait."""

    def resume(self, live: Live) -> None:
        """Carry out what a run still calls for, now that it was read."""

    def forget(self, live: Live) -> None:
        """Do nothing more for a run."""


class Journal:
    """The facts of the runs in this node's shards of one project."""

    def __init__(self, group: asyncio.TaskGroup, connection: Connection, taker: Taker, over: dict[str, Over]) -> None:
        """Give facts to `taker`, in tasks of `group`; `over` are the runs that ended and are not packed away yet."""
        self._group, self._connection, self._taker, self._over = group, connection, taker, over
        self._shards: dict[str, Shard] = {}
        self._loop = asyncio.get_running_loop()

    # -- which runs --------------------------------------------------------------------------------------------------

    def own(self, names: frozenset[str]) -> None:
        """Look after these shards from now on, and no others."""
        for name in [name for name in self._shards if name not in names]:
            shard = self._shards.pop(name)
            if shard.listening is not None:
                self._connection.unlisten(shard.listening)
            for live in shard.runs.values():
                self._taker.forget(live)
            for run in [run for run, one in self._over.items() if one.shard == name]:
                del self._over[run]  # whoever owns it now finds it in FACTS, and keeps and purges it
        for name in sorted(names - self._shards.keys()):
            self._shards[name] = shard = Shard(name)
            begin_in(self._group, self._load(shard))

    @property
    def shards(self) -> Mapping[str, Shard]:
        """Return the shards that are looked after here."""
        return self._shards

    def find(self, run: str) -> Live | None:
        """Return a run that is looked after here."""
        shard = self._shards.get(facts.shard(run))
        return shard.runs.get(run) if shard is not None else None

    def all(self) -> list[Live]:
        """Return the runs that are looked after here."""
        return [live for shard in self._shards.values() for live in shard.runs.values()]

    def distrust(self) -> None:
        """Hold nothing of what was told of runs here, also of shards that are being read: it is read again to be kept."""
        distrust(self.all(), self._over.values())
        for shard in self._shards.values():
            shard.distrusted = not shard.ready

    def is_over(self, holder: str) -> bool:
        """Return whether what stands in the book of a limit is over for certain: a run of ours, or a step of one."""
        run, attempt = admission.held_by(holder)
        shard = self._shards.get(facts.shard(run))
        if shard is None or not shard.ready:
            return False
        live = shard.runs.get(run)
        if live is None:
            return True
        if live.busy or live.left or live.run is None or live.waiting:
            return False
        return bool(attempt) and calls.is_over(live.run, attempt)

    def floor(self, name: str) -> int:
        """Return up to which place of a shard of ours nothing is of a run that is not over; 0 when that is not known."""
        return forgetting.floor(self._shards.get(name), self._loop.time())

    async def missed(self, name: str) -> bool:
        """Return whether a run of a shard of ours was started that we were not told of; it is read then.

        A server that changes its leader may leave something untold, and what nobody knows of must not be forgotten.
        """
        stored = await reading.subjects_of(self._connection, subjects.FACTS, patterns.shard_starts(name))
        shard = self._shards.get(name)
        if shard is None or not shard.ready:
            return True
        started = [one.split(".")[2] for one in stored]
        unknown = [run for run in started if run not in self._over and _lacks_start(shard.runs.get(run))]
        for run in unknown:
            await self.read_anew(shard, run)
        shard.doubtful = False
        return bool(unknown)

    def reconnected(self) -> None:
        """Read what was stored while we were not told of it."""
        for shard in self._shards.values():
            if shard.ready:
                shard.ready = False
                begin_in(self._group, self._load(shard))

    # -- facts -------------------------------------------------------------------------------------------------------

    def _told(self, message: Message) -> None:
        parts = message.subject.split(".", 3)
        shard = self._shards.get(parts[1])
        place = message.header("Nats-Sequence")
        if shard is None or not place.isdecimal():
            return
        stored = Stored(subjects.told_by(message.subject), message.data, int(place), message.header("Nats-Time-Stamp"))
        if not shard.ready:
            shard.early.append(stored)
        elif stored.seq > shard.place:
            shard.place = stored.seq
            self._take(shard, stored)

    async def _load(self, shard: Shard) -> None:
        """Read every fact of a shard that we do not know yet, and carry out again whatever is still open."""
        await self._surely(lambda: self._listen(shard), shard)  # what is stored after this is told
        await self._surely(lambda: self._read(shard), shard)
        await self._surely(lambda: self._leave_past(shard, list(shard.runs)), shard)
        if self._shards.get(shard.name) is not shard:
            return
        shard.ready = True
        early, shard.early = shard.early, []
        for stored in early:
            if stored.seq > shard.place:
                shard.place = stored.seq
                self._take(shard, stored)
        if shard.distrusted:
            self.distrust()
        for live in list(shard.runs.values()):
            if live.told is None:
                self._taker.resume(live)

    async def _listen(self, shard: Shard) -> None:
        if shard.listening is None:
            shard.listening = await self._connection.listen(patterns.shard_told(shard.name), self._told)
        await self._connection.round_trip()

    async def _read(self, shard: Shard) -> None:
        """Take every fact of a shard behind those that were taken."""
        pattern = patterns.shard_facts(shard.name)
        while found := await reading.batch(
            self._connection, subjects.FACTS, pattern, shard.place + 1, BATCH, timeout_s=30
        ):
            if self._shards.get(shard.name) is not shard:
                return
            for stored in found:
                self._take(shard, stored)
            shard.place = found[-1].seq
            await asyncio.sleep(0)

    async def _leave_past(self, shard: Shard, runs: list[str]) -> None:
        """Let go of runs whose end was not read because another owner purged them while we read: HISTORY has them."""
        for start in range(0, len(runs), BATCH):
            for run in await kept_of(self._connection, runs[start : start + BATCH]):
                self._is_past(shard, run)

    def _is_past(self, shard: Shard, run: str) -> None:
        live = shard.runs.pop(run, None)
        if live is not None and self._shards.get(shard.name) is shard:
            log.info("run %s is over, and was being purged while it was read", run)
            self._taker.forget(live)
            self._over[run] = Over(run, live.first, shard.place, [], kept_s=self._loop.time())

    async def read_anew(self, shard: Shard, run: str) -> None:
        """Read one run anew, whatever was known of it."""
        if (before := shard.runs.get(run)) is not None:
            self._taker.forget(before)
        shard.runs[run] = live = Live(run, shard, replaying=True, told=[])
        try:
            found = await all_facts(self._connection, run)
            past = bool(found) and not is_whole(found) and bool(await kept_of(self._connection, [run]))
        except KnotworkError:
            if shard.runs.get(run) is live:  # half of it is worse than nothing: it is missed again, and read then
                del shard.runs[run]
            shard.doubtful = True
            raise
        if past and shard.runs.get(run) is live:
            self._is_past(shard, run)
        told, live.told = live.told or [], None
        for stored in [*found, *told]:
            if shard.runs.get(run) is live:
                live.first = live.first or stored.seq
                self._take(shard, stored)
        if shard.runs.get(run) is live:
            if live.count:
                self._taker.resume(live)
            else:  # nothing is left of it
                del shard.runs[run]

    def _take(self, shard: Shard, stored: Stored) -> None:
        _, _, run, *what = stored.subject.split(".", 3)
        live = shard.runs.get(run)
        if live is None:
            if run in self._over:
                return
            shard.runs[run] = live = Live(run, shard, replaying=not shard.ready, first=stored.seq)
        if live.told is not None:
            live.told.append(stored)
            return
        if stored.seq <= live.last:  # told, and read beside
            return
        live.last = stored.seq
        live.begun = live.begun or what == ["start"]
        live.heard_s = self._loop.time()
        live.count += 1
        live.size += len(stored.data)
        live.found.append(stored)
        if live.size > FOUND_MAX_BYTES:
            live.found = []
        live.waiting.append(stored)
        if not live.busy:
            self._taker.take(live)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _surely(self, work: Callable[[], Awaitable[None]], shard: Shard) -> None:
        await insist(
            work, f"reading shard {shard.name}", Pauses(), wanted=lambda: self._shards.get(shard.name) is shard
        )


def distrust(runs: Iterable[Live], over: Iterable[Over]) -> None:
    """Hold no facts of runs that are not in HISTORY yet, as of those that are too large to be held."""
    for live in runs:
        live.found, live.size = [], FOUND_MAX_BYTES + 1
    for one in over:
        if not one.kept_s:
            one.found = []


def _lacks_start(live: Live | None) -> bool:
    """Return whether a run that was started is not known, or only by what was recorded of it later."""
    return live is None or not (live.is_known or live.begun or live.is_being_read)
