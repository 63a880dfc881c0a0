"""How much room has the store? Before it is full nothing new is let in, so that what is in can still end.

A store that is full of tasks that wait is a deadlock: no outcome fits, nor a cancel. So some of its room is kept for
those, and it is given away in this order. From four reserves before its end on, what ends unbegun and what is packed
into the past leaves large inputs out; from one reserve on new work is refused; then nothing is begun; and the last
quarter of the reserve is for what frees room: small ends, and the archiver. A large outcome waits there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus import streams

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

SHARE = 0.05
"""How much of a store is kept for what ends."""
RESERVE_MIN_BYTES = 4 * 1024 * 1024
SMALL_SHARE = 0.25
"""Of a small store at most so much."""
SCARCE_SHARE = 4.0
"""With less than so many reserves left, large inputs are not copied any more."""
TIGHT_SHARE = 0.4
"""With less than this of the reserve left nothing is begun."""
LAST_SHARE = 0.25
"""So much of the reserve is for what frees room."""
SMALL_BYTES = 16 * 1024
"""What is as small may be stored as long as there is room at all."""


def reserve(limit_bytes: int) -> int:
    """Return how many bytes of a store of this size are kept for what ends (pure)."""
    return int(min(max(limit_bytes * SHARE, RESERVE_MIN_BYTES), limit_bytes * SMALL_SHARE))


class Storage:
    """How full the store of one project is, as this process knows it."""

    def __init__(self, connection: Connection) -> None:
        """Ask over `connection`, when told to look."""
        self._connection = connection
        self.used_bytes = 0
        """What the project's streams use."""
        self.limit_bytes = 0
        """What they may use at most; 0 for no limit of their own."""
        self.shared: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """What all projects of the server use together, and may use; set by whoever runs the server."""
        self._added_bytes = 0

    async def look(self) -> None:
        """Ask how it stands; call it every second or so."""
        told = await streams.api(self._connection, "INFO")
        self.used_bytes = int(told.get("storage") or 0)
        self.limit_bytes = max(0, int((told.get("limits") or {}).get("max_storage") or 0))
        self._added_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count what was stored since the last look."""
        self._added_bytes += size_bytes

    @property
    def scarce(self) -> bool:
        """Return whether large inputs of what ends should be left out."""
        return self._left_share() < SCARCE_SHARE

    @property
    def full(self) -> bool:
        """Return whether nothing new should be let in."""
        return self._left_share() < 1.0

    @property
    def tight(self) -> bool:
        """Return whether nothing should be begun either."""
        return self._left_share() < TIGHT_SHARE

    def has_room(self, size_bytes: int) -> bool:
        """Return whether an outcome of this size may be stored now: the last of the room is for what frees some."""
        return size_bytes <= SMALL_BYTES or self._left_share(size_bytes) >= LAST_SHARE

    def _left_share(self, more_bytes: int = 0) -> float:
        """Return how much room is left, in reserves; a store without a limit has endless room."""
        used_bytes, limit_bytes = self.shared()
        own = (self.used_bytes, self.limit_bytes)
        left = float("inf")
        for used, limit in (own, (used_bytes, limit_bytes)):
            kept = reserve(limit) if limit > 0 else 0
            if kept > 0:
                left = min(left, (limit - used - self._added_bytes - more_bytes) / kept)
        return left
