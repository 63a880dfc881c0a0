"""May this call start now, wait, or is the agent busy? A fixed number of places and a bounded queue (pure)."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Admission(Generic[Job]):
    """Places and queue of one agent. Jobs leave the queue in the order they came."""

    def __init__(self, concurrency: int, queue_max: int) -> None:
        """Allow `concurrency` jobs at once and `queue_max` waiting ones."""
        self.concurrency = concurrency
        self.queue_max = queue_max
        self.running = 0
        self._queue: deque[Job] = deque()

    @property
    def queued(self) -> int:
        """Return how many wait."""
        return len(self._queue)

    def enter(self, job: Job) -> bool | None:
        """Return True: start it now; False: it waits; None: busy, refuse it."""
        if self.running < self.concurrency and not self._queue:
            self.running += 1
            return True
        if len(self._queue) < self.queue_max:
            self._queue.append(job)
            return False
        return None

    def leave(self) -> None:
        """Give back the place of a job that ended."""
        self.running -= 1

    def next(self) -> Job | None:
        """Return the next job to start, its place taken already; None when nobody waits or all places are full."""
        if self._queue and self.running < self.concurrency:
            self.running += 1
            return self._queue.popleft()
        return None

    def withdraw(self, job: Job) -> None:
        """Take a waiting job out of the queue; no harm when it is not there."""
        try:
            self._queue.remove(job)
        except ValueError:
            return

    def resize(self, concurrency: int, queue_max: int) -> None:
        """Change the limits; what runs and waits stays. Whoever allows more starts the `next` ones."""
        self.concurrency, self.queue_max = concurrency, queue_max
