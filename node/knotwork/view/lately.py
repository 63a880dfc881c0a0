"""How did a task end that came lately, while the database has the whole past to read yet? Its end is in the last segments.

Nothing ends before it came, and its id says when that was: so what ARCHIVE holds from then on is enough, however long
the past is. A node that was started for work can take that at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from knotwork.bus import patterns, reading, subjects
from knotwork.view import evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored

SLACK_NS = 10_000_000_000
"""The clocks of two machines tell the same time to within this."""
PAGE = 8
BYTES_MAX = 32 * 1024 * 1024
"""So much of ARCHIVE is read here at most: of older tasks the database tells."""


class Lately:
    """The ends of the tasks that came lately, read from ARCHIVE as far as somebody asks."""

    def __init__(self, connection: Connection) -> None:
        """Have read nothing yet."""
        self._connection = connection
        self._lock = asyncio.Lock()
        self.forget()

    def forget(self) -> None:
        """Let go of what was read: the database has it."""
        self._ranks: dict[str, int] = {}
        self._since_ns, self._first, self._last, self._bytes = 0, 0, 0, 0
        self._too_old_ns = 0

    async def rank(self, run: str) -> int | None:
        """Return what is packed of the latest attempt of a task that ended (`evidence`), 0 for none.

        None when that would take too long to find out, or its id does not say when it came.
        """
        came_ns = evidence.came_ns(run)
        if not came_ns:
            return None
        async with self._lock:
            if came_ns <= self._too_old_ns:
                return None
            newest = await reading.last_seq(self._connection, subjects.ARCHIVE)
            if not self._first or came_ns < self._since_ns:
                since_ns = came_ns - SLACK_NS
                first = await reading.place_at(self._connection, subjects.ARCHIVE, patterns.SEGMENTS, since_ns)
                if not await self._read(first, self._first - 1 if self._first else newest):
                    self._too_old_ns = came_ns
                    return None
                self._first, self._since_ns, self._last = first, came_ns, self._last or newest
            if not await self._read(self._last + 1, newest):
                return None
            self._last = max(self._last, newest)
            return self._ranks.get(run, 0)

    async def _read(self, first: int, last: int) -> bool:
        """Read the segments from one place to another; False when they are too much."""
        size = self._bytes
        while first <= last:
            page = await reading.batch(self._connection, subjects.ARCHIVE, patterns.SEGMENTS, first, PAGE)
            page = [stored for stored in page if stored.seq <= last]
            if not page:
                break
            size += sum(len(stored.data) for stored in page)
            if size > BYTES_MAX:
                return False
            for run, rank in (await asyncio.to_thread(_ranks, page)).items():
                self._ranks[run] = max(rank, self._ranks.get(run, 0))
            first = page[-1].seq + 1
        self._bytes = size
        return True


def _ranks(segments: list[Stored]) -> Mapping[str, int]:
    """Return what is known of the latest attempt of each task in these segments; garbage is passed over (pure)."""
    found: dict[str, int] = {}
    for stored in segments:
        try:
            packed = evidence.unpack(stored.data)
        except evidence.Garbage:
            continue
        for one in packed:
            try:
                entry = evidence.read_fact(one.s, bytes(one.d), one.q)
            except evidence.Garbage:
                continue
            if isinstance(entry, evidence.Entry):
                found[entry.id] = max(entry.rank, found.get(entry.id, 0))
    return found
