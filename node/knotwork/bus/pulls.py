"""How does a worker take messages from a durable consumer? Pull requests it can count, and an answer for each message.

nats-py's `fetch` moves 43 k messages/s and hangs over a server restart; this is one subscription for all pulls of a
worker and a callback per message. A request asks for what is there now (`no_wait`) and expires by itself.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec, streams
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection, Listening
    from knotwork.bus.wire import Message

ACK, NAK, ALIVE, TERM = b"+ACK", b"-NAK", b"+WPI", b"+TERM"
ANSWERS = "$JS.ACK."
"""What every place where a delivery is answered begins with."""
_ACK_PARTS = 9


def later(after_s: int) -> bytes:
    """Return the answer that hands a message back to be delivered again in so many seconds."""
    return b'-NAK {"delay": %d}' % (after_s * 1_000_000_000)


@dataclass(slots=True)
class Delivery:
    """One message taken from a consumer; it comes back when it is not answered within the consumer's lease.

    `count` is how often it was delivered, this time included; `seq` its place in the stream; `stored_ns` when it was
    stored, nanoseconds since 1970; `pending` how many more the consumer has; `reply` is where it is answered.
    """

    subject: str
    data: bytes
    reply: str
    consumer: str
    count: int
    seq: int
    stored_ns: int
    pending: int


def read_delivery(message: Message) -> Delivery | None:
    """Return a message of a consumer, None when it is none."""
    parts = message.reply.split(".")
    if len(parts) < _ACK_PARTS or parts[1] != "ACK":
        return None
    if (
        len(parts) > _ACK_PARTS
    ):  # with domain, account and a random token: $JS.ACK.<domain>.<account>.<9 as before>.<token>
        parts = [*parts[:2], *parts[4:11]]
    try:
        count, seq, _, stored_ns, pending = (int(part) for part in parts[4:9])
    except ValueError:
        return None
    return Delivery(message.subject, message.data, message.reply, parts[3], count, seq, stored_ns, pending)


class Pulls:
    """All pulls of one worker; nothing comes before `open`."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        on_delivery: Callable[[Delivery], None],
        on_end: Callable[[str], None],
    ) -> None:
        """Take from `stream`; `on_delivery` gets each message, `on_end(consumer)` is told that a request gives no more."""
        self._connection, self._stream = connection, stream
        self._on_delivery, self._on_end = on_delivery, on_end
        self._prefix = f"{connection.endpoint.inbox_prefix}.pull_{secrets.token_hex(6)}"
        self._numbers = itertools.count(1)
        self._asked: dict[str, str] = {}
        self._listening: Listening | None = None

    async def open(self) -> None:
        """Listen for what comes."""
        self._listening = await self._connection.listen(f"{self._prefix}.>", self._arrived)
        # messages keep the subject they were stored under, so what is no status arrives by the same subscription

    async def close(self) -> None:
        """Listen no more; what was delivered and not answered comes back to somebody."""
        if self._listening is not None:
            self._connection.unlisten(self._listening)

    def ask(self, consumer: str, batch: int, *, wait_s: float = 0.0) -> None:
        """Ask a consumer for up to `batch` messages; raises `Unreachable`. One request per consumer at a time.

        Without `wait_s` only what is there now comes; with it the request stays open for so many seconds.
        """
        number = str(next(self._numbers))
        body: dict[str, Any] = {"batch": batch}
        if wait_s:
            body["expires"] = int(wait_s * streams.NS)
        else:
            body["no_wait"] = True
        self._connection.send(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{consumer}", codec.encode(body), f"{self._prefix}.{number}"
        )
        self._asked[number] = consumer

    def forget(self) -> None:
        """Take every request for lost: the connection was."""
        self._asked.clear()

    def answer(self, reply: str, what: bytes) -> None:
        """Acknowledge, hand back, or keep a message; nothing when there is no connection: it comes back then."""
        try:
            self._connection.send(reply, what)
        except KnotworkError:
            return

    def _arrived(self, message: Message) -> None:
        if message.subject.startswith(self._prefix):
            consumer = self._asked.pop(message.subject[len(self._prefix) + 1 :], "")
            if consumer:
                self._on_end(consumer)
            return
        delivery = read_delivery(message)
        if delivery is not None:
            self._on_delivery(delivery)


async def ensure_consumer(connection: Connection, stream: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Make sure that a durable consumer exists; returns what the server says about it. Safe to repeat and to race."""
    body = {"stream_name": stream, "config": {"durable_name": name, "name": name, "ack_policy": "explicit", **config}}
    try:
        return await streams.api(connection, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body)
    except Conflict:
        return await streams.api(connection, f"CONSUMER.INFO.{stream}.{name}")


async def consumers(connection: Connection, stream: str) -> list[dict[str, Any]]:
    """Return what the server says about every consumer of a stream."""
    found: list[dict[str, Any]] = []
    while True:
        try:
            page = await streams.api(connection, f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        except NotFound:
            return found
        rows = page.get("consumers") or []
        found += [row for row in rows if isinstance(row, dict)]
        if not rows or len(found) >= int(page.get("total", 0)):
            return found
