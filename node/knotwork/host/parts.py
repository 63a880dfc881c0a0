"""What of a node is loaded while its nats-server starts? Most of it, in a thread, in the order in which it is needed.

What NATS needs is loaded before; what is needed only after the node is ready is loaded by whoever needs it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.host.ground import Ground
    from knotwork.host.rooms import Rooms
    from knotwork.sockets.catalog import Catalog


class Parts:
    """What is being loaded, one after the other: to load side by side would take as long."""

    def __init__(self, group: asyncio.TaskGroup, plugins: Callable[[], Catalog]) -> None:
        """Begin, in tasks of `group`; `plugins` loads them and blocks."""
        self.ground: asyncio.Task[type[Ground]] = group.create_task(asyncio.to_thread(_ground), name="ground")
        self.rooms: asyncio.Task[type[Rooms]] = group.create_task(self._rooms(), name="rooms")
        self.catalog: asyncio.Task[Catalog] = group.create_task(self._plugins(plugins), name="plugins")

    async def _rooms(self) -> type[Rooms]:
        await asyncio.wait([self.ground])
        return await asyncio.to_thread(_rooms)

    async def _plugins(self, load: Callable[[], Catalog]) -> Catalog:
        await asyncio.wait([self.rooms])
        return await asyncio.to_thread(load)


def _ground() -> type[Ground]:
    from knotwork.host.ground import Ground  # what makes streams comes first: the server is to work on them early

    return Ground


def _rooms() -> type[Rooms]:
    from knotwork.host.rooms import Rooms  # the rest of the node, 200 ms

    return Rooms
