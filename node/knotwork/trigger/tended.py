"""Which triggers is this node busy with? A task for each, begun anew when its trigger changes, and ended with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from knotwork.bus.background import ended

if TYPE_CHECKING:
    from knotwork.trigger.store import Known

log = logging.getLogger(__name__)


class Tended:
    """The tasks of one kind of triggers."""

    def __init__(self, group: asyncio.TaskGroup, tend: Callable[[Known], Coroutine[None, None, None]]) -> None:
        """Run `tend` for each trigger that is ours, in tasks of `group`, until it is cancelled."""
        self._group, self._tend = group, tend
        self._tasks: dict[str, tuple[int, asyncio.Task[None]]] = {}

    def settle(self, name: str, known: Known | None) -> None:
        """Begin or end what is done for a trigger, None when it is not ours."""
        revision, task = self._tasks.get(name, (0, None))
        if known is not None and revision == known.revision:
            return
        if task is not None:
            task.cancel()
            del self._tasks[name]
        if known is not None:
            doing = self._group.create_task(self._surely(known, task), name=f"trigger {name}")
            self._tasks[name] = (known.revision, doing)

    async def _surely(self, known: Known, before: asyncio.Task[None] | None) -> None:
        """Tend a trigger, once the one `before` has ended: it may be writing down what it has just done.

        An error that nobody foresaw ends that, and not the project's other triggers with it.
        """
        try:
            if before is not None:
                await ended(before)
            await self._tend(known)
        except Exception:
            log.exception("the trigger %s is left alone until it changes", known.trigger.id)
