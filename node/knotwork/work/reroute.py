"""What becomes of tasks that a router put into one agent's queue when that agent goes? Back to the queue of their capability.

Only what a router chose is moved; who names an agent waits for that agent. One node does it, the first by name of those
that may see such work. It stores a task in its new place before it removes it from the old one, so nothing is lost
when it dies in between; both copies being delivered does no harm, because an attempt has one outcome wherever it stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from knotwork.bus import reading, subjects
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound
from knotwork.work import queues, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.mesh.directory import State
    from knotwork.mesh.membership import Membership
    from knotwork.work.queues import Depth, Queue
    from knotwork.work.records import Task
    from knotwork.work.submit import Submitter

log = logging.getLogger(__name__)
GRACE_S = 3.0
"""How long an agent must be gone before its tasks are moved: the directory is not complete at once after a (re)connect."""
GONE_S = 60.0
"""After which also tasks are moved that were delivered to an agent which its node, being online, no longer has."""
BATCH = 64
Which = Literal["none", "waiting", "all"]
Over = Callable[["Task"], Awaitable[bool]]


def movable(state: State, *, there: bool, gone_s: float) -> Which:
    """Return which tasks of an agent's queue are to be moved: those that wait, all, or none (pure).

    `state` is that of its node, `there` says whether the agent is there and may do such work, `gone_s` since when that
    is no longer so. What a draining node works on it brings to an end; what a lost node had is given to others.
    """
    if gone_s < GRACE_S or (there and state in ("online", "stale")):
        return "none"
    if state == "offline":
        return "all"
    return "waiting" if state == "draining" or gone_s < GONE_S else "all"


class Rerouter:
    """Moves the tasks of one project."""

    def __init__(self, connection: Connection, membership: Membership, submitter: Submitter, *, over: Over) -> None:
        """Store through `submitter`; `over(task)` says whether an attempt has its outcome."""
        self._connection, self._membership, self._submitter, self._over = connection, membership, submitter, over
        self._since_s: dict[str, float] = {}
        self._seen: dict[tuple[str, Which], int] = {}
        self.moved = 0

    async def look(self, depths: Sequence[Depth]) -> None:
        """Move what can be moved; call it every second or so."""
        for depth in depths:
            await self._look_at(depth)

    async def _look_at(self, depth: Depth) -> None:
        queue, consumer = depth.queue, depth.queue.consumer
        addressed = subjects.addressee(queue.routed)
        if addressed is None or not addressed[0]:  # it is for whoever can
            return
        node, agent = addressed
        state, there = self._membership.directory.state(node), self._may(queue, node, agent)
        if there and state in ("online", "stale"):
            self._since_s.pop(consumer, None)
            for which in ("waiting", "all"):
                self._seen.pop((consumer, which), None)
            return
        gone_s = time.monotonic() - self._since_s.setdefault(consumer, time.monotonic())
        which = movable(state, there=there, gone_s=gone_s)
        if which != "none" and (depth.pending or depth.taken) and self._is_mine(queue):
            why = f"{node} is {state}" if state != "online" else f"{node} has no agent {agent} for such work any more"
            await self._move(depth, which, why)

    def _may(self, queue: Queue, node: str, agent: str) -> bool:
        place = self._membership.directory.place(node, agent)
        if place is None:
            return False
        one = place.candidate
        return self._membership.policy().judge(queue.boundary, node, agent, one.executor, one.boundaries).may

    def _is_mine(self, queue: Queue) -> bool:
        """Return whether this node is the one: the first, by name, that is online with an agent for such work."""
        policy = self._membership.policy()
        for record, state, _ in self._membership.directory.nodes():
            if state == "online" and any(
                policy.judge(queue.boundary, record.node, one.name, one.executor, one.boundaries).may
                for one in record.agents
            ):
                return record.node == self._membership.here
        return False

    async def _move(self, depth: Depth, which: Which, why: str) -> None:
        """Move the tasks behind the place up to which they were looked through before."""
        key = depth.queue.consumer, which
        first = depth.floor if which == "all" else depth.delivered
        place = max(first, self._seen.get(key, 0)) + 1
        before = self.moved
        while found := await reading.batch(self._connection, subjects.TASKS, depth.queue.filter, place, BATCH):
            async with asyncio.TaskGroup() as group:
                working = [group.create_task(self._try(stored, why)) for stored in found]
            if not all(task.result() for task in working):
                break  # again from here
            self._seen[key] = found[-1].seq
            place = found[-1].seq + 1
        if self.moved > before:
            log.info("%d tasks for %s wait for others now: %s", self.moved - before, depth.queue.routed, why)

    async def _try(self, stored: Stored, why: str) -> bool:
        """Move one task, or leave it when it is not to be moved; False when that failed."""
        try:
            task = records.decode_task(stored.data)
        except Invalid:
            return True  # whoever takes it drops it
        if task.node or not (task.capability or task.agent):
            return True
        try:
            if not await self._over(task):
                await self._submitter.requeue(elsewhere(task, why))
                self.moved += 1
            with contextlib.suppress(NotFound):
                await reading.delete(self._connection, subjects.TASKS, stored.seq)
        except KnotworkError as error:
            log.debug("%s is moved in a moment: %s", task.run, error)
            return False
        return True


def elsewhere(task: Task, why: str) -> Task:
    """Return a task as it waits for anybody with its capability, or of its agent's name (pure)."""
    queue = queues.routed(task.capability, task.agent)
    told = f"{task.why}; then it was moved back to {queue.lstrip('=')}: {why}"
    return msgspec.structs.replace(task, queue=queue, why=told[-4000:])
