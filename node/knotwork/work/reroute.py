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
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound
from knotwork.work import queues, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.publisher import Ack
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


def movable(state: State, *, there: bool, gone_s: float, deaf_s: float = 0.0, lease_s: float = GONE_S) -> Which:
    """Return which tasks of an agent's queue are to be moved: those that wait, all, or none (pure).

    `state` is that of its node, `there` says whether the agent is there and may do such work, `gone_s` since when that
    is no longer so; `deaf_s` since when nobody listens there any more. What a draining node works on it brings to an
    end; what a lost node had is given to others: as soon as its leases, which it cannot renew, have run out.
    """
    if deaf_s >= lease_s:
        return "all"
    if deaf_s >= GRACE_S and state != "offline":
        return "waiting"
    if gone_s < GRACE_S or (there and state in ("online", "stale")):
        return "none"
    if state == "offline":
        return "all"
    return "waiting" if state == "draining" or gone_s < GONE_S else "all"


class Rerouter:
    """Moves the tasks of one project."""

    def __init__(
        self, connection: Connection, membership: Membership, submitter: Submitter, *, over: Over, lease_s: float
    ) -> None:
        """Store through `submitter`; `over(task)` says whether an attempt has its outcome."""
        self._lease_s = lease_s
        self._connection, self._membership, self._submitter, self._over = connection, membership, submitter, over
        self._since_s: dict[str, float] = {}
        self._deaf_since_s: dict[str, float] = {}
        self._seen: dict[tuple[str, Which], int] = {}
        self.moved = 0

    async def look(self, depths: Sequence[Depth]) -> None:
        """Move what can be moved, the most urgent first; call it every second or so."""
        await self._listen_for(depths)
        for depth in sorted(depths, key=lambda one: one.queue.urgency):
            await self._look_at(depth)

    async def _listen_for(self, depths: Sequence[Depth]) -> None:
        """Find out which nodes that have tasks in a queue of their own listen no more."""
        named = (subjects.addressee(depth.queue.routed) for depth in depths if depth.pending or depth.taken)
        nodes = {one[0] for one in named if one is not None and one[0]} - {self._membership.here}
        self._deaf_since_s = {node: since_s for node, since_s in self._deaf_since_s.items() if node in nodes}

        async def ask(node: str) -> None:
            if await self._membership.listens(node):
                self._deaf_since_s.pop(node, None)
            else:
                self._deaf_since_s.setdefault(node, time.monotonic())

        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(ask(node))

    def _deaf_s(self, node: str) -> float:
        since_s = self._deaf_since_s.get(node)
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def _look_at(self, depth: Depth) -> None:
        queue, consumer = depth.queue, depth.queue.consumer
        addressed = subjects.addressee(queue.routed)
        if addressed is None or not addressed[0]:  # it is for whoever can
            return
        node, agent = addressed
        state, there = self._membership.directory.state(node), self._may(queue, node, agent)
        deaf_s = self._deaf_s(node)
        if there and state in ("online", "stale") and deaf_s < GRACE_S:
            self._since_s.pop(consumer, None)
            for which in ("waiting", "all"):
                self._seen.pop((consumer, which), None)
            return
        gone_s = time.monotonic() - self._since_s.setdefault(consumer, time.monotonic())
        which = movable(state, there=there, gone_s=gone_s, deaf_s=deaf_s, lease_s=self._lease_s)
        if which != "none" and (depth.pending or depth.taken) and self._is_mine(queue):
            why = f"{node} has no agent {agent} for such work any more"
            if deaf_s >= GRACE_S or state != "online":
                why = f"{node} is {'gone' if deaf_s and state != 'offline' else state}"
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
            if not await self._move_all(found, why):
                break  # again from here
            self._seen[key] = found[-1].seq
            place = found[-1].seq + 1
        if self.moved > before:
            log.info("%d tasks for %s wait for others now: %s", self.moved - before, depth.queue.routed, why)

    async def _move_all(self, found: Sequence[Stored], why: str) -> bool:
        """Move tasks, in their order, and leave what is not to be moved; False when that failed for one."""
        meant = [(stored, task) for stored in found if (task := _chosen(stored)) is not None]
        async with asyncio.TaskGroup() as group:
            over = [group.create_task(self._is_over(task)) for _, task in meant]
        moving: list[tuple[Stored, asyncio.Future[Ack] | None]] = []
        failed = 0
        for (stored, task), looked in zip(meant, over, strict=True):
            ended = looked.result()
            try:
                if ended is not None:
                    moving.append((stored, None if ended else await self._store(elsewhere(task, why))))
            except KnotworkError as error:
                log.debug("%s is moved in a moment: %s", task.run, error)
                ended = None
            failed += ended is None
        async with asyncio.TaskGroup() as group:
            done = [group.create_task(self._finish(stored, storing)) for stored, storing in moving]
        return not failed and all(task.result() for task in done)

    async def _is_over(self, task: Task) -> bool | None:
        """Return whether an attempt has its outcome, None when that cannot be told now."""
        try:
            return await self._over(task)
        except KnotworkError as error:
            log.debug("whether %s is over is asked again in a moment: %s", task.run, error)
            return None

    async def _store(self, task: Task) -> asyncio.Future[Ack] | None:
        """Begin to store a task in its new place, behind those that were begun before; None when it is stored already."""
        storing = self._submitter.requeue_at_once(task)
        if storing is None:
            await self._submitter.requeue(task)
            self.moved += 1
        return storing

    async def _finish(self, stored: Stored, storing: asyncio.Future[Ack] | None) -> bool:
        """Remove a task from its old place once it stands in the new one; False when it does not."""
        try:
            if storing is not None:
                with contextlib.suppress(Conflict):  # it was moved before
                    await storing
                self.moved += 1
            with contextlib.suppress(NotFound):
                await reading.delete(self._connection, subjects.TASKS, stored.seq)
        except KnotworkError as error:
            log.debug("what stands on %s is moved in a moment: %s", stored.subject, error)
            return False
        return True


def _chosen(stored: Stored) -> Task | None:
    """Return a task that a router put where it is; None for one whose submitter named the place, and for garbage."""
    try:
        task = records.decode_task(stored.data)
    except Invalid:
        return None  # whoever takes it drops it
    return None if task.node or not (task.capability or task.agent) else task


def elsewhere(task: Task, why: str) -> Task:
    """Return a task as it waits for anybody with its capability, or of its agent's name (pure)."""
    queue = queues.routed(task.capability, task.agent)
    told = f"{task.why}; then it was moved back to {queue.lstrip('=')}: {why}"
    return msgspec.structs.replace(task, queue=queue, why=told[-records.WHY_MAX :])
