"""May a part of something larger begin now? Not while that is paused, however long the part has been in its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knotwork.work.records import Task

LABEL = "orchestration"
"""What a task is part of."""


class Gate:
    """Asks whoever knows what is paused; with `waits` nothing that is part of something begins before somebody does."""

    def __init__(self, *, waits: bool = False) -> None:
        """Know of nobody yet."""
        self._waits = waits
        self.is_held: Callable[[str], Awaitable[bool]] | None = None
        """Returns whether nothing of what a label names may begin; raises `KnotworkError` when that cannot be said."""

    def concerns(self, task: Task) -> bool:
        """Return whether a task is part of something."""
        return LABEL in task.labels and (self._waits or self.is_held is not None)

    async def holds(self, task: Task) -> bool:
        """Return whether a task may not begin now; raises what `is_held` does."""
        if not self.concerns(task):
            return False
        return self.is_held is None or await self.is_held(task.labels[LABEL])
