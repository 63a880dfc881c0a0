"""How does a thin client ask a node something? One connection, one op, its frames, and away."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from knotwork.bus import frames, subjects
from knotwork.bus.connection import is_no_responders, open_connection
from knotwork.bus.credit import WINDOW_BYTES, Reading
from knotwork.sdk.errors import KnotworkError, TimedOut, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.endpoint import Endpoint
    from knotwork.bus.wire import Message

ALIVE_MAX_S = 20.0
"""A node sends a sign of life every second while it works; silence for this long means that it is gone."""


async def call(
    endpoint: Endpoint,
    op: str,
    request: bytes,
    *,
    timeout_s: float,
    node: str = "",
    caller: str = "",
    patient: bool = True,
    whole: bool = False,
    answer_s: float = 0.0,
    session: str = "",
) -> AsyncIterator[frames.Frame]:
    """Ask for one op and yield its frames, the last one being `result` or `error`; `alive` frames are kept back.

    Leaving early (or Ctrl-C) tells the node to stop. A node may answer after a reconnect, so who is `patient` waits for
    that; who may simply ask again is told at once that the connection was lost. Pieces may be lost with a connection:
    who needs the `whole` of them gets an error then. A node that was asked to wait, and shows that it lives, may take
    `answer_s` longer to put its answer together. Raises `Unreachable` (`node.lost` once
    it was asked, `bus.no_responders` when no such node is there), `Denied`, `TimedOut` after `timeout_s` seconds.
    """
    async with open_connection(endpoint) as connection:
        pieces = over(
            connection, op, request, timeout_s=timeout_s, node=node, caller=caller, patient=patient, whole=whole,
            answer_s=answer_s, session=session,
        )  # fmt: skip
        async with aclosing(pieces):
            async for frame in pieces:
                yield frame


async def over(
    connection: Connection,
    op: str,
    request: bytes,
    *,
    timeout_s: float,
    node: str = "",
    caller: str = "",
    patient: bool = True,
    whole: bool = False,
    answer_s: float = 0.0,
    session: str = "",
    traceparent: str = "",
) -> AsyncGenerator[frames.Frame, None]:
    """Do the same over a connection that is there and stays, within the trace of `traceparent`."""
    subject = subjects.op(op, node)
    call_id = secrets.token_hex(8)
    arrived: asyncio.Queue[Message | None] = asyncio.Queue()
    reply = connection.open_reply(arrived.put_nowait)
    link = _Link(connection, None if patient else lambda: arrived.put_nowait(None))
    left_s = timeout_s + answer_s
    envelope = frames.Envelope(
        call_id, left_s, caller, traceparent=traceparent, plain=False, session=session, window=WINDOW_BYTES
    )
    reading = Reading(connection, call_id)
    finished = False
    limit = asyncio.timeout(timeout_s)
    last_s = asyncio.get_running_loop().time() + left_s
    try:
        async with limit:
            connection.send(subject, request, reply, envelope.head())
            while not finished:
                async with asyncio.timeout(ALIVE_MAX_S):
                    message = await arrived.get()
                if message is None:
                    raise link.lost(op, 0.0)
                if is_no_responders(message):  # not a frame, so that it is never taken for what a node answered
                    raise _nobody()
                frame = frames.read(message)
                alive = frame.kind == "alive"
                if alive and answer_s:
                    _allow(limit, last_s)
                place = reading.place(message, 0 if alive else len(frame.data))
                if place == "gap" and whole:
                    raise link.torn(op)
                if not alive and place != "again":
                    finished = frame.kind in frames.LAST
                    yield frame
                reading.used(surely=alive)
    except TimeoutError:
        if not limit.expired():
            raise link.lost(op, ALIVE_MAX_S) from None
        raise _too_late(op, timeout_s) from None
    finally:
        link.close()
        connection.close_reply(reply)
        if not finished:
            with contextlib.suppress(KnotworkError):  # the link is gone: the node notices by itself
                connection.send(subjects.op_cancel(call_id))


def _allow(limit: asyncio.Timeout, last_s: float) -> None:
    """Give a node that has just shown that it lives the time in which it has to do so again, up to a moment."""
    until_s = min(asyncio.get_running_loop().time() + ALIVE_MAX_S, last_s)
    if (now_s := limit.when()) is not None and until_s > now_s:
        limit.reschedule(until_s)


def _too_late(op: str, timeout_s: float) -> TimedOut:
    """Return the error of a caller who has waited long enough."""
    hint = "Allow more with --timeout, or see `knotwork status`."
    return TimedOut(f"No answer to {op} within {timeout_s:g} s.", code="call.timed_out", hint=hint)


def _nobody() -> Unreachable:
    """Return the error of a caller whom no node hears."""
    hint = "Is the node running? See `knotwork status`."
    return Unreachable("Nobody answers there.", code="bus.no_responders", hint=hint)


class _Link:
    """What became of the connection while one answer was waited for, and the errors that say so."""

    def __init__(self, connection: Connection, lost: Callable[[], None] | None) -> None:
        self._connection, self._lost = connection, lost
        self._why = ""
        self._forget = connection.on_down(self._down)

    def _down(self) -> None:
        self._why = self._connection.last_error or "it was closed at the other end"
        if self._lost is not None:
            self._lost()

    def close(self) -> None:
        """Look no more."""
        self._forget()

    def lost(self, op: str, silent_s: float) -> Unreachable:
        """Return the error of a caller whose node, or whose link, has gone after it was asked."""
        connection = self._connection
        if self._why or connection.state != "connected":
            why = self._why or connection.last_error or "it was closed at the other end"
            what = f"The connection to NATS at {connection.endpoint.shown} was lost before {op} was answered: {why.rstrip('.')}."
        else:
            what = f"The node gave no sign of life for {silent_s:g} s: it went away, or hangs, before it answered {op}."
        return Unreachable(
            what,
            code="node.lost",
            hint="See `knotwork status`. What was asked may have been done or not; waiting for its end can be repeated.",
        )

    def torn(self, op: str) -> Unreachable:
        """Return the error of one who needs the whole of an answer of which pieces are missing."""
        why = f", when the connection to it was lost: {self._why.rstrip('.')}" if self._why else ""
        return Unreachable(
            f"A part of the answer to {op} was lost between NATS at {self._connection.endpoint.shown} and here{why}.",
            code="node.lost",
            hint="What came is not the whole. Ask again.",
        )
