"""Is work that names an agent meant for this one of that name? Not when whoever wants it may not see it.

It is asked when work gets its place, be it a task, a step of a workflow or a part of an orchestration; and again when it
is about to be given out, because an agent may take the name, or hide, while the work waits. What is not meant for an
agent waits for one of that name that the whole project may see, and nothing tells of the one that is hidden.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import pulls, reading, subjects
from knotwork.sdk.errors import KnotworkError, NotFound
from knotwork.work.records import NOBODY

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.pulls import Delivery
    from knotwork.work.records import Asker, Task
    from knotwork.work.submit import Submitter

log = logging.getLogger(__name__)
Hides = Callable[[str, "Asker"], bool]
"""Whether there is an agent of a name that somebody may not see."""


class Meant:
    """Says for one project whom work is meant for that names an agent."""

    def __init__(self, connection: Connection, submitter: Submitter) -> None:
        """Set work aside through `submitter`."""
        self._connection, self._submitter = connection, submitter
        self.hides: Hides = lambda _agent, _asker: False
        """Whether there is an agent of a name that somebody may not see; set by whoever knows the sessions."""

    def is_hidden(self, agent: str) -> bool:
        """Return whether there is an agent of a name that not all of the project may see."""
        return self.hides(agent, NOBODY)

    def is_for(self, task: Task, agent: str) -> bool:
        """Return whether a task may be given to an agent that takes from its queue.

        What follows from a capability is for whoever has it, also when a router or an earlier step chose among those.
        """
        if not task.agent or task.capability or task.asker is None or task.queue == subjects.seen(task.agent):
            return True
        return not self.hides(agent, task.asker)

    def placed(self, task: Task) -> Task:
        """Return a task in the queue of those of the name who are seen, when who is called so now may not be."""
        if self.is_for(task, task.agent):
            return task
        return msgspec.structs.replace(task, queue=subjects.seen(task.agent))

    async def set_aside(self, task: Task, delivery: Delivery) -> None:
        """Store a task for an agent of the name that everybody sees, then take it from where it stood.

        When NATS is away it stands where it stood, and comes again.
        """
        try:
            await self._submitter.requeue(msgspec.structs.replace(task, queue=subjects.seen(task.agent)))
            with contextlib.suppress(NotFound):
                await reading.delete(self._connection, subjects.TASKS, delivery.seq)
            self._connection.send(delivery.reply, pulls.ACK)
        except KnotworkError as error:
            log.debug("%s is set aside when it comes again: %s", task.run, error)
