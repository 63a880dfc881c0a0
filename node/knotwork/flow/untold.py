"""Is there a run of ours, or a fact of one, that nobody told us of? Counted now and then, and at once when that is likely.

FACTS tells of each fact as it is stored, but a server that takes the lead of its stream from another may leave something
untold, in the middle of a run, too: no gap shows, since places are those of all runs together. It is known when that
may have happened: the server says that it leads now, or we were away.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from knotwork.bus import patterns, reading, subjects
from knotwork.bus.pauses import comes_again
from knotwork.bus.waits import set_within

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.flow.journal import Journal, Live, Shard

log = logging.getLogger(__name__)
EVERY_S = 1.0
SILENT_S = 10.0
"""After how long without a fact those of a run are counted."""
LOOKS_PER_S = 50
AT_ONCE = 50
"""Runs that are counted at a time when something may be untold."""
AGAIN_S = 2.0
"""How much later all are doubted and counted once more: what was under way when the lead changed is stored by then."""
ON_ITS_WAY_S = 0.05
TRIES = 5
"""So often a run is counted of which facts keep coming."""


class Untold:
    """Looks for what this node was not told of, in the runs that it looks after."""

    def __init__(self, connection: Connection, journal: Journal) -> None:
        """Have what is found read by `journal`."""
        self._connection, self._journal = connection, journal
        self._loop = asyncio.get_running_loop()
        self._doubt = asyncio.Event()
        self._turn = 0

    async def open(self) -> None:
        """Listen for servers that take the lead."""
        await self._connection.listen(subjects.leads(subjects.FACTS), lambda _: self.doubt())

    def doubt(self) -> None:
        """Take note that something may be untold: all that is held of runs here is read again before it is kept.

        What goes on is counted now. Once more all of it a little later.
        """
        self._doubt_now()
        self._loop.call_later(AGAIN_S, self._doubt_now)

    def _doubt_now(self) -> None:
        self._journal.distrust()
        self._doubt.set()

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await set_within(self._doubt, EVERY_S)
            if self._doubt.is_set():
                self._doubt.clear()
                await self._count_all()
            else:
                await self._look()

    async def _look(self) -> None:
        """Look at one shard after the other, first those where something could not be read; and at silent runs."""
        now_s = self._loop.time()
        names = sorted(self._journal.shards)
        doubtful = [name for name in names if self._journal.shards[name].doubtful]
        self._turn += 1
        for name in doubtful or names[self._turn % max(1, len(names)) :][:1]:
            await self._missed(name)
        silent = [(shard, live) for shard, live in self._countable() if now_s - live.heard_s > SILENT_S]
        for shard, live in silent[:LOOKS_PER_S]:
            live.heard_s = now_s
            await self._count(shard, live)

    async def _count_all(self) -> None:
        for name in sorted(self._journal.shards):
            await self._missed(name)
        there = sorted(self._countable(), key=lambda one: -one[1].heard_s)
        for start in range(0, len(there), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for shard, live in there[start : start + AT_ONCE]:
                    group.create_task(self._count(shard, live))

    def _countable(self) -> list[tuple[Shard, Live]]:
        return [
            (shard, live)
            for shard in self._journal.shards.values()
            for live in shard.runs.values()
            if shard.ready and not (live.busy or live.left or live.is_being_read)
        ]

    async def _missed(self, name: str) -> None:
        with comes_again(f"looking for runs of {name}"):
            await self._journal.missed(name)

    async def _count(self, shard: Shard, live: Live) -> None:
        """Have a run read anew of which there are other facts than we were told of, and none is on its way."""
        with comes_again(f"counting the facts of {live.id}"):
            for _ in range(TRIES):
                before = live.count
                there = await reading.count_from(self._connection, subjects.FACTS, patterns.facts_of(live.id), 1)
                if there == before:
                    return
                await asyncio.sleep(ON_ITS_WAY_S)
                if live.count == before:
                    break
            if shard.runs.get(live.id) is live and live.count == before and not live.busy:
                log.warning("run %s has %d facts and not %d: it is read anew", live.id, there, before)
                await self._journal.read_anew(shard, live.id)
