"""How is a stream read without a consumer? One message by its subject, or a batch from a place on (NATS ADR-31).

The server keeps nothing for such a reader, so nothing has to be resumed after a restart: the reader knows its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, codec, publisher, streams
from knotwork.bus.away import lost_error, not_connected
from knotwork.bus.connection import is_no_responders
from knotwork.sdk.errors import Invalid, NotFound, TimedOut

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message

_NOT_DELETED = {10043, 10057}
READ_TIMEOUT_S = 5.0
BATCH_MAX_BYTES = 8 * 1024 * 1024
PAGE = 500


class Stored(msgspec.Struct, frozen=True):
    """One message of a stream. `time` is when it was stored, RFC 3339 as the server writes it."""

    subject: str
    data: bytes
    seq: int
    time: str

    @property
    def time_ns(self) -> int:
        """Return when it was stored in nanoseconds since 1970, to the microsecond."""
        return clock.read(self.time)


async def last(
    connection: Connection, stream: str, subject: str, *, timeout_s: float = READ_TIMEOUT_S
) -> Stored | None:
    """Return the last message whose subject fits, None when there is none; wildcards are allowed."""
    body = codec.encode({"last_by_subj": subject})
    message = await connection.request(f"$JS.API.DIRECT.GET.{stream}", body, timeout_s=timeout_s, patient=False)
    return _stored(message)


async def batch(
    connection: Connection, stream: str, subject: str, from_seq: int, count: int, *, timeout_s: float = READ_TIMEOUT_S
) -> list[Stored]:
    """Return up to `count` messages whose subject fits, from a place in the stream on, in order; [] at the end.

    Few pages are on their way over one connection at a time, so many readers of large messages do not lose it.
    """
    body = {"batch": count, "seq": max(1, from_seq), "next_by_subj": subject, "max_bytes": BATCH_MAX_BYTES}
    async with connection.pages if count > 1 else nullcontext():
        return await _gather(connection, stream, body, timeout_s)


async def at(connection: Connection, stream: str, subject: str, place: int) -> Stored | None:
    """Return the message at a place of the stream, None when there is none, or its subject does not fit."""
    found = await batch(connection, stream, subject, place, 1)
    return found[0] if found and found[0].seq == place else None


async def every(
    connection: Connection, stream: str, subject: str, *, after: int = 0, timeout_s: float = READ_TIMEOUT_S
) -> AsyncGenerator[Stored, None]:
    """Yield every message whose subject fits, behind a place of the stream, in order; it is read a page at a time."""
    while page := await batch(connection, stream, subject, after + 1, PAGE, timeout_s=timeout_s):
        for stored in page:
            yield stored
        after = page[-1].seq


async def place_at(connection: Connection, stream: str, subject: str, time_ns: int) -> int:
    """Return the place of the first message whose subject fits that was stored at a time or later, or the next to come.

    The time is nanoseconds since 1970, by the server's clock.
    """
    newest = await last_seq(connection, stream)
    body = {"batch": 1, "start_time": clock.written(time_ns), "next_by_subj": subject}
    found = await _gather(connection, stream, body, READ_TIMEOUT_S)
    return found[0].seq if found else newest + 1


async def each_last(
    connection: Connection, stream: str, subjects: list[str], *, timeout_s: float = READ_TIMEOUT_S
) -> list[Stored]:
    """Return the last message of every subject that fits one of the patterns (1024 subjects at most)."""
    return await _gather(connection, stream, {"multi_last": subjects}, timeout_s)


async def count_from(
    connection: Connection, stream: str, subject: str, from_seq: int, *, timeout_s: float = READ_TIMEOUT_S
) -> int:
    """Return how many messages whose subject fits there are from a place in the stream on; only one of them is read."""
    body = codec.encode({"batch": 1, "seq": max(1, from_seq), "next_by_subj": subject})
    message = await connection.request(f"$JS.API.DIRECT.GET.{stream}", body, timeout_s=timeout_s, patient=False)
    if _stored(message) is None:
        return 0
    behind = (message.headers or {}).get("Nats-Num-Pending", "0")
    return 1 + int(behind)


async def subjects_of(connection: Connection, stream: str, subject: str) -> list[str]:
    """Return the subjects of a stream that fit a pattern, without their messages; the server tells 100,000 at a time."""
    found: dict[str, int] = {}
    offset, total = 0, 1
    while offset < total:
        asked = {"subjects_filter": subject, "offset": offset}
        answer = await streams.api(connection, f"STREAM.INFO.{stream}", asked, timeout_s=30)
        page = (answer.get("state") or {}).get("subjects") or {}
        if not page:
            break
        found |= page
        offset, total = offset + len(page), int(answer.get("total", 0))
    return list(found)


async def _gather(connection: Connection, stream: str, body: dict[str, Any], timeout_s: float) -> list[Stored]:
    found: list[Stored] = []
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def deliver(message: Message) -> None:
        if end.done():
            return
        status = (message.headers or {}).get("Status", "")
        if is_no_responders(message):
            end.set_exception(publisher.no_stream(stream))
        elif status in ("204", "404"):
            end.set_result(None)
        elif status:
            end.set_exception(publisher.odd_answer(message.headers or {}))
        else:
            stored = _stored(message)
            if stored is not None:
                found.append(stored)

    def lost() -> None:
        if not end.done():
            end.set_exception(lost_error(stream))

    forget = connection.on_down(lost)
    reply = connection.open_reply(deliver)
    try:
        async with asyncio.timeout(timeout_s):
            await _connected(connection)
            connection.send(f"$JS.API.DIRECT.GET.{stream}", codec.encode(body), reply)
            await end
    except TimeoutError:
        raise TimedOut(f"Stream {stream} did not answer within {timeout_s:g} s.", code="bus.no_answer") from None
    finally:
        connection.close_reply(reply)
        forget()
    return found


async def _connected(connection: Connection) -> None:
    """Wait for the connection, but not as long as for a long answer; raises `Unreachable` (`bus.disconnected`)."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            await connection.wait_connected()
    except TimeoutError:
        raise not_connected(connection) from None


