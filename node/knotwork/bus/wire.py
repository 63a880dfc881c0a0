"""How does one message get in and out of a nats-py client at once? The one place that touches its private parts.

nats-py sends and receives through a coroutine, a queue and a task switch for each message. On the path of every
invocation that is most of the cost, so here a message is put straight into the client's write buffer, and an arriving
one is handed straight to a function. What is relied upon is checked once per connection by `Wire.__init__`; the version
of nats-py is pinned for this.
"""

# ruff: noqa: SLF001  reaching into the client's private parts is what this module is for

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from knotwork.bus.library import Client, errors
from knotwork.bus.parser import DirectParser
from knotwork.sdk.errors import Invalid, TooLarge, Unreachable

log = logging.getLogger(__name__)

_VERSION = "NATS/1.0"
Handler = Callable[["Message"], None]
_RELIED_UPON = (
    "_pending", "_pending_data_size", "_flush_queue", "_flusher_task", "_process_msg", "_max_payload", "_ps",
)  # fmt: skip
BUFFER_MAX_BYTES = 64 * 1024 * 1024
"""Unsent bytes in one process before a sender is refused: eight of the largest messages."""
REPLY_MAX_BYTES = 2048
"""A message with a longer reply subject is taken for one without: to a line over 4096 bytes the server ends the connection."""


def header(*pairs: tuple[str, str]) -> bytes:
    """Return a NATS header block; raises `Invalid` (`wire.bad_header`) for what would end a line early."""
    text = "".join(f"{key}: {value}\r\n" for key, value in pairs)
    if text.count("\n") != len(pairs) or text.count("\r") != len(pairs):
        raise Invalid("A header holds the end of a line.", code="wire.bad_header", hint="Clean it first.")
    try:
        return b"NATS/1.0\r\n" + text.encode() + b"\r\n"
    except UnicodeEncodeError as error:
        raise Invalid("A header holds half a character.", code="wire.bad_header") from error


def clean(value: str, size_max: int = 256) -> str:
    """Return `value` without anything that could end a header line, cut to `size_max` characters."""
    return "".join(char if char.isprintable() else " " for char in value[:size_max]).strip()


class Message:
    """One message as it arrived."""

    __slots__ = ("_block", "_headers", "data", "reply", "subject")

    def __init__(
        self, subject: str, reply: str, data: bytes, headers: dict[str, str] | None = None, block: bytes = b""
    ) -> None:
        """Take what arrived; `block` are headers that are read when somebody looks: most are never looked at."""
        self.subject, self.reply, self.data = subject, reply, data
        self._headers, self._block = headers, block

    @property
    def headers(self) -> dict[str, str] | None:
        """Return the headers, None when there are none; a status line shows as `Status`."""
        if self._headers is None and self._block:
            self._headers = parse_headers(self._block)
        return self._headers

    def header(self, name: str) -> str:
        """Return one header as the server writes it, "" when there is none; the others are not read.

        What somebody else put there under the same name stands before what the server adds, so the last one counts.
        """
        _, found, rest = self._block.rpartition(f"\r\n{name}: ".encode())
        return rest.partition(b"\r\n")[0].decode("utf-8", "replace") if found else ""


def parse_headers(block: bytes) -> dict[str, str]:
    """Return the headers of a block `NATS/1.0[ status[ text]]` CRLF, then `Name: value` lines; never raises."""
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    status = first[len(_VERSION) :].strip()
    if status:
        headers["Status"], _, headers["Description"] = status.partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


class DirectClient(Client):
    """A nats-py client that hands messages of some subscriptions straight to a function."""

    def __init__(self, *, by_tls: bool = False) -> None:
        """Start without any such subscription; `lost` is set when the link is, `trouble` is the last that went wrong.

        With `by_tls` nothing is said in the clear: nats-py asks for TLS only where the server says that it wants it.
        """
        super().__init__()
        self._by_tls = by_tls
        self.direct: dict[int, Handler] = {}
        self.lost = asyncio.Event()
        self.trouble = ""
        self._ps = DirectParser(self, self.direct, deliver)

    @property
    def payload_max_bytes(self) -> int:
        """Return the largest message in bytes, as the server says."""
        return int(self._max_payload)

    @property
    def reading(self) -> bool:
        """Return whether the reader lives; a client can say that it is connected when it does not."""
        return self._reading_task is not None and not self._reading_task.done()

    def abort(self) -> None:
        """Tear the socket down: a half-open link would keep `close` waiting for ever."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def scrap(self) -> None:
        """Tear the socket down and end the client's own tasks, at once and whatever state it is in."""
        self.abort()
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None and not task.done():
                task.cancel()
        session = getattr(self._transport, "_client", None)
        if session is not None:  # of a web socket: its first step closes everything, the rest only waits for that
            ending = session.close()
            with contextlib.suppress(StopIteration):
                ending.send(None)
            ending.close()
        self.direct.clear()

    def _connect_command(self) -> bytes:
        """Return what shows who we are, said right after TLS began; overrides the method of the pinned version."""
        secret = hasattr(self._transport, "_io_writer") and _know_tls(self._transport)
        if self._by_tls and not secret:
            raise errors.SecureConnWantedError
        return super()._connect_command()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Take one message from nats-py's parser; overrides the method of the pinned version."""
        handler = self.direct.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        deliver(handler, subject, reply, bytes(data), headers or b"")


