"""Does whoever began an attempt still have it? A node that dies says nothing; its presence, and claims, tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from knotwork.bus import clock
from knotwork.work import records
from knotwork.work.records import Started

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.mesh.membership import Membership
    from knotwork.work.keeping import Keeper
    from knotwork.work.leases import Leases
    from knotwork.work.records import Task

GRACE_NS = 2_000_000_000
"""A claim this young may not be known here yet."""
NEVER_NS = 1 << 63


class Begun(Protocol):
    """A task that is on record as begun, in whatever list it stands."""

    @property
    def id(self) -> str:
        """The id of the task."""

    @property
    def node(self) -> str:
        """Where it was begun."""

    @property
    def started_ns(self) -> int:
        """When, in nanoseconds since 1970."""

    @property
    def claimed(self) -> int:
        """Whether it was begun by an agent that came in from outside."""


class Holding:
    """What one node knows of who has what in a project."""

    def __init__(self, keeper: Keeper, leases: Leases, membership: Membership | None, *, lease_s: float) -> None:
        """Judge by claims and by presence; without `membership` every node is there."""
        self._keeper, self._leases, self._membership, self._lease_s = keeper, leases, membership, lease_s

    async def holds(self, task: Task, started: Started) -> bool:
        """Return False once the worker of an attempt has vanished and its lease is over."""
        if started.claimed:
            if self._keeper.keeps(task):
                return True
            claim, _ = await self._leases.read(task.run, task.step)  # we may just not have heard of it yet
            return claim is not None and not claim.over and claim.subject == task.subject
        return self._is_there()(started.node, started.started_ns)

    async def begun(self, task: Task) -> Started | None:
        """Return the claim of an agent that came in, which may be too young to be on record as begun."""
        claim, _ = await self._leases.read(task.run, task.step)
        if claim is None or claim.over or claim.subject != task.subject:
            return None
        return Started(claim.node, claim.worker, claim.started_ns, claim.delivery, claimed=True)

    def now(self) -> Callable[[Begun], bool]:
        """Return what says the same of many tasks, as of now and from memory."""
        is_there, young_ns = self._is_there(), clock.now_ns() - GRACE_NS
        keeper = self._keeper

        def holds(one: Begun) -> bool:
            if one.claimed:
                return one.started_ns > young_ns or keeper.knows(one.id, records.STEP)
            return is_there(one.node, one.started_ns)

        return holds

    def _is_there(self) -> Callable[[str, int], bool]:
        """Return what says whether a node that began something at a moment is the same process still, and alive."""
        if self._membership is None:
            return lambda _node, _started_ns: True
        since_ns = {
            record.node: record.started_ns
            for record, state, silent_s in self._membership.directory.nodes()
            if state != "offline" or silent_s < self._lease_s
        }
        return lambda node, started_ns: since_ns.get(node, NEVER_NS) <= started_ns
