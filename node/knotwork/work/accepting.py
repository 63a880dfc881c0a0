"""May this agent take from this queue, and should it now? The policy's word, and who else is free.

An agent whom the policy forbids a boundary never asks a queue of it, so its node never sees that work. One that may only
step in waits while a preferred agent is online with a free place, but not longer than the boundary says: then it takes,
whatever the directory tells of the others. The directory is as old as their last heartbeat, so that one who seems full
may be free: a task is left to it for a moment, in which whoever is really free takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from knotwork.bus import clock, reading, subjects
from knotwork.mesh.policy import NONE

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.mesh.membership import Membership
    from knotwork.mesh.policy import Judgement, Policy, Standing
    from knotwork.sdk.router import Candidate
    from knotwork.work.queues import Depth, Queue
    from knotwork.work.taking import Taker


HESITATE_S = 1.0
"""How long a task is left to preferred agents who are online and seem to be full."""


class Accepting:
    """Decides for the takers of one node in one project (`taking.Accepts`)."""

    def __init__(
        self, connection: Connection, membership: Membership | None, *, node: str, pauses: Callable[[], bool]
    ) -> None:
        """Follow the policy of `membership`; without one everything is accepted. Nothing is while it `pauses()`."""
        self._connection, self._membership, self._node, self._pauses = connection, membership, node, pauses
        self._waited_s: dict[str, float] = {}

    def __call__(self, taker: Taker, queue: Queue, /) -> bool:
        """Return whether `taker` should take from `queue` now."""
        if self._pauses():
            return False
        if self._membership is None or queue.boundary == NONE:
            return True
        standing = self._judge(self._membership.policy(), taker, queue).standing
        if standing != "fallback":
            return standing != "forbidden"
        return subjects.addressee(queue.routed) is not None or self._steps_in_now(queue)

    def permits(self, taker: Taker, queue: Queue) -> bool:
        """Return whether `taker` may ever take from `queue`."""
        if self._membership is None or queue.boundary == NONE:
            return True
        return self._judge(self._membership.policy(), taker, queue).may

    async def look(self, depths: Sequence[Depth]) -> None:
        """Find out how long the oldest task of each queue has waited for a preferred agent; call it every second or so.

        Only queues are looked into from which somebody here may take, and only when it matters.
        """
        if self._membership is None:
            return
        policy, waited_s = self._membership.policy(), {}
        for depth in depths:
            known = depth.queue.boundary in policy.rules
            named = subjects.addressee(depth.queue.routed) is not None  # nobody else could step in
            if named or not known or not depth.pending or not self._steps_in(depth.queue):
                continue
            place = depth.delivered + 1
            oldest = await reading.batch(self._connection, subjects.TASKS, depth.queue.filter, place, 1)
            if oldest:
                waited_s[depth.queue.consumer] = (clock.now_ns() - oldest[0].time_ns) / 1e9
        self._waited_s = waited_s

    # -- within ------------------------------------------------------------------------------------------------------

    def _judge(self, policy: Policy, taker: Taker, queue: Queue) -> Judgement:
        record = taker.record
        return policy.judge(queue.boundary, self._node, record.name, record.executor, record.boundaries)

    def _steps_in(self, queue: Queue) -> bool:
        """Return whether an agent of this node may take from a queue when no preferred one is free."""
        return any(standing == "fallback" for _, standing in self._standings(queue, node=self._node))

    def _steps_in_now(self, queue: Queue) -> bool:
        """Return whether those who may only step in should: nobody preferred is there, or free, or fast enough."""
        assert self._membership is not None
        rule, waited_s = self._membership.policy().rules[queue.boundary], self._waited_s.get(queue.consumer, 0.0)
        free = list(self._preferred(queue))
        if not free or waited_s >= rule.fallback_after_s:
            return True
        return waited_s >= HESITATE_S and all(places <= 0 for places in free)

    def _preferred(self, queue: Queue) -> Iterator[float]:
        """Yield how free each preferred agent is: exactly for ours, for others as their node told last."""
        assert self._membership is not None
        ours = {one.key: one for one in self._membership.agents()}
        for one, standing in self._standings(queue):
            if standing == "preferred" and one.state == "online":
                mine = ours.get(one.agent) if one.node == self._node else None
                yield mine.free if mine is not None else 1.0 - one.load

    def _standings(self, queue: Queue, *, node: str = "") -> Iterator[tuple[Candidate, Standing]]:
        """Yield everybody with the capability, and how each stands to the boundary."""
        assert self._membership is not None
        policy = self._membership.policy()
        for one in self._membership.directory.candidates(capability=queue.routed, node=node, attached=True):
            yield one, policy.judge(queue.boundary, one.node, one.agent, one.executor, one.boundaries).standing
