"""Is there another process with our identity? A data folder that was copied makes two nodes of one.

A process that was killed leaves its record behind and listens no more: the server says so at once, and whoever starts
again need not wait. One that answers is alive. One that listens and is silent (frozen, or behind a link that was cut)
gets the time of a beat to show that it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from knotwork.bus import clock, subjects
from knotwork.mesh import records
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket, Entry
    from knotwork.mesh.records import NodeRecord

NO_CALL = "none"
"""The id of no call: to be told to stop it does nothing, but to say who listens."""
ASK_S = 0.5
LOOK_S = 0.2
LATE_S = 1.0
WAIT_MAX_S = 15.0
OWN = "If this data folder is a copy, delete identity.json in it, and the node becomes one of its own"


def record_in(entry: Entry | None) -> NodeRecord | None:
    """Return the record of an entry, None when there is none that can be read."""
    if entry is None or not entry.value:
        return None
    with contextlib.suppress(Invalid):
        return records.decode(entry.key, entry.value)
    return None


async def refuse_living(connection: Connection, bucket: Bucket, entry: Entry, other: NodeRecord) -> None:
    """Raise `Conflict` (`mesh.same_identity`) when the process that wrote a record with our identity is alive.

    Raises what the bus raises when nobody can be asked.
    """
    if await lives(connection, bucket, entry, other):
        raise Conflict(
            f"A node with this one's identity, {other.node}, runs already on {other.host or 'another machine'}.",
            code="mesh.same_identity",
            hint=f"{OWN} (with another node.name, when the configuration sets one). Else stop the other.",
            detail={"node": other.node, "host": other.host},
        )


async def lives(connection: Connection, bucket: Bucket, entry: Entry, other: NodeRecord) -> bool:
    """Return whether the process that wrote a record is alive; takes a beat of it when it listens and says nothing."""
    try:
        await connection.request(subjects.cancel(other.node, NO_CALL), timeout_s=ASK_S)
    except Unreachable as error:
        if error.code == "bus.no_responders":
            return False
        raise
    except KnotworkError:  # nobody answers
        return await _beats(bucket, entry, min(other.heartbeat_s + LATE_S, WAIT_MAX_S))
    return True


async def _beats(bucket: Bucket, before: Entry, wait_s: float) -> bool:
    """Return whether a record is written anew within so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while True:
                await asyncio.sleep(LOOK_S)
                now = await bucket.get(before.key)
                if now is None or now.revision != before.revision:
                    return now is not None
    return False


def taken(entry: Entry, other: NodeRecord) -> Conflict:
    """Return the error of whoever finds his name taken; it says when that is free should the other be dead."""
    silent_s = max(0.0, (clock.now_ns() - entry.at_ns) / 1e9) if entry.at_ns else 0.0
    free_s = max(1.0, other.ttl_s - silent_s)
    return Conflict(
        f"Another node is called {other.node} already, on {other.host or 'another machine'}; "
        f"it was last heard {silent_s:.0f} s ago.",
        code="mesh.name_taken",
        hint=f"Give this one another node.name, or stop the other. If that is dead, the name is free in {free_s:.0f} s.",
        detail={"node": other.node, "host": other.host, "silent_s": round(silent_s, 1), "free_in_s": round(free_s, 1)},
        retry_after_s=free_s,
    )


def beside(other: NodeRecord, uid: str) -> str:
    """Return what is wrong when somebody else writes our record, as a sentence."""
    where = other.host or "another machine"
    if other.uid != uid:
        return f"another node on {where} is called {other.node}, too: give one of them another node.name"
    return f"a node with this one's identity runs on {where}, too: stop one. {OWN}"
