"""How does every queue of a project stand, second by second? All are listed; of very many only those that may have changed.

What is finished of them is removed here, too, when the rest of the room has seen how they stand.

A queue stays when it is empty, and a server needs a millisecond for thirty of a list. So where there are thousands, a list
is good for some seconds: a queue that was empty then is empty still unless somebody was told of work in it, by a hint, and
only those others are asked for one by one. A hint that got lost is made good by the next list.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from knotwork.bus import patterns
from knotwork.sdk.errors import KnotworkError
from knotwork.work import queues

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.work.queues import Depth, Queue

LISTED_PER_S = 1_000
"""So many queues are listed a second: less often, where there are more."""
ASKED_MAX = 100
"""So many queues are asked for one by one at most; where more may have changed, all are listed."""
EARLY_S = 5.0
"""A hint may be so much older than the task that it is about: it is sent while that is being stored."""


class Sweeper:
    """Looks how the queues of one project stand, and removes what is finished of them."""

    def __init__(self, connection: Connection) -> None:
        """Know of none; nothing is listened to before there are many."""
        self._connection = connection
        self._depths: dict[str, Depth] = {}
        self._hints: dict[Queue, float] = {}
        self._purged: dict[str, int] = {}
        self._listens = False
        self._list_s = 0.0

    def reconnected(self) -> None:
        """List all the next time: hints may have been missed, and a store that was lost begins anew."""
        self._list_s = 0.0
        self._purged.clear()

    async def look(self) -> list[Depth]:
        """Return how every queue stands. Raises what asking the server raises."""
        began_s = time.monotonic()
        filled = (depth.queue for depth in self._depths.values() if depth.pending or depth.taken)
        maybe = {*filled, *self._hints}
        if began_s >= self._list_s or len(maybe) > ASKED_MAX:
            await self._list(began_s)
        else:
            await self._ask(maybe)
        return list(self._depths.values())

    async def forget_finished(self, depths: Iterable[Depth]) -> None:
        """Remove what is finished of queues that stand so, in bulk. Raises what asking the server raises."""
        for depth in depths:
            name = depth.queue.consumer
            if depth.floor > self._purged.get(name, 0):
                await queues.forget_finished(self._connection, depth)
                self._purged[name] = depth.floor

    async def _list(self, began_s: float) -> None:
        listened = self._listens
        found = await queues.sweep(self._connection)
        self._depths = {depth.queue.consumer: depth for depth in found}
        self._hints = {queue: heard_s for queue, heard_s in self._hints.items() if heard_s > began_s - EARLY_S}
        many = len(found) > LISTED_PER_S
        if many and not listened:
            self._listens = True
            await self._connection.listen(patterns.HINTS, self._hinted)
        self._list_s = time.monotonic() + len(found) / LISTED_PER_S if many and listened else 0.0

    async def _ask(self, maybe: set[Queue]) -> None:
        failed: list[KnotworkError] = []

        async def ask(queue: Queue) -> None:
            try:
                depth = await queues.stands(self._connection, queue)
            except KnotworkError as error:
                failed.append(error)
                return
            if depth is not None:
                self._depths[queue.consumer] = depth

        async with asyncio.TaskGroup() as group:
            for queue in maybe:
                group.create_task(ask(queue))
        if failed:
            raise failed[0]

    def _hinted(self, message: Message) -> None:
        queue = queues.from_hint(message.subject)
        if queue is not None and (queue in self._hints or len(self._hints) <= ASKED_MAX):  # with more, all are listed
            self._hints[queue] = time.monotonic()
