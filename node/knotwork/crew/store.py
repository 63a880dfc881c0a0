"""Where are orchestrations kept? In CREW: a record each, changed only at the revision that was read, and its result.

CREW_CHECKPOINTS has one key for each part and agent, so that agents who report at the same time do not wait for another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from knotwork.bus import kv, reading, subjects
from knotwork.crew import records
from knotwork.sdk.errors import Conflict, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Entry
    from knotwork.crew.records import Checkpoint, Record, Result

DAY_S = 24 * 3600
ASSESSED_TTL_S = 7 * DAY_S
"""How long a plan is kept that nobody spawns."""
OVER_TTL_S = 30 * DAY_S
CHECKPOINT_TTL_S = 400 * DAY_S
"""Longer than anything goes on: what agents used counts to the end."""
TRIES = 100
"""How often a change is tried when others change the same record."""


def unknown(orchestration: str) -> NotFound:
    """Return the error of one that is not there, or not to be seen: the two look the same."""
    return NotFound(
        f"There is no orchestration {orchestration}.", code="crew.not_found",
        hint="See `knotwork crew list`. One that is over is kept for a month.",
    )  # fmt: skip


class Store:
    """The orchestrations of one project."""

    def __init__(self, connection: Connection) -> None:
        """Keep them over `connection`."""
        self.connection = connection
        self.bucket = kv.Bucket(connection, subjects.CREW)
        self._checkpoints = kv.Bucket(connection, subjects.CREW_CHECKPOINTS)

    async def open(self) -> None:
        """Make sure that there is a place for them."""
        await kv.open_bucket(self.connection, subjects.CREW)
        await kv.open_bucket(self.connection, subjects.CREW_CHECKPOINTS)

    # -- records -----------------------------------------------------------------------------------------------------

    async def create(self, made: Record) -> bool:
        """Keep a new one; False when one with its id is there."""
        try:
            await self.bucket.create(key(made.id), records.encode(made), ttl_s=ASSESSED_TTL_S)
        except Conflict:
            return False
        return True

    async def get(self, orchestration: str) -> Record:
        """Return one; raises `NotFound` (`crew.not_found`)."""
        return records.record((await self._entry(orchestration)).value or b"")

    async def change(self, orchestration: str, by: Callable[[Record], Record]) -> Record:
        """Change one; `by` is given what stands there, again when somebody else was faster, and may raise.

        What it returns unchanged is not written. Raises `NotFound`, `Unavailable` (`crew.busy`).
        """
        for _ in range(TRIES):
            entry = await self._entry(orchestration)
            before = records.record(entry.value or b"")
            after = by(before)
            if after == before:
                return before
            ttl_s = OVER_TTL_S if after.phase in records.OVER else ASSESSED_TTL_S if not after.rounds else None
            if await self.bucket.swap(key(orchestration), entry, records.encode(after), ttl_s=ttl_s):
                return after
        raise _busy(orchestration)

    async def all(self) -> list[Record]:
        """Return all, the newest first."""
        pattern = subjects.bucket_key(self.bucket.name, key("*"))
        every = reading.every(self.connection, self.bucket.stream, pattern, timeout_s=30)
        found = [one async for stored in every if (one := readable(stored.data)) is not None]
        return sorted(found, key=lambda one: one.created_ns, reverse=True)

    async def _entry(self, orchestration: str) -> Entry:
        entry = await self.bucket.get(key(records.check_id(orchestration)))
        if entry is None or not entry.value:
            raise unknown(orchestration)
        return entry

    # -- results and checkpoints -------------------------------------------------------------------------------------

    async def put_result(self, orchestration: str, made: Result) -> None:
        """Keep what came of one, in place of what was there."""
        await self.bucket.put(f"r.{orchestration}", records.encode(made), ttl_s=OVER_TTL_S)

    async def result(self, orchestration: str) -> Result | None:
        """Return what came of one, None while nothing did."""
        entry = await self.bucket.get(f"r.{records.check_id(orchestration)}")
        return None if entry is None or not entry.value else records.result(entry.value)

    async def put_checkpoint(self, orchestration: str, made: Checkpoint) -> Checkpoint:
        """Keep how far an agent is with a part; what is not said stays, and totals never shrink.

        Raises `Unavailable` (`crew.busy`).
        """
        place = f"{orchestration}.{made.part or '-'}.{hashlib.sha256(made.by.encode()).hexdigest()[:16]}"
        for _ in range(TRIES):
            entry = await self._checkpoints.get(place)
            before = records.checkpoint(entry.value) if entry is not None and entry.value else None
            whole = _together(before, made) if before is not None else made
            if await self._checkpoints.swap(place, entry, records.encode(whole), ttl_s=CHECKPOINT_TTL_S):
                return whole
        raise _busy(orchestration)

    async def checkpoints(self, orchestration: str) -> list[Checkpoint]:
        """Return how far everybody is, the oldest first."""
        pattern = subjects.bucket_key(self._checkpoints.name, f"{records.check_id(orchestration)}.>")
        every = reading.every(self.connection, self._checkpoints.stream, pattern)
        found = [one async for stored in every if stored.data and (one := records.checkpoint(stored.data)) is not None]
        return sorted(found, key=lambda one: one.at_ns)


def _together(before: Checkpoint, made: Checkpoint) -> Checkpoint:
    """Return what an agent said before, and says now, of one part (pure)."""
    return records.Checkpoint(
        made.part, made.by, made.at_ns, before.percent if made.percent is None else made.percent,
        made.text or before.text, max(made.tokens, before.tokens), max(made.cost, before.cost),
        before.data if bytes(made.data) == b"null" else made.data,
    )  # fmt: skip


def _busy(orchestration: str) -> Unavailable:
    return Unavailable(
        f"{orchestration} is changed by too many at once.", code="crew.busy", hint="Try again.", retry_after_s=0.5
    )


def key(orchestration: str) -> str:
    """Return where an orchestration stands."""
    return f"o.{orchestration}"


def readable(data: bytes | None) -> Record | None:
    """Return a stored orchestration, None for what is gone or none."""
    try:
        return records.record(data) if data else None
    except Invalid:
        return None
