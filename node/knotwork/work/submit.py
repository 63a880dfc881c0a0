"""How does a task get in? It is stored in its queue, once, and whoever works there is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus.away import why_away
from knotwork.bus.storage import Storage
from knotwork.sdk.errors import TooLarge, Unavailable
from knotwork.work import keyed, queues, records
from knotwork.work.queues import Queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.publisher import Ack
    from knotwork.work.recording import Recorder
    from knotwork.work.records import Task

OUTCOME_BYTES = 16 * 1024
"""Room that a task leaves in its message: its outcome holds the task, and says besides how it ended."""
TASK_BYTES = 600
"""What a task takes besides its input, about."""


class Submitter:
    """Takes tasks of one project."""

    def __init__(self, connection: Connection, recorder: Recorder, tasks: GroupCommit, *, lease_s: float) -> None:
        """Store through these; `lease_s` is given to queues that are opened."""
        self._connection, self._recorder, self._tasks = connection, recorder, tasks
        self._lease_s, self._keyed = lease_s, keyed.Keyed(connection, self._store)
        self._open: set[Queue] = set()
        self.full: Callable[[], bool] = lambda: False
        """Whether the disk of the store has no room at all; set by whoever runs its server."""
        self.storage = Storage(connection)
        self._opening = asyncio.Lock()

    async def submit(self, task: Task) -> bool:
        """Store a task durably; False when one with its key was there before.

        Raises `Conflict` (`work.key_reused`) for a key that was used for other work, `Unavailable` when the store is
        full or NATS is away: nothing was stored then, or submit it again with the same key; `TooLarge`
        (`bus.message_too_large`) for more than this NATS takes in one message.
        """
        self.check_new("The task was not stored.")
        _check_size(task, self._connection.max_payload)
        await self._open_queue(task)
        if task.key:
            asked = task.asked or keyed.asked(task)
            if not await self._keyed.submit(msgspec.structs.replace(task, asked=asked)):
                return False
        else:
            if task.deadline_ns:
                await self._recorder.set_timer(task.run, "deadline", task.deadline_ns, records.encode(task))
            await self._recorder.enqueue(task)
        self.storage.add(len(task.input) + TASK_BYTES)
        return True

    @property
    def no_room(self) -> str:
        """Return why nothing new is taken now, "" when it is."""
        if self.full():
            return "its disk is full"
        return "there is no room for new work" if self.storage.full else ""

    def check_new(self, so: str) -> None:
        """Raise `Unavailable` (`work.store_full`) when there is no room for new work; `so` says what that means.

        Also when NATS is known to be away: `Unreachable` (`bus.disconnected`), `Denied` (`bus.denied`). What is in can still end then: some room is kept for it.
        """
        self.check_room(so)
        if (away := why_away(self._connection)) is not None:
            away.message = f"{away.message} {so}"
            raise away
        if self.storage.full:
            raise Unavailable(
                f"The store is full but for what is kept for the ends of the work that is in. {so}",
                code="work.store_full", retry_after_s=5.0,
                hint="Let work end, or cancel some; else raise max_storage of the project, or nats.max_file_store.",
            )  # fmt: skip

    def no_room_for(self, so: str) -> Unavailable:
        """Return the error (`work.store_full`) of what could not be stored; `so` says what that means."""
        return Unavailable(
            f"The store is full. {so}", code="work.store_full", retry_after_s=5.0,
            hint="Try again in a moment: room is being made. Else raise max_storage of the project, or "
            "nats.max_file_store.",
        )  # fmt: skip

    def check_room(self, so: str) -> None:
        """Raise `Unavailable` (`work.store_full`) when the disk is known to be full; `so` says what that means."""
        if self.full():
            raise Unavailable(
                f"The disk of the store is full. {so}", code="work.store_full",
                hint="Make room: it is noticed by itself.", retry_after_s=5.0,
            )  # fmt: skip

    async def requeue(self, task: Task) -> bool:
        """Store an attempt of a task that is there already in another queue; False when it was there before."""
        await self._open_queue(task)
        return await self._recorder.enqueue(task)

    def requeue_at_once(self, task: Task) -> asyncio.Future[Ack] | None:
        """Do the same for those who cannot wait, and return the answer to come; None when something must be done before.

        Raises what `GroupCommit.put` raises; the answer is `Conflict` when the attempt was there before.
        """
        if task.start_by_ns or Queue(task.boundary, task.queue, task.lane) not in self._open:
            return None
        return self._recorder.put(task)

    def reconnected(self) -> None:
        """Open queues again before they are used: the server may be another."""
        self._open.clear()

    async def _open_queue(self, task: Task) -> None:
        queue = Queue(task.boundary, task.queue, task.lane)
        if queue in self._open:
            return
        async with self._opening:  # one asks the server, a thousand that came together wait for its answer
            if queue not in self._open:
                await queues.open_queue(self._connection, queue, self._lease_s)
                self._open.add(queue)

    async def _store(self, task: Task) -> bool:
        """Store a task that has a key; False when an attempt of it is there already."""
        if task.deadline_ns:
            await self._recorder.set_timer(task.run, "deadline", task.deadline_ns, records.encode(task))
        return await self._recorder.enqueue(task, only=True)


def _check_size(task: Task, limit: int) -> None:
    if len(task.input) < limit // 8:
        return  # most are small: what else is in a task is bounded
    size = len(records.encode(task))
    if size > max(limit - OUTCOME_BYTES, limit // 2) > 0:
        raise TooLarge(
            f"The task takes {size} bytes, and its outcome more; a message of this NATS holds {limit}.",
            code="bus.message_too_large", hint="Raise its max_payload, or give the task the address of its input.",
        )  # fmt: skip
