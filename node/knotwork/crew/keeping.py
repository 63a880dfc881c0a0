"""Who carries an orchestration on when nobody asks? Every node listens for what its runs tell, and settles what follows.

The owner of a run's shard does so at once, the others a moment later, when it was not done: so it goes on as long as any
node is there. Nothing is asked for again and again: what happened while a node was away it sees when it reads the bucket.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from knotwork.bus import patterns
from knotwork.bus.background import begin_in
from knotwork.bus.pauses import Pauses, comes_again
from knotwork.bus.waits import set_within
from knotwork.crew import records, store
from knotwork.flow import facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.kv import Entry
    from knotwork.bus.wire import Message
    from knotwork.crew.records import Record
    from knotwork.crew.settling import Settling
    from knotwork.crew.store import Store
    from knotwork.flow.room import Flow

LATER_S = 3.0
"""How long a node leaves it to the owner of the run's shard."""
AGAIN_MIN_S, AGAIN_MAX_S = 0.5, 30.0
AT_ONCE = 3
"""Orchestrations that are carried on at a time, beside those that are looked at: see `looking.AT_ONCE`."""


class Live(NamedTuple):
    """One that is not over, in short; `by` is the id of whoever wanted it."""

    id: str
    by: str
    parent: str
    created_ns: int
    limited: bool
    """What its parts say they used may hold it: each of them is looked at."""


class Keeping:
    """Keeps orchestrations of one project going. `live` are those that are not over, `runs` theirs, by their ids."""

    def __init__(
        self, group: asyncio.TaskGroup, store: Store, settling: Settling, flow: Flow,
        *, over: Callable[[Record], None],
    ) -> None:  # fmt: skip
        """Settle in tasks of `group`; `over` hears of each that was found to be over, also of those from before."""
        self._group, self._store, self._settling, self._flow = group, store, settling, flow
        self._over = over
        self._places = asyncio.Semaphore(AT_ONCE)
        self.runs: dict[str, str] = {}
        self._busy: dict[str, asyncio.Event] = {}
        """Those that are looked at; the event ends a pause before."""
        self._again: set[str] = set()
        self.live: dict[str, Live] = {}

    async def run(self) -> None:
        """Listen and look, for ever."""
        connection = self._flow.connection
        shards = facts.SHARDS  # no tasks
        listening = [await connection.listen(patterns.shard_told(one), self._told) for one in shards]
        try:
            await self._store.bucket.watch(self._entry, self._current)
        finally:
            for one in listening:
                connection.unlisten(one)

    def _told(self, message: Message) -> None:
        """Take note of a fact of a run: an outcome or its end may call for something."""
        parts = message.subject.split(".", 4)
        orchestration = self.runs.get(parts[2])
        live = self.live.get(orchestration) if orchestration is not None else None
        if live is not None and (parts[3] == "ended" or (parts[3] == "outcome" and live.limited)):
            self.look(live.id, later=facts.shard(parts[2]) not in self._flow.shards.mine)

    def _entry(self, entry: Entry) -> None:
        kind, _, name = entry.key.partition(".")
        if kind != "o":
            return
        record = store.readable(entry.value)
        if record is None or not record.live:
            before = self.live.pop(name, None)
            self.runs = {run: of for run, of in self.runs.items() if of != name}
            if record is not None and record.phase in records.OVER:
                self._over(record)
            if before is not None and before.parent in self.live:
                self.look(before.parent)
            return
        self.live[name] = Live(
            name, record.by.id, record.parent, record.created_ns, bool(record.budget.tokens or record.budget.cost)
        )
        for one in record.rounds:
            if one.run not in self.runs:
                self.runs[one.run] = name
                self.look(name, later=True)  # its first facts may have come before

    def _current(self) -> None:
        """Look at all that go on: something may have been missed."""
        for name in list(self.live):
            self.look(name, later=True)

    def look(self, orchestration: str, *, later: bool = False) -> None:
        """Settle one, now or in a moment; once, however often it is asked meanwhile."""
        hurry = self._busy.get(orchestration)
        if hurry is not None:
            self._again.add(orchestration)
            if not later:
                hurry.set()
            return
        hurry = self._busy[orchestration] = asyncio.Event()
        if begin_in(self._group, self._settle(orchestration, hurry, LATER_S if later else 0.0)) is None:
            del self._busy[orchestration]

    async def _settle(self, orchestration: str, hurry: asyncio.Event, pause_s: float) -> None:
        pauses = Pauses(AGAIN_MIN_S, AGAIN_MAX_S)
        try:
            while True:
                if pause_s:
                    await set_within(hurry, pause_s)
                if orchestration not in self.live:
                    return
                hurry.clear()
                self._again.discard(orchestration)
                if await self._settled(orchestration):
                    if orchestration not in self._again:
                        return
                    pause_s = 0.0
                else:
                    pause_s = pauses.next_s()
        finally:
            del self._busy[orchestration]
            self._again.discard(orchestration)

    async def _settled(self, orchestration: str) -> bool:
        with comes_again(f"settling {orchestration}"):
            async with self._places:
                await self._settling.settle(orchestration)
            return True
        return False