def _stored(message: Message) -> Stored | None:
    headers = message.headers or {}
    status = headers.get("Status", "")
    if status == "404":
        return None
    if status:
        raise publisher.odd_answer(headers)
    return Stored(
        headers.get("Nats-Subject", ""), message.data, int(headers.get("Nats-Sequence", 0)),
        headers.get("Nats-Time-Stamp", ""),
    )  # fmt: skip


async def delete(connection: Connection, stream: str, seq: int) -> None:
    """Remove one message; raises `NotFound` when it is gone."""
    try:
        await streams.api(connection, f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})
    except Invalid as error:
        if error.detail.get("nats") in _NOT_DELETED:  # the server's words for a message that is not there
            raise NotFound(f"There is no message {seq} in {stream}.", code="bus.not_found") from None
        raise


async def purge(connection: Connection, stream: str, subject: str, below_seq: int) -> int:
    """Remove every message whose subject fits and whose place is below `below_seq`; returns how many there were."""
    answer = await streams.api(
        connection, f"STREAM.PURGE.{stream}", {"filter": subject, "seq": below_seq}, timeout_s=30
    )
    return int(answer.get("purged", 0))


async def purge_but(connection: Connection, stream: str, subject: str, keep: int) -> int:
    """Remove all messages whose subject fits but the newest `keep`; returns how many went."""
    answer = await streams.api(connection, f"STREAM.PURGE.{stream}", {"filter": subject, "keep": keep}, timeout_s=30)
    return int(answer.get("purged", 0))


async def last_seq(connection: Connection, stream: str) -> int:
    """Return the place of the newest message of a stream."""
    answer = await streams.api(connection, f"STREAM.INFO.{stream}")
    return int((answer.get("state") or {}).get("last_seq", 0))
