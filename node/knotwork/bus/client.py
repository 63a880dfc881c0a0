"""How does a thin client ask a node something? One connection, one op, its frames, and away."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from knotwork.bus import frames, subjects
from knotwork.bus.connection import open_connection
from knotwork.sdk.errors import KnotworkError, TimedOut

if TYPE_CHECKING:
    from knotwork.bus.endpoint import Endpoint
    from knotwork.bus.wire import Message

ALIVE_MAX_S = 20.0
"""A node sends a sign of life every five seconds while it works; silence for this long means that it is gone."""


async def call(
    endpoint: Endpoint, op: str, request: bytes, *, timeout_s: float, node: str = "", caller: str = ""
) -> AsyncIterator[frames.Frame]:
    """Ask for one op and yield its frames, the last one being `result` or `error`; `alive` frames are kept back.

    Leaving early (or Ctrl-C) tells the node to stop. Raises `Unreachable`, `Denied`, `TimedOut`.
    """
    subject = subjects.op(op, node)
    call_id = secrets.token_hex(8)
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    async with open_connection(endpoint) as connection:
        reply = connection.open_reply(arrived.put_nowait)
        envelope = frames.Envelope(call_id, timeout_s, caller, plain=False)
        finished = False
        try:
            async with asyncio.timeout(timeout_s):
                connection.send(subject, request, reply, envelope.head())
                while not finished:
                    async with asyncio.timeout(ALIVE_MAX_S):
                        frame = frames.read(await arrived.get())
                    finished = frame.kind in frames.LAST
                    if frame.kind != "alive":
                        yield frame
        except TimeoutError:
            raise TimedOut(
                f"No answer to {op} within {timeout_s:g} s.",
                code="call.timed_out",
                hint="Allow more with --timeout, or see `knotwork status`.",
            ) from None
        finally:
            connection.close_reply(reply)
            if not finished:
                with contextlib.suppress(KnotworkError):  # the link is gone: the node notices by itself
                    connection.send(subjects.op_cancel(call_id))
