"""How are many tasks ended at once? Side by side, and on through a full store or a restart of the server.

What cannot be ended now is tried again for as long as others can, and a little longer: each end frees room, and so does
whoever packs the past.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from knotwork.bus import clock
from knotwork.desk.tasks import rows as task_rows
from knotwork.ops import task_replies
from knotwork.sdk.errors import KnotworkError, TimedOut, Unavailable, Unreachable

if TYPE_CHECKING:
    from knotwork.work.lookup import Sight

AT_ONCE = 64
"""Tasks that are ended at once, when many are."""
PATIENCE_S = 30.0
"""So long nothing may be ended before the rest is given up: longer than what was packed stays in FACTS."""
PAUSE_S = 0.25
PASSING = (Unavailable, Unreachable, TimedOut)
"""What may pass: no room, or no server."""


class Ending:
    """One request to end many tasks."""

    def __init__(self, cancel: Callable[[str, int], Awaitable[task_replies.Cancelled]], patience_s: float) -> None:
        """End each by `cancel(run, since_ns)`, which says whether it was ended by us, since that moment."""
        self._cancel, self._patience_s = cancel, patience_s
        self._since_ns, self._progress_s = clock.now_ns(), time.monotonic()
        self._begun: set[str] = set()
        self._rows: list[task_replies.Cancelled] = []
        self._places = asyncio.Semaphore(AT_ONCE)

    async def all(self, find: Callable[[], AsyncIterator[Sight]]) -> task_replies.CancelledTasks:
        """End all that `find()` yields, each once; raises what it raises when that does not pass.

        What waits is ended before what runs: the place of one that was stopped would be taken by one that is meant, too.
        """
        failure: KnotworkError | None = None
        running: dict[str, Sight] = {}
        async with asyncio.TaskGroup() as group:
            while failure is None:
                try:
                    async for sight in find():
                        if sight.state == "running":
                            running[sight.task.run] = sight
                        else:
                            await self._begin(sight, group)
                    break
                except PASSING as error:
                    failure = error if self._is_stuck() else None
                    await asyncio.sleep(PAUSE_S)
        async with asyncio.TaskGroup() as group:
            for sight in running.values():
                await self._begin(sight, group)
        if failure is not None and not self._rows:
            raise failure
        return task_replies.CancelledTasks(tasks=self._rows, changed=sum(one.changed for one in self._rows))

    async def _begin(self, sight: Sight, group: asyncio.TaskGroup) -> None:
        if sight.task.run not in self._begun:
            self._begun.add(sight.task.run)
            await self._places.acquire()
            group.create_task(self._end(sight))

    def _is_stuck(self) -> bool:
        return time.monotonic() - self._progress_s >= self._patience_s

    async def _end(self, sight: Sight) -> None:
        try:
            self._rows.append(await self._patiently(sight))
        finally:
            self._places.release()

    async def _patiently(self, sight: Sight) -> task_replies.Cancelled:
        while True:
            try:
                row = await self._cancel(sight.task.run, self._since_ns)
            except PASSING as error:
                if self._is_stuck():
                    return not_cancelled(sight.task.run, error, sight.state)
                await asyncio.sleep(PAUSE_S)
            else:
                self._progress_s = time.monotonic()
                return row


def not_cancelled(run: str, error: KnotworkError, state: str = "unknown") -> task_replies.Cancelled:
    """Return the row of a task that could not be ended, with the state that it is in as far as known."""
    told = task_rows.error_of(error.to_wire())
    return task_replies.Cancelled(id=run, state=state, changed=False, why=error.message, error=told)
