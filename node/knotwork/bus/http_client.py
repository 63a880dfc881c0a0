"""How does a thin client ask a node whose NATS gives it no key? Over its HTTP door: the same ops, frame by frame.

h11 speaks HTTP/1.1 without doing input or output itself, so that asking costs a socket and nothing that has to be loaded
long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import h11

from knotwork.bus.request_size import REQUEST_MAX_BYTES, too_large
from knotwork.sdk.errors import Invalid, TimedOut, Unreachable

if TYPE_CHECKING:
    from typing import Any

READ_BYTES = 256 * 1024
LINE_MAX_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
SILENT_MAX_S = 60.0
"""A node sends a sign of life every few seconds on a stream; silence for this long means that it is gone."""
OK = 200


class Door(NamedTuple):
    """A node's HTTP door: its address, the token to show, and the project that is meant."""

    url: str
    token: str
    project: str


class Piece(NamedTuple):
    """One answer, as `frames.Frame`; `data` is JSON."""

    kind: str
    data: bytes


async def over(
    door: Door, op: str, request: bytes, *, timeout_s: float, session: str = "", traceparent: str = ""
) -> AsyncGenerator[Piece, None]:
    """Ask for one op and yield its pieces, the last one being `result` or `error`.

    Leaving early closes the connection, which tells the node to stop. Raises `Unreachable` (`node.unreachable`;
    `node.lost` once it was asked), `TooLarge` over 8 MiB, and `TimedOut` after `timeout_s` seconds.
    """
    if len(request) > REQUEST_MAX_BYTES:
        raise too_large()
    whole = asyncio.timeout(timeout_s)
    asked = False
    try:
        async with whole, _connected(door) as (reader, writer):
            link = h11.Connection(h11.CLIENT, max_incomplete_event_size=READ_BYTES)
            asked = True
            for event in _asking(door, op, request, session, traceparent):
                writer.write(link.send(event) or b"")
            await writer.drain()
            async for piece in _pieces(link, reader):
                yield piece
    except TimeoutError:
        if whole.expired():
            raise TimedOut(f"No answer to {op} within {timeout_s:g} s.", code="call.timed_out") from None
        raise _lost(door, "it is silent", asked=asked) from None
    except (OSError, h11.RemoteProtocolError, EOFError) as error:
        raise _lost(door, str(error), asked=asked) from error


@contextlib.asynccontextmanager
async def _connected(door: Door) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(door.url)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def _asking(door: Door, op: str, request: bytes, session: str, traceparent: str = "") -> list[h11.Event]:
    body = request or b"{}"
    headers = [
        ("host", urlsplit(door.url).netloc), ("authorization", f"Bearer {door.token}"),
        ("content-type", "application/json"), ("accept", "text/event-stream"), ("knotwork-project", door.project),
        ("content-length", str(len(body))), ("connection", "close"),
    ]  # fmt: skip
    if session:
        headers.append(("knotwork-session", session))
    if traceparent:
        headers.append(("traceparent", traceparent))
    target = f"/api/{op.replace('.', '/')}"
    return [h11.Request(method="POST", target=target, headers=headers), h11.Data(data=body), h11.EndOfMessage()]


async def _pieces(link: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[Piece]:
    answer = _Answer()
    while (event := link.next_event()) is not h11.PAUSED:
        if event is h11.NEED_DATA:
            async with asyncio.timeout(SILENT_MAX_S if answer.streamed else None):
                link.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            for piece in answer.ended():
                yield piece
            return
        else:
            for piece in answer.heard(event):
                yield piece


class _Answer:
    """What has arrived of an answer: a stream of events, or one document."""

    def __init__(self) -> None:
        self.streamed = False
        self._status = 0
        self._kind = ""
        self._rest = bytearray()

    def heard(self, event: object) -> Iterator[Piece]:
        """Take a part; yields the pieces that are whole now."""
        if isinstance(event, h11.Response):
            self._status = event.status_code
            self.streamed = dict(event.headers).get(b"content-type", b"").startswith(b"text/event-stream")
        elif isinstance(event, h11.Data):
            self._rest += event.data
            if len(self._rest) > LINE_MAX_BYTES:
                raise Invalid("The node's answer has no end.", code="wire.malformed")
            if self.streamed:
                yield from self._lines()

    def _lines(self) -> Iterator[Piece]:
        while (end := self._rest.find(b"\n")) >= 0:
            name, _, value = bytes(self._rest[:end]).rstrip(b"\r").partition(b": ")
            del self._rest[: end + 1]
            if name == b"event":
                self._kind = value.decode("ascii", "replace")
            elif name == b"data":
                yield Piece(self._kind, value)

    def ended(self) -> Iterator[Piece]:
        """Yield what a document says when it is whole; raises `EOFError` when nothing came."""
        if not self._status:
            raise EOFError("it closed the connection")
        if not self.streamed:
            good = self._status == OK
            yield Piece("result" if good else "error", bytes(self._rest) if good else _wire(bytes(self._rest)))


def _wire(problem: bytes) -> bytes:
    """Return the error inside a problem document as our own wire form."""
    try:
        found: dict[str, Any] = json.loads(problem)
        wire: dict[str, Any] = {key: found[key] for key in ("kind", "code", "hint", "retry_after_s") if key in found}
        wire["message"] = found["detail"]
        wire["detail"] = {**found.get("data", {}), **({"problems": found["problems"]} if "problems" in found else {})}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise Invalid("The node's answer is unreadable.", code="wire.malformed") from None
    return json.dumps(wire).encode()


def _lost(door: Door, why: str, *, asked: bool) -> Unreachable:
    return Unreachable(
        f"The node does not answer at {door.url}: {why}.", code="node.lost" if asked else "node.unreachable",
        hint="See `knotwork status`.",
    )  # fmt: skip
