"""Which nodes were ever here? What is meant for one that is away waits for it; for one that never was, it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.bus import clock, codec, kv, subjects

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

_KNOWN = "known"
"""The corner of SETTINGS where the name of every node that was ever here is kept."""


async def remember(connection: Connection, node: str) -> None:
    """Keep the name of a node that is here, for as long as the project lasts: what is meant for it waits for it."""
    bucket = await kv.open_bucket(connection, subjects.SETTINGS)
    if await bucket.get(f"{_KNOWN}.{node}") is None:
        await bucket.put(f"{_KNOWN}.{node}", codec.encode({"since": clock.written(clock.now_ns())}))


async def is_known(connection: Connection, node: str) -> bool:
    """Return whether a node is here, or was."""
    if await kv.Bucket(connection, subjects.NODES).get(node) is not None:
        return True
    return await kv.Bucket(connection, subjects.SETTINGS).get(f"{_KNOWN}.{node}") is not None
