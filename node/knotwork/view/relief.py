"""What of the past goes when the store gets full? Large inputs first, then what is older than anything refers to.

The past may not keep work out: while room is scarce, or the past takes much of it, what is packed leaves its large inputs
out; when the store is full, the oldest segments and the oldest runs that are over go before their time, but none that
is younger than an idempotency key is remembered. Of telemetry, which may be lost, the older half goes when even the room
that is kept for ends is nearly used up.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, patterns, publisher, reading, streams, subjects
from knotwork.bus.storage import Storage
from knotwork.sdk.errors import KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored

log = logging.getLogger(__name__)
KEPT_S = 25 * 3600.0
"""Nothing goes before its time that is younger: for a day the same key means the same task, or run."""
PASTS = {subjects.ARCHIVE: patterns.SEGMENTS, subjects.HISTORY: patterns.HISTORIES}
"""Streams of what is over. The last message stays: the last of ARCHIVE says up to where everything is packed."""
AT_ONCE_BYTES = 16 * 1024 * 1024
"""So much of each goes, about, before it is looked again."""
REFUSED_S = 60.0
"""How long room counts as scarce after the store had none."""
SPARED_BYTES = 4 * 1024
"""An input that is larger counts as large."""
PAST_SHARE = 0.25
"""How much of a project's store the past may take before it leaves large inputs out."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode


def lean(data: bytes) -> bytes:
    """Return an outcome without a large input of its task; what is none stays as it is (pure)."""
    if len(data) <= SPARED_BYTES:
        return data
    try:
        outcome = _fields.decode(data)
        task = _fields.decode(bytes(outcome["task"]))
        if len(bytes(task["input"])) <= SPARED_BYTES:
            return data
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return data
    task |= {"input": msgspec.Raw(b"null"), "spared": msgspec.Raw(b"true")}
    return _encode(outcome | {"task": msgspec.Raw(_encode(task))})


class Relief:
    """How the room in one project's store stands, for who packs its past, and what goes to make some."""

    def __init__(self, connection: Connection) -> None:
        """Look over `connection`."""
        self._connection, self.storage = connection, Storage(connection)
        self._refused_s = float("-inf")
        self._past_bytes = 0

    @property
    def scarce(self) -> bool:
        """Return whether large inputs are to be left out."""
        limit_bytes = self.storage.limit_bytes
        swollen = 0 < limit_bytes * PAST_SHARE < self._past_bytes
        return swollen or self.storage.scarce or time.monotonic() - self._refused_s < REFUSED_S

    def refused(self, error: KnotworkError) -> bool:
        """Take note of why something was not stored; True when that was for want of room."""
        if error.code not in publisher.FULL:
            return False
        self._refused_s = time.monotonic()
        return True

    def packed(self, found: list[Stored]) -> list[Stored]:
        """Return outcomes as they are to be packed now."""
        if not self.scarce:
            return found
        return [msgspec.structs.replace(stored, data=lean(stored.data)) for stored in found]

    async def look(self) -> None:
        """See how it stands, and let go what may go; call it every second or so."""
        await self.storage.look()
        past = (await streams.api(self._connection, f"STREAM.INFO.{subjects.ARCHIVE}")).get("state") or {}
        self._past_bytes = int(past.get("bytes", 0))
        if self.storage.full or time.monotonic() - self._refused_s < REFUSED_S:
            for stream, pattern in PASTS.items():
                with contextlib.suppress(NotFound):  # a project without workflows
                    await self._forget(stream, pattern)
        if self.storage.tight:
            with contextlib.suppress(NotFound):  # a project without telemetry
                await self._drop_telemetry()

    async def _forget(self, stream: str, pattern: str) -> None:
        """Remove the oldest of a stream, as much as goes at once, but nothing that is too young."""
        state = (await streams.api(self._connection, f"STREAM.INFO.{stream}")).get("state") or {}
        count, first = int(state.get("messages", 0)), int(state.get("first_seq", 0))
        step = max(1, count * AT_ONCE_BYTES // max(1, int(state.get("bytes", 0))))
        young = await reading.place_at(self._connection, stream, pattern, clock.now_ns() - int(KEPT_S * 1e9))
        end = min(first + step, young, int(state.get("last_seq", 0)))
        if end > first:
            gone = await reading.purge(self._connection, stream, pattern, end)
            log.warning(
                "the store is full: %d messages of %s, the oldest, were forgotten before their time", gone, stream
            )

    async def _drop_telemetry(self) -> None:
        name = streams.telemetry_stream().name
        state = (await streams.api(self._connection, f"STREAM.INFO.{name}")).get("state") or {}
        first, last = int(state.get("first_seq", 0)), int(state.get("last_seq", 0))
        if state.get("messages"):
            gone = await reading.purge(self._connection, name, ">", (first + last) // 2 + 1)
            log.warning("the store is nearly out of room: %d records of telemetry were dropped", gone)
