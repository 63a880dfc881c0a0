"""How is a stream read that somebody else made? Directly when it answers that, else one message after the other.

Other clients than ours leave `allow_direct` off when they make a stream, and it can be switched off at any time. Then only
JetStream's API answers (`STREAM.MSG.GET`), which gives one message for each request.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from knotwork.bus import reading, streams
from knotwork.bus.reading import Stored
from knotwork.sdk.errors import NotFound

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection


class Reader:
    """Reads one stream; made by `reader_of`. When a read raises `bus.no_stream` or `bus.not_found`, make it anew."""

    def __init__(self, connection: Connection, stream: str, *, direct: bool) -> None:
        """Read `stream` over a connection; `direct` is whether it answers direct requests."""
        self._connection, self.stream, self._direct = connection, stream, direct

    async def batch(self, subject: str, from_seq: int, count: int) -> list[Stored]:
        """Return up to `count` messages whose subject fits, from a place in the stream on, in order; [] at the end."""
        if self._direct:
            return await reading.batch(self._connection, self.stream, subject, from_seq, count)
        found: list[Stored] = []
        size_bytes, place = 0, max(1, from_seq)
        while len(found) < count and size_bytes < reading.BATCH_MAX_BYTES:
            one = await self._next(subject, place)
            if one is None:
                break
            found.append(one)
            size_bytes, place = size_bytes + len(one.data), one.seq + 1
        return found

    async def place_at(self, subject: str, time_ns: int) -> int:
        """Return a place behind all messages whose subject fits that were stored before a time, and before all others.

        The time is nanoseconds since 1970, by the server's clock.
        """
        if self._direct:
            return await reading.place_at(self._connection, self.stream, subject, time_ns)
        state = (await streams.api(self._connection, f"STREAM.INFO.{self.stream}")).get("state") or {}
        low, high = max(1, int(state.get("first_seq", 1))), int(state.get("last_seq", 0)) + 1
        while low < high:  # the time grows with the place
            middle = (low + high) // 2
            one = await self._next(subject, middle)
            if one is None or one.time_ns >= time_ns:
                high = middle
            else:
                low = one.seq + 1
        return low

    async def _next(self, subject: str, from_seq: int) -> Stored | None:
        """Return the first message whose subject fits from a place on, None when there is none."""
        try:
            answer = await streams.api(
                self._connection, f"STREAM.MSG.GET.{self.stream}", {"seq": from_seq, "next_by_subj": subject}
            )
        except NotFound as error:
            if error.detail.get("nats") != streams.MESSAGE_NOT_FOUND:
                raise  # the stream is gone: it may begin anew
            return None
        one = answer.get("message") or {}
        data = base64.b64decode(one.get("data") or "")
        return Stored(str(one.get("subject", "")), data, int(one.get("seq", 0)), str(one.get("time", "")))


async def reader_of(connection: Connection, stream: str) -> Reader:
    """Return what reads a stream as it is set up now; raises `NotFound` when there is none."""
    settings = (await streams.api(connection, f"STREAM.INFO.{stream}")).get("config") or {}
    return Reader(connection, stream, direct=bool(settings.get("allow_direct")))
