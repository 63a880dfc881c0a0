"""How does this node ask another one an op? Over the project's connection, for one whole answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.bus import codec, frames, subjects
from knotwork.sdk.errors import NotFound, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection


async def ask(
    connection: Connection, op: str, node: str, request: dict[str, Any], *, timeout_s: float
) -> dict[str, Any]:
    """Return what a node answers to an op that does not stream.

    Raises the error that it answers with, `NotFound` (`node.not_found`) when it is not there, and what
    `Connection.request` raises.
    """
    try:  # without an envelope, so that nothing comes but the answer
        answer = await connection.request(subjects.op(op, node), codec.encode(request), timeout_s=timeout_s)
    except Unreachable as error:
        if error.code != "bus.no_responders":
            raise
        raise NotFound(f"There is no node {node!r} now.", code="node.not_found", hint="See `knotwork nodes`.") from None
    frame = frames.read(answer)
    if frame.kind == "error":
        raise frames.read_error(frame.data)
    told = codec.decode(frame.data)
    return told if isinstance(told, dict) else {}
