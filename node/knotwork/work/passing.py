"""To whom does a task go whose input an agent's schema refuses? To another with its capability that takes such an input.

Agents of one capability may ask for different inputs, and whoever is free first takes the task: its schema must not
decide what becomes of it. The directory tells everybody's schema, so a task goes straight to one that fits, into the
queue of that agent alone. It is stored there before it is removed from where it stood, and no attempt is used up. Who
gets it so and refuses it all the same (its schema has just changed) is the last: then it ends as `agent.bad_input`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import codec, reading, subjects
from knotwork.mesh.policy import NONE
from knotwork.mesh.schemas import Schema
from knotwork.sdk.errors import KnotworkError, NotFound
from knotwork.work import queues, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.mesh.membership import Membership
    from knotwork.sdk.router import Candidate
    from knotwork.work.records import Task
    from knotwork.work.submit import Submitter

Passes = Callable[["Task", str, bytes], Awaitable[bool]]
"""What `Passing.pass_on` is."""
REFUSED = "agent.bad_input"
PASSED = "whose input schema refuses it, passed it on to"
"""How `Task.why` tells of it."""


def may_pass(task: Task, error: KnotworkError) -> bool:
    """Return whether a task that failed may go to another agent instead: it was refused before it began (pure).

    Not when an agent was named, or people were meant; nor when it was passed on to the one that refused it.
    """
    if error.code != REFUSED or error.detail.get("begun") or task.agent or not task.capability:
        return False
    if subjects.circle_of(task.queue):
        return False
    return task.queue == task.capability or PASSED not in task.why


class Passing:
    """Passes on the tasks of one project that agents of this node refuse."""

    def __init__(self, connection: Connection, membership: Membership, submitter: Submitter) -> None:
        """Choose by the directory and the policy of `membership`; store through `submitter`."""
        self._connection, self._membership, self._submitter = connection, membership, submitter

    async def pass_on(self, task: Task, agent: str, data: bytes) -> bool:
        """Store a task, whose input is `data`, for another agent than ours; False when nobody else would take it.

        Raises `Unavailable`, `Unreachable`: then it stands where it stood.
        """
        other = await self.other(task, agent, codec.decode(data))
        if other is None:
            return False
        told = f"{task.why}; {self._membership.here}/{agent}, {PASSED} {other.name}"
        queue = queues.routed(agent=other.agent, node=other.node)
        there = msgspec.structs.replace(task, queue=queue, why=told[-records.WHY_MAX :])
        await self._submitter.requeue(there)
        stood = await reading.last(self._connection, subjects.TASKS, task.subject)
        if stood is not None:  # else it could not come back to that queue, should it have to
            with contextlib.suppress(NotFound):
                await reading.delete(self._connection, subjects.TASKS, stood.seq)
        return True

    async def other(self, task: Task, agent: str, value: Any) -> Candidate | None:
        """Return the least busy agent that can, may and would take an input; those that can be called come first."""
        directory, policy = self._membership.directory, self._membership.policy()
        found = [
            one
            for one in directory.candidates(capability=task.capability, attached=True)
            if one.state == "online" and (one.node, one.agent) != (self._membership.here, agent)
        ]
        if task.boundary != NONE:
            found, _ = policy.sift(task.boundary, found)
        judged: list[tuple[dict[str, Any] | None, bool]] = []
        fitting: list[tuple[bool, float, str, Candidate]] = []
        for one in found:
            place = directory.place(one.node, one.agent)
            if place is None:
                continue
            schema = place.record.input_schema
            known = next((fits for seen, fits in judged if seen == schema), None)
            if known is None:
                known = await takes(schema, value)
                judged.append((schema, known))
            if known:
                fitting.append((place.record.attached, one.load, one.name, one))
        return min(fitting, key=lambda row: row[:3], default=(False, 0.0, "", None))[3]


async def takes(schema: dict[str, Any] | None, value: Any) -> bool:
    """Return whether an agent with this input schema would take a value; a schema that is none takes nothing."""
    if schema is None:
        return True
    try:
        await Schema(schema, "input").check(value, "input")
    except KnotworkError:
        return False
    return True
