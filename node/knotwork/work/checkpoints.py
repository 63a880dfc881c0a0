"""Where does an attempt leave what the next one can go on from? One value per step, the latest, in a bucket of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import KnotworkError, TooLarge

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

TTL_S = 30 * 24 * 3600
"""How long one is kept that nobody replaces; that of a task that has ended, and cannot come back, goes with it."""
MAX_BYTES = 512 * 1024


class Checkpoints:
    """Checkpoints of one project, as JSON."""

    def __init__(self, connection: Connection) -> None:
        """Keep them over `connection`."""
        self._connection = connection
        self._bucket = kv.Bucket(connection, subjects.CHECKPOINTS)

    async def open(self) -> None:
        """Make sure that there is a place for them."""
        await kv.open_bucket(self._connection, subjects.CHECKPOINTS)

    async def write(self, run: str, step: str, value: bytes) -> None:
        """Keep a value in place of the one before; raises `TooLarge` (`claim.checkpoint_too_large`)."""
        if len(value) > MAX_BYTES:
            raise TooLarge(
                f"The checkpoint has {len(value)} bytes; the limit is {MAX_BYTES}.", code="claim.checkpoint_too_large",
                hint="Keep the data elsewhere, and its address here.",
            )  # fmt: skip
        await self._bucket.put(f"{run}.{step}", value, ttl_s=TTL_S)

    async def read(self, run: str, step: str) -> bytes | None:
        """Return the latest value, None when there is none."""
        entry = await self._bucket.get(f"{run}.{step}")
        return None if entry is None else entry.value or None

    async def forget(self, run: str, step: str) -> None:
        """Remove the value of a step that is over; when that cannot be done now it goes with its time."""
        with contextlib.suppress(KnotworkError):
            if await self.read(run, step) is not None:
                await self._bucket.put(f"{run}.{step}", b"", ttl_s=1)  # unlike a deletion it leaves nothing behind
