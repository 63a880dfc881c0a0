"""Telling agents of other projects ends when the node does, also while COMMONS refuses us."""

from __future__ import annotations

import asyncio
from typing import Any

from knotwork.bus import kv
from knotwork.mesh import afar
from knotwork.sdk.errors import Unreachable


class Refusing:
    """A connection, and a bucket over it, that fail in the moment in which they are left: no server can be timed so."""

    def __init__(self) -> None:
        self.watched, self.watches = asyncio.Event(), 0

    async def wait_connected(self) -> None:
        pass

    async def watch(self, *_: Any) -> None:
        self.watches += 1
        try:
            self.watched.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unreachable("The connection to NATS is closed.", code="bus.closed") from None


async def test_it_ends_in_the_moment_in_which_the_connection_fails(monkeypatch):
    refusing = Refusing()

    async def open_bucket(*_: Any) -> Refusing:
        return refusing

    monkeypatch.setattr(kv, "open_bucket", open_bucket)
    monkeypatch.setattr(afar, "AGAIN_S", 3600.0)
    told: Any = afar.Afar("here", "1")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        telling = group.create_task(told.run(lambda: refusing))
        await refusing.watched.wait()
        telling.cancel()
    assert telling.cancelled()
    assert refusing.watches == 1
