"""How does a thin client ask a node something? One connection, one op, its frames, and away."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from knotwork.bus import frames, subjects
from knotwork.bus.connection import is_no_responders, open_connection
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
    session: str = "",
) -> AsyncIterator[frames.Frame]:
    """Ask for one op and yield its frames, the last one being `result` or `error`; `alive` frames are kept back.

    Leaving early (or Ctrl-C) tells the node to stop. A node may answer after a reconnect, so who is `patient` waits for
    that; who may simply ask again is told at once that the connection was lost. Raises `Unreachable` (`node.lost` once
    it was asked, `bus.no_responders` when no such node is there), `Denied`, `TimedOut` after `timeout_s` seconds.
    """
    async with open_connection(endpoint) as connection:
        pieces = over(
            connection, op, request, timeout_s=timeout_s, node=node, caller=caller, patient=patient, session=session
        )
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
    session: str = "",
    traceparent: str = "",
) -> AsyncGenerator[frames.Frame, None]:
    """Do the same over a connection that is there and stays, within the trace of `traceparent`."""
    subject = subjects.op(op, node)
    call_id = secrets.token_hex(8)
    arrived: asyncio.Queue[Message | None] = asyncio.Queue()
    reply = connection.open_reply(arrived.put_nowait)
    forget = None if patient else connection.on_down(lambda: arrived.put_nowait(None))
    envelope = frames.Envelope(call_id, timeout_s, caller, traceparent=traceparent, plain=False, session=session)
    finished = False
    whole = asyncio.timeout(timeout_s)
    try:
        async with whole:
            connection.send(subject, request, reply, envelope.head())
            while not finished:
                async with asyncio.timeout(ALIVE_MAX_S):
                    message = await arrived.get()
                if message is None:
                    raise _lost(op, connection, 0.0)
                if is_no_responders(message):  # not a frame, so that it is never taken for what a node answered
                    raise Unreachable(
                        "Nobody answers there.",
                        code="bus.no_responders",
                        hint="Is the node running? See `knotwork status`.",
                    )
                frame = frames.read(message)
                finished = frame.kind in frames.LAST
                if frame.kind != "alive":
                    yield frame
    except TimeoutError:
        if not whole.expired():
            raise _lost(op, connection, ALIVE_MAX_S) from None
        raise TimedOut(
            f"No answer to {op} within {timeout_s:g} s.",
            code="call.timed_out",
            hint="Allow more with --timeout, or see `knotwork status`.",
        ) from None
    finally:
        if forget is not None:
            forget()
        connection.close_reply(reply)
        if not finished:
            with contextlib.suppress(KnotworkError):  # the link is gone: the node notices by itself
                connection.send(subjects.op_cancel(call_id))


def _lost(op: str, connection: Connection, silent_s: float) -> Unreachable:
    """Return the error of a caller whose node, or whose link, has gone after it was asked."""
    if connection.state != "connected":
        why = connection.last_error or "it was closed at the other end"
        what = f"The connection to NATS at {connection.endpoint.shown} was lost before {op} was answered: {why}."
    else:
        what = f"The node gave no sign of life for {silent_s:g} s: it went away, or hangs, before it answered {op}."
    return Unreachable(
        what,
        code="node.lost",
        hint="See `knotwork status`. What was asked may have been done or not; waiting for its end can be repeated.",
    )
