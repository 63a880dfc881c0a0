"""Which work waits for an agent that is not there, or for one of too few? Found from queues and who is online (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from knotwork.bus import subjects


class Waiting(NamedTuple):
    """Tasks that wait in one queue: `routed` is a capability, `=agent` or `node=agent`; `task` is one of them."""

    boundary: str
    routed: str
    pending: int
    task: str = ""


class Demand(NamedTuple):
    """An agent is missing: for this boundary and route, so many tasks wait.

    `busy`: there are agents, but too few. The task that has waited longest has for `waited_s` seconds, as far as that was
    looked up.
    """

    boundary: str
    routed: str
    pending: int
    task: str = ""
    busy: bool = False
    waited_s: float = 0.0

    @property
    def capability(self) -> str:
        """Return the capability that is missing; an agent asked for by name offers its name."""
        return self.routed.removesuffix("=").rpartition("=")[2]

    @property
    def is_claimed(self) -> bool:
        """Return whether it is private or personal work: those it is meant for claim it, executors of a node get none."""
        return bool(subjects.circle_of(self.routed))

    @property
    def key(self) -> str:
        """Return its name in LEASES: two nodes never launch for the same demand."""
        return f"spinup.{self.boundary}.{self.routed}"


def keys(boundary: str, capability: str) -> tuple[str, ...]:
    """Return the names in LEASES of the demands that a launch for a capability may serve: any agent's, or one of that name."""
    return tuple(Demand(boundary, routed, 0).key for routed in (capability, f"={capability}"))


def is_for_one_node(routed: str) -> bool:
    """Return whether work waits for an agent of one named node: only that node can do it, so no target helps."""
    node, named, _ = routed.partition("=")
    return bool(named and node)


def demands(
    waiting: Iterable[Waiting], can_take: Callable[[str, str], bool], may_spin_up: Callable[[str], bool]
) -> list[Demand]:
    """Return what is missing, the most wanted first.

    `can_take(boundary, routed)` says whether somebody online takes such work; `may_spin_up(boundary)` is policy. Work
    for an agent of one named node is no demand: only that node can do it.
    """
    return _found(waiting, lambda boundary, routed: not can_take(boundary, routed), may_spin_up, busy=False)


def crowded(
    waiting: Iterable[Waiting], can_take: Callable[[str, str], bool], may_spin_up: Callable[[str], bool]
) -> list[Demand]:
    """Return the work that waits although somebody online takes such, as `demands` does: all their places are taken."""
    return _found(waiting, can_take, may_spin_up, busy=True)


def _found(
    waiting: Iterable[Waiting], counts: Callable[[str, str], bool], may_spin_up: Callable[[str], bool], *, busy: bool
) -> list[Demand]:
    found: dict[tuple[str, str], Demand] = {}
    for one in waiting:
        if one.pending <= 0 or is_for_one_node(one.routed) or not may_spin_up(one.boundary):
            continue
        if not counts(one.boundary, one.routed):
            continue
        before = found.get((one.boundary, one.routed))
        pending = one.pending + (before.pending if before else 0)
        task = before.task if before and before.task else one.task
        found[one.boundary, one.routed] = Demand(one.boundary, one.routed, pending, task, busy)
    return sorted(found.values(), key=lambda demand: (-demand.pending, demand.boundary, demand.routed))
