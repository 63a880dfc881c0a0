"""What is left of a run that is over? All its facts, together, in HISTORY; FACTS forgets them a little later.

The owner of the run does it: one message for a run, then a purge. Doing it twice stores the same again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import publisher, reading, streams, subjects
from knotwork.bus.streams import NS, StreamSpec
from knotwork.flow import facts
from knotwork.sdk.errors import Invalid, KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored

log = logging.getLogger(__name__)
HISTORY = StreamSpec(
    subjects.HISTORY, ("history.>",), {"max_msgs_per_subject": 1, "max_age": 30 * 86400 * NS, "compression": "s2"}
)
KEEP_S = 5.0
"""How long the facts of a run that is over stay where they are."""
AT_ONCE = 8
BATCH = 1000


class Kept(msgspec.Struct, frozen=True):
    """One fact of a run that is over: its subject and place, when it was stored (RFC 3339), and what it says."""

    s: str
    q: int
    t: str
    d: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(list[Kept])


class Historian:
    """Keeps the past of runs that this node looked after."""

    def __init__(self, connection: Connection) -> None:
        """Keep it over `connection`."""
        self._connection = connection
        self._over: deque[tuple[float, str, bool]] = deque()
        self._some = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Make the stream."""
        await streams.ensure(self._connection, HISTORY)

    def ended(self, run: str, *, timed: bool = True) -> None:
        """Take note that a run is over; `timed`: timers may be left of it."""
        self._over.append((self._loop.time() + KEEP_S, run, timed))
        self._some.set()

    async def run(self) -> None:
        """Keep what is over, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._over:
                await asyncio.sleep(max(0.0, self._over[0][0] - self._loop.time()))
                due: list[tuple[str, bool]] = []
                while self._over and len(due) < AT_ONCE and self._over[0][0] <= self._loop.time():
                    due.append(self._over.popleft()[1:])
                async with asyncio.TaskGroup() as group:
                    for run, timed in due:
                        group.create_task(self._keep(run, timed=timed))

    async def _keep(self, run: str, *, timed: bool) -> None:
        """Move the facts of one run; what fails is done by whoever reads the shard next."""
        place = facts.subject(run)
        try:
            found = await all_facts(self._connection, run)
            if not found:
                return
            await publisher.publish(self._connection, subjects.history(run), packed(found))
            await reading.purge(self._connection, subjects.FACTS, f"{place}.>", found[-1].seq + 1)
            if timed:
                await reading.purge(self._connection, subjects.TIMERS, f"timer.{facts.shard(run)}.{run}.>", 0)
        except KnotworkError as error:
            log.debug("run %s is kept later: %s", run, error)
            self._loop.call_later(KEEP_S, self.ended, run)


async def all_facts(connection: Connection, run: str) -> list[Stored]:
    """Return the facts of a run that FACTS holds, in their order."""
    found: list[Stored] = []
    while batch := await reading.batch(
        connection, subjects.FACTS, f"{facts.subject(run)}.>", found[-1].seq + 1 if found else 1, BATCH
    ):
        found += batch
    return found


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