def deliver(handler: Handler, subject: bytes, reply: bytes, data: bytes, head: bytes) -> None:
    """Hand a message to its function. The server lets any bytes pass, so a reply subject may be none to be answered on."""
    back = reply.decode("utf-8", "ignore") if len(reply) <= REPLY_MAX_BYTES else ""
    if len(back) != len(reply) and back.encode() != reply:
        back = ""
    message = Message(subject.decode("utf-8", "replace"), back, data, None, head)
    try:
        handler(message)
    except Exception:  # an exception here would end nats-py's reader and with it the connection
        log.exception("handler of %s failed", message.subject)


class Wire:
    """The fast way into and out of one client."""

    def __init__(self, client: DirectClient) -> None:
        """Bind to a connected client; raises `RuntimeError` when this nats-py has other insides than expected."""
        for name in _RELIED_UPON:
            if not hasattr(client, name):
                raise RuntimeError(f"this version of nats-py has no {name}; pin the version that pyproject.toml names")
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._plain = hasattr(client._transport, "_io_writer")  # a WebSocket writes by nats-py's flusher alone
        self._scheduled = False
        self._in_socket = 0

    def send(self, subject: str, payload: bytes, reply: str = "", head: bytes = b"") -> None:
        """Put one message into the write buffer; subjects must come from `bus.subjects` or from an inbox.

        Raises `TooLarge` over the server's limit, `Unreachable` when closed or when too much is waiting to be sent.
        """
        client = self._client
        if client.is_closed:
            raise Unreachable("The connection to NATS was lost just now.", code="bus.disconnected", retry_after_s=1.0)
        size = len(payload) + len(head)
        if size > client._max_payload:
            raise too_large("message", size, client._max_payload)
        if not self._scheduled:  # what the socket still has changes in between turns of the loop alone
            self._in_socket = self._in_socket_bytes()
        if self._in_socket + client._pending_data_size > BUFFER_MAX_BYTES:
            raise Unreachable("Too much is waiting to be sent.", code="bus.buffer_full", retry_after_s=1.0)
        if head:
            line = f"HPUB {subject} {reply} {len(head)} {size}\r\n".encode()
            command = b"".join((line, head, payload, b"\r\n"))
        else:
            command = b"".join((f"PUB {subject} {reply} {size}\r\n".encode(), payload, b"\r\n"))
        self._put(command)

    def _in_socket_bytes(self) -> int:
        """Return how many bytes wait in this process that were handed to the socket."""
        transport: Any = self._client._transport
        if not self._plain or transport is None:
            return 0
        return int(transport._io_writer.transport.get_write_buffer_size())

    def listen(self, subject: str, handler: Handler, queue: str = "") -> int:
        """Call `handler` for each message of `subject`, in order, inside the reader: it must be quick and not block.

        Returns the number to give to `unlisten`. nats-py's own subscriptions are not used: each has a queue and a
        task, and its `subscribe` swallows cancellation.
        """
        client = self._client
        client._sid += 1
        sid: int = client._sid
        client.direct[sid] = handler
        self._put(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def unlisten(self, sid: int) -> None:
        """Stop calling the handler; no harm when it has been stopped before."""
        if self._client.direct.pop(sid, None) is not None:
            self._put(f"UNSUB {sid}\r\n".encode())

    def _put(self, command: bytes) -> None:
        self._client._pending.append(command)
        self._client._pending_data_size += len(command)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what gathered in this turn of the loop with one call, past nats-py's flusher: no queue, task or future."""
        self._scheduled = False
        client = self._client
        if not client.is_connected or not client._pending:
            return
        transport: Any = client._transport
        if not self._plain:
            queue: Any = client._flush_queue
            queue.put_nowait(self._loop.create_future())
            return
        pending, client._pending, client._pending_data_size = client._pending, [], 0
        try:
            transport._io_writer.write(pending[0] if len(pending) == 1 else b"".join(pending))
        except (OSError, RuntimeError) as error:  # the socket is gone: the reader notices, and the client is made anew
            log.debug("could not write: %s", error)


def _know_tls(transport: Any) -> bool:
    """Tell asyncio's protocol of a link that nats-py made a TLS one, as asyncio's own upgrade does: it warns at the end.

    Returns whether it is one.
    """
    writer = transport._io_writer
    if writer is None or writer.get_extra_info("sslcontext") is None:
        return False
    protocol = writer.transport.get_protocol()
    if protocol is not None:  # the server has not hung up already
        protocol._over_ssl = True
    return True


def too_large(what: str, size: int, most: int) -> TooLarge:
    """Return the error of what has more bytes than the server takes in one message."""
    return TooLarge(
        f"The {what} has {size} bytes; the limit is {most}.",
        code="bus.message_too_large",
        hint="Send less, or put it somewhere both sides can read and send the address.",
    )
