"""Who else is there, and what can they do? Everything the NODES bucket says, kept in memory and indexed for routing.

Readers derive the state of a node from when they last heard of it: online, stale, offline, draining. Nothing here
waits or asks anybody, so that choosing an agent costs microseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from knotwork.mesh import records
from knotwork.sdk.errors import Invalid
from knotwork.sdk.router import Candidate

if TYPE_CHECKING:
    from knotwork.mesh.records import AgentRecord, AwayRecord, NodeRecord

log = logging.getLogger(__name__)

Inner = TypeVar("Inner", str, tuple[str, str])
State = Literal["online", "stale", "offline", "draining"]
FORGET_S = 3600.0
"""How long a node that went away is still listed as offline."""


@dataclass(slots=True)
class Known:
    """One node as we know it: its last record, and when we heard it (monotonic seconds); `gone` once it left."""

    record: NodeRecord
    heard_s: float
    gone: bool = False


@dataclass(slots=True)
class Count:
    """How many there are now; one object for as long as the place is known, over all records of its node.

    A call that ends has to find what it was counted in, however often its node told of itself meanwhile.
    """

    now: int = 0


@dataclass(slots=True)
class Place:
    """One agent on one node, ready to be a candidate.

    `told` is how many calls its node said it has, `ours` counts those that this node has running there now, `counted` is
    what that was when the candidate was made. The load of a candidate is the larger of the two over its places.
    """

    record: AgentRecord
    node: str
    candidate: Candidate
    told: int = 0
    ours: Count = field(default_factory=Count)
    counted: int = -1


class Directory:
    """All nodes and agents of one project."""

    def __init__(self, clock: Callable[[], float], here: str) -> None:
        """Start empty; `clock` returns monotonic seconds, `here` is our own node, which never falls silent."""
        self._clock = clock
        self._here = here
        self._nodes: dict[str, Known] = {}
        self._places: dict[str, dict[str, Place]] = {}
        self._by_agent: dict[str, dict[str, Place]] = {}
        self._by_capability: dict[str, dict[tuple[str, str], Place]] = {}
        self._on_gone: list[Callable[[str], None]] = []

    @property
    def here(self) -> str:
        """Return the name of our own node."""
        return self._here

    # -- what the bucket tells ---------------------------------------------------------------------------------------

    def heard(self, key: str, data: bytes) -> None:
        """Take a node's record; a malformed one is logged and changes nothing."""
        try:
            record = records.decode(key, data)
        except Invalid as error:
            log.warning("%s", error)
            return
        known = self._nodes.get(key)
        same_agents = known is not None and not known.gone and known.record.agents == record.agents
        same_state = known is not None and (known.record.state, known.record.labels) == (record.state, record.labels)
        self._nodes[key] = Known(record, self._clock())
        if not (same_agents and same_state):
            self._index(record)

    def left(self, key: str) -> None:
        """Take note that a node's record is gone: it said goodbye, or fell silent for too long."""
        known = self._nodes.get(key)
        if known is None or known.gone or key == self._here:
            return
        known.gone = True
        self._unindex(key)
        for callback in list(self._on_gone):
            callback(key)

    def on_gone(self, callback: Callable[[str], None]) -> None:
        """Call `callback(node)` whenever a node goes."""
        self._on_gone.append(callback)

    def sweep(self) -> None:
        """Notice nodes that fell silent without the bucket saying so, and forget those long gone."""
        now = self._clock()
        for key, known in list(self._nodes.items()):
            if not known.gone and self.state(key) == "offline":
                self.left(key)
            elif known.gone and now - known.heard_s > FORGET_S:
                del self._nodes[key]

    # -- what others want to know ------------------------------------------------------------------------------------

    def state(self, node: str) -> State:
        """Return how a node is now."""
        known = self._nodes.get(node)
        if known is None or known.gone:
            return "offline"
        silent_s, record = self._clock() - known.heard_s, known.record
        if node == self._here:
            return record.state
        if silent_s >= record.heartbeat_s * record.offline_beats:
            return "offline"
        if silent_s >= record.heartbeat_s * record.stale_beats:
            return "stale"
        return record.state

    def record(self, node: str) -> NodeRecord | None:
        """Return what a node told of itself last, None when it is not known."""
        known = self._nodes.get(node)
        return known.record if known is not None else None

    def nodes(self) -> Iterator[tuple[NodeRecord, State, float]]:
        """Yield every node known with its state and the seconds since it was heard, by name."""
        now = self._clock()
        for key, known in sorted(self._nodes.items()):
            yield known.record, self.state(key), now - known.heard_s

    def agents(self) -> Iterator[tuple[NodeRecord, AgentRecord, State]]:
        """Yield every agent known, also of nodes that went, by node and name."""
        for record, state, _ in self.nodes():
            for agent in sorted(record.agents, key=lambda one: one.name):
                yield record, agent, state

    def called(self, agent: str) -> Iterator[tuple[NodeRecord, State]]:
        """Yield every node that has an agent of this name, also one that went."""
        for key, known in self._nodes.items():
            if any(one.name == agent for one in known.record.agents):
                yield known.record, self.state(key)

    def away(self, *, agent: str = "", capability: str = "") -> Iterator[tuple[str, AwayRecord]]:
        """Yield, with their nodes, agents that could be meant if their plugins ran; of nodes that have not gone."""
        for key, known in self._nodes.items():
            if known.record.away and not known.gone:
                for one in known.record.away:
                    if one.name == agent if agent else capability in one.capabilities:
                        yield key, one

    def keepalive_s(self, node: str) -> float:
        """Return how often a node gives a sign of life for a call it works on, in seconds."""
        known = self._nodes.get(node)
        return known.record.keepalive_s if known is not None else records.LONGEST_S

    def place(self, node: str, agent: str) -> Place | None:
        """Return one agent on one node, None when it is not there."""
        return self._places.get(node, {}).get(agent)

    def candidates(
        self, *, agent: str = "", node: str = "", capability: str = "", attached: bool = False
    ) -> list[Candidate]:
        """Return who could be meant, in their present state and load; routers decide the rest.

        Agents that came in from outside are meant only with `attached`: they do tasks, and cannot be called.
        """
        if agent and node:
            place = self.place(node, agent)
            found = [place] if place else []
        elif agent:
            found = list(self._by_agent.get(agent, {}).values())
        else:
            found = list(self._by_capability.get(capability, {}).values())
            if node:
                found = [place for place in found if place.node == node]
        found = [place for place in found if attached or not place.record.attached]
        states = {one: self.state(one) for one in {place.node for place in found}}
        return [self._fresh(place, states[place.node]) for place in found]

    def capabilities(self) -> list[str]:
        """Return every capability that an agent offers now which can be called."""
        return sorted(name for name, places in self._by_capability.items() if _callable(places))

    def agent_names(self) -> list[str]:
        """Return the name of every agent that can be called now; those that came in are named to those who see them."""
        return sorted(name for name, places in self._by_agent.items() if _callable(places))

    def runs(self, agent: str) -> bool:
        """Return whether a node that has not gone runs an agent of this name: it did not come in from outside."""
        return _callable(self._by_agent.get(agent, {}))

    def node_names(self) -> list[str]:
        """Return every node that has not gone."""
        return sorted(self._places)

    # -- within ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _fresh(place: Place, state: State) -> Candidate:
        """Return the place as a candidate of this moment; made anew only when something about it changed."""
        ours, candidate = place.ours.now, place.candidate
        if ours != place.counted or candidate.state != state:
            place.counted = ours
            load = max(place.told, ours) / place.record.concurrency
            if candidate.load != load or candidate.state != state:
                was = candidate  # built field by field: `replace` costs twice as much, and this is the hot path
                candidate = place.candidate = Candidate(
                    was.node, was.agent, was.capabilities, was.tags, was.boundaries, state, load, was.executor
                )
        return candidate

    def _index(self, record: NodeRecord) -> None:
        old = self._places.get(record.node, {})
        self._unindex(record.node)
        places: dict[str, Place] = {}
        for agent in record.agents:
            candidate = Candidate(
                node=record.node,
                agent=agent.name,
                capabilities=frozenset(agent.capabilities),
                tags=frozenset(agent.tags) | {f"{key}={value}" for key, value in record.labels.items()},
                boundaries=frozenset(agent.boundaries),
                state=record.state,
                executor=agent.executor,
            )
            ours = old[agent.name].ours if agent.name in old else Count()
            place = places[agent.name] = Place(agent, record.node, candidate, agent.running + agent.queued, ours)
            self._by_agent.setdefault(agent.name, {})[record.node] = place
            for capability in agent.capabilities:
                self._by_capability.setdefault(capability, {})[record.node, agent.name] = place
        self._places[record.node] = places

    def _unindex(self, node: str) -> None:
        for name, place in self._places.pop(node, {}).items():
            _drop(self._by_agent, name, node)
            for capability in place.record.capabilities:
                _drop(self._by_capability, capability, (node, name))


def _callable(places: Mapping[Any, Place]) -> bool:
    return any(not place.record.attached for place in places.values())


def _drop(index: dict[str, dict[Inner, Place]], key: str, inner: Inner) -> None:
    found = index.get(key)
    if found is not None:
        found.pop(inner, None)
        if not found:
            del index[key]
