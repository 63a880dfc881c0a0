"""Who is at work on a launch, a demand or a target? One at a time on each; who comes meanwhile waits, or comes again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from knotwork.bus.background import begin_in
from knotwork.bus.pauses import comes_again


class Turns:
    """What one node does about its launches, by their names."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        """Work in tasks of `group`."""
        self._group = group
        self._under_way: dict[str, asyncio.Event] = {}

    @property
    def idle(self) -> bool:
        """Return whether nothing is done now."""
        return not self._under_way

    def taken(self, name: str) -> bool:
        """Return whether something is done there now."""
        return name in self._under_way

    async def over(self, name: str) -> None:
        """Return when nothing is done there any more; until the next wait one's own turn may begin (`alone`)."""
        while (ended := self._under_way.get(name)) is not None:
            await ended.wait()

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Have a turn for as long as the block lasts; nothing may be done there before."""
        assert name not in self._under_way, "wait until it is over"
        over = self._begin(name)
        try:
            yield
        finally:
            over()

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside, unless something is done there already."""
        task = begin_in(self._group, _contained(work)) if not self.taken(name) else None
        if task is None:
            work.close()
            return
        over = self._begin(name)

        def done(_task: object) -> None:
            over()
            work.close()  # a task that was cancelled before its first step has not begun it

        task.add_done_callback(done)

    def _begin(self, name: str) -> Callable[[], None]:
        """Let a turn begin; returns what ends it."""
        self._under_way[name] = ended = asyncio.Event()

        def over() -> None:
            del self._under_way[name]
            ended.set()

        return over


async def _contained(work: Coroutine[Any, Any, None]) -> None:
    with comes_again("a step of a launch"):
        await work
