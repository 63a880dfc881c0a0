"""What has somebody who looks on not read yet? The last of what happened; of one who is slow the oldest is lost, and counted."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
BACKLOG_MAX = 1000


@dataclass(eq=False, slots=True)
class Backlog(Generic[T]):
    """What one watcher is to be told."""

    rows: deque[T] = field(default_factory=deque)
    some: asyncio.Event = field(default_factory=asyncio.Event)
    lost: int = 0

    def offer(self, row: T) -> None:
        """Keep something until it is read, or others have taken its place."""
        if len(self.rows) >= BACKLOG_MAX:
            self.rows.popleft()
            self.lost += 1
        self.rows.append(row)
        self.some.set()

    async def stirred(self) -> int:
        """Return when there is something, or `some` was set; how many were lost that came before `rows`."""
        await self.some.wait()
        self.some.clear()
        lost, self.lost = self.lost, 0
        return lost
