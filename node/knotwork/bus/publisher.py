"""How does a message become a stored fact? Publish to JetStream and wait for the server's word, many at a time.

One reply subject per message on the connection's shared inbox, no subscription and no task each, so a thousand can be
in flight at once. What the server refuses comes back as one of our errors, with the server's number in its detail.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import wire
from knotwork.bus.away import lost_error
from knotwork.bus.connection import is_no_responders
from knotwork.sdk.errors import Conflict, Internal, Invalid, KnotworkError, TimedOut, TooLarge, Unavailable, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message

ACK_TIMEOUT_S = 10.0


class Ack(msgspec.Struct, frozen=True):
    """The server has it, on disk where the stream says so. `seq` is its place in the stream."""

    stream: str
    seq: int
    duplicate: bool = False


class _Reply(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Reply)

_BY_NUMBER: dict[int, tuple[type[KnotworkError], str, str]] = {
    10071: (Conflict, "bus.wrong_revision", "Somebody else changed it first."),
    10164: (Conflict, "bus.wrong_revision", "Somebody else changed it first."),
    10077: (Conflict, "bus.exists", "It is recorded already, or the stream is full."),
    10054: (TooLarge, "bus.message_too_large", "The message is larger than the stream allows."),
    10023: (Unavailable, "bus.store_full", "The store has no room left."),
    10047: (Unavailable, "bus.store_full", "The store has no room left."),
    10002: (Unavailable, "bus.store_full", "The project has used up its storage."),
    10122: (Unavailable, "bus.store_full", "The store has no room left."),
    10008: (Unavailable, "bus.not_ready", "JetStream is starting."),
    10039: (Unavailable, "bus.no_jetstream", "JetStream is not enabled for this project."),
}
FULL = frozenset({"bus.store_full", "bus.stream_full"})
"""The codes of what there was no room for."""
_EXHAUSTED = {"maximum messages exceeded", "maximum bytes exceeded"}


def refusal(error: dict[str, Any]) -> KnotworkError:
    """Return the error for a JetStream API error `{code, err_code, description}`."""
    number, text = int(error.get("err_code", 0)), str(error.get("description", "refused"))
    kind, code, why = _BY_NUMBER.get(number, (Invalid, "bus.refused", "NATS refused it."))
    if number == 10077 and text in _EXHAUSTED:  # noqa: PLR2004  (one number for a duplicate and for a full stream)
        kind, code, why = Unavailable, "bus.stream_full", "The stream is full."
    if kind is Invalid and int(error.get("code", 400)) == 503:  # noqa: PLR2004
        kind, code = Unavailable, "bus.unavailable"
    retry_after_s = 1.0 if issubclass(kind, Unavailable) else None
    return kind(f"{why} ({text})", code=code, detail={"nats": number}, retry_after_s=retry_after_s)


def no_stream(subject: str) -> Unreachable:
    """Return the error of a message that no stream took."""
    return Unreachable(f"No stream takes {subject}, or JetStream is away.", code="bus.no_stream", retry_after_s=1.0)


def odd_answer(headers: Mapping[str, str]) -> Internal:
    """Return the error of an answer that has a status which nobody expects."""
    status = f"{headers.get('Status', '')} {headers.get('Description', '')}"
    return Internal(f"JetStream answered {status}.", code="bus.bad_answer")


def read_ack(message: Message) -> Ack:
    """Return what the server acknowledged; raises the error it answered instead."""
    if is_no_responders(message):
        raise no_stream(message.subject)
    try:
        reply = _decoder.decode(message.data)
    except msgspec.DecodeError as error:
        raise Internal(f"unreadable answer from JetStream: {message.data[:200]!r}", code="bus.bad_ack") from error
    if reply.error is not None:
        raise refusal(reply.error)
    return Ack(reply.stream, reply.seq, reply.duplicate)


async def publish(
    connection: Connection, subject: str, payload: bytes, *, head: bytes = b"", timeout_s: float = ACK_TIMEOUT_S
) -> Ack:
    """Store one message and return the server's word for it.

    Raises `Conflict` (exists, wrong revision), `Unavailable` (full, not ready), `TooLarge`, `Unreachable`, `TimedOut`.
    After `TimedOut` or `Unreachable` it may or may not be stored: publish it again under the same unique subject.
    """
    try:
        answer = await connection.request(subject, payload, timeout_s=timeout_s, head=head, patient=False)
    except Unreachable as error:
        if error.code == "bus.no_responders":
            raise no_stream(subject) from None
        raise
    return read_ack(answer)


async def publish_many(
    connection: Connection,
    messages: list[tuple[str, bytes, bytes]],
    *,
    window: int = 1000,
    timeout_s: float = ACK_TIMEOUT_S,
) -> list[Ack | KnotworkError]:
    """Store many independent messages `(subject, payload, head)`, `window` in flight; one answer each, in order.

    What has no answer after `timeout_s` seconds gets `TimedOut` (`bus.no_answer`), and `Unreachable` (`bus.lost`) when
    the connection was lost: it may be stored or not. What was not even sent gets `Unreachable` (`bus.not_sent`).
    """
    many = _Many(connection, messages, window)
    try:
        async with asyncio.timeout(timeout_s):
            await many.run()
    except TimeoutError:
        pass  # what has no answer keeps the error it was given at the start
    finally:
        many.close()
    return many.answers


class _Many:
    """Messages on their way, each with a reply subject of its own but no task and no future."""

    def __init__(self, connection: Connection, messages: list[tuple[str, bytes, bytes]], window: int) -> None:
        unsent = Unreachable("It was not sent: JetStream is too slow.", code="bus.not_sent", retry_after_s=1.0)
        self.answers: list[Ack | KnotworkError] = [unsent] * len(messages)
        self._connection, self._messages = connection, messages
        self._places = asyncio.Semaphore(window)
        self._open: dict[str, int] = {}
        self._forget = connection.on_down(self._lost)
        self._left = len(messages)
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Send all and return when each has its answer."""
        for index in range(len(self._messages)):
            await self._places.acquire()
            self._send(index)
        if self._messages:
            await self._done.wait()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._forget()
        silence = TimedOut("No answer from JetStream; it may be stored or not.", code="bus.no_answer")
        for reply, index in list(self._open.items()):
            self._settle(reply, index, silence)

    def _lost(self) -> None:
        for reply, index in list(self._open.items()):
            self._settle(reply, index, lost_error(self._messages[index][0]))

    def _send(self, index: int) -> None:
        def deliver(message: Message) -> None:
            try:
                self._settle(reply, index, read_ack(message))
            except KnotworkError as error:
                self._settle(reply, index, error)

        reply = self._connection.open_reply(deliver)
        self._open[reply] = index
        subject, payload, block = self._messages[index]
        try:
            self._connection.send(subject, payload, reply, block)
        except KnotworkError as error:
            self._settle(reply, index, error)

    def _settle(self, reply: str, index: int, answer: Ack | KnotworkError) -> None:
        if reply not in self._open:
            return
        del self._open[reply]
        self._connection.close_reply(reply)
        self.answers[index] = answer
        self._left -= 1
        self._places.release()
        if self._left == 0:
            self._done.set()


def expect_revision(revision: int) -> tuple[str, str]:
    """Return the header that makes a publish succeed only when the subject's last message is this one (0: none)."""
    return ("Nats-Expected-Last-Subject-Sequence", str(revision))


def expect_none(pattern: str) -> tuple[tuple[str, str], ...]:
    """Return the headers that make a publish succeed only when no subject of the stream fits a pattern.

    What the same atomic batch brings does not count: one process must not ask for it twice at a time.
    """
    return (expect_revision(0), ("Nats-Expected-Last-Subject-Sequence-Subject", pattern))


def once(key: str) -> tuple[str, str]:
    """Return the header that makes a publish with the same key, within the stream's `duplicate_window`, store nothing."""
    return ("Nats-Msg-Id", key)


def ttl(seconds: int) -> tuple[str, str]:
    """Return the header that lets the server remove the message after whole seconds, one at least."""
    return ("Nats-TTL", str(max(1, seconds)))


def head(*pairs: tuple[str, str]) -> bytes:
    """Return the header block of these pairs, nothing for none."""
    return wire.header(*pairs) if pairs else b""
