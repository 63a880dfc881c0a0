"""How many tasks of each queue does somebody really have? JetStream counts those of workers that are gone as theirs.

A task that was given back, or whose holder ended, counts as delivered for as long as nobody asks for more of its queue.
So what JetStream says is a most: claims are known one by one, and so is what runs here; of other nodes it is known how
much each of their agents does (pure).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from knotwork.bus import subjects

if TYPE_CHECKING:
    from knotwork.mesh.records import AgentRecord
    from knotwork.work.queues import Depth


class Busy(NamedTuple):
    """An agent of another node that is alive, and has something to do."""

    node: str
    agent: AgentRecord


def held(depths: Sequence[Depth], known: Iterable[str], others: Sequence[Busy]) -> list[Depth]:
    """Return how queues stand: `taken` is what somebody has, what nobody has any more waits.

    `known` is the consumer of each task that is claimed by an agent from outside, or that runs here.
    """
    sure = Counter(known)
    return [_held(depth, sure[depth.queue.consumer], others) for depth in depths]


def _held(depth: Depth, sure: int, others: Sequence[Busy]) -> Depth:
    left = depth.taken - sure
    if left > 0:
        left -= sum(one.agent.running + one.agent.queued for one in others if _may_have(one, depth))
    if left <= 0:
        return depth
    return depth._replace(pending=depth.pending + left, taken=depth.taken - left)


def _may_have(one: Busy, depth: Depth) -> bool:
    meant = subjects.addressee(depth.queue.routed)
    if meant is None:
        return depth.queue.routed in one.agent.capabilities
    return meant[1] == one.agent.name and meant[0] in ("", one.node)
