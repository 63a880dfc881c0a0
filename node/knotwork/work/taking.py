"""Which tasks does this node take, and when? As many as its agents have places for, the urgent lanes first.

A queue is `hot` when it may have work: somebody said so (a hint), the last look at all queues did, or the last request
was filled. A hot queue is asked for what it has now, no more than there are free places; places are reserved while the
request is under way. So nothing waits in this process that another node could do.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from knotwork.bus import patterns, pulls, subjects
from knotwork.sdk.errors import KnotworkError
from knotwork.work import queues
from knotwork.work.queues import Depth, Queue

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.pulls import Delivery
    from knotwork.bus.wire import Message
    from knotwork.mesh.records import AgentRecord

BATCH_MAX = 500
GATHER_S = 0.005
"""How long a few free places wait for more before they are asked for."""
ANSWER_S = 2.0
SOON = b"soon"
SOON_S = 0.2
"""How long a request waits for the one task that a hint says is being stored."""
UNSERVED_MAX = 1000
"""How many queues are remembered for those who come for them later: the look at all queues shows them anyway."""


class Taker(Protocol):
    """For whom tasks are taken: an agent of this node (`mesh.job.HostedAgent`), or one that came in and asks for some."""

    @property
    def record(self) -> AgentRecord:
        """Return what others see of it."""

    @property
    def key(self) -> str:
        """Return what it is known by here."""

    @property
    def up(self) -> bool:
        """Return whether it can be given anything now."""

    @property
    def places(self) -> int:
        """Return how much it can do at once."""

    @property
    def free(self) -> int:
        """Return how many places nobody has taken."""


class Accepts(Protocol):
    """Whether an agent takes work of a queue now."""

    def __call__(self, agent: Taker, queue: Queue, /) -> bool:
        """Return whether `agent` may take from `queue` now."""

    def permits(self, agent: Taker, queue: Queue, /) -> bool:
        """Return whether `agent` may ever take from `queue`."""


@dataclass(slots=True)
class Line:
    """One queue as this node sees it.

    `hot`: it may have work; `soon`: one task is being stored there just now; `again`: it was heard of while it was
    asked, since `asked_s` (monotonic).
    """

    queue: Queue
    hot: bool = True
    soon: bool = False
    asked: bool = False
    asked_s: float = 0.0
    again: bool = False
    reserved: dict[str, int] = field(default_factory=dict)


class Taking:
    """Takes tasks for this node's agents in one project."""

    def __init__(
        self,
        connection: Connection,
        *,
        node: str,
        agents: Callable[[], Sequence[Taker]],
        accepts: Accepts,
        open_for_work: Callable[[], bool],
        on_delivery: Callable[[Delivery, str], None],
    ) -> None:
        """Take for `agents()` while `open_for_work()`; each message goes to `on_delivery(delivery, agent)`."""
        self._connection, self._node = connection, node
        self._agents, self._accepts, self._open_for_work = agents, accepts, open_for_work
        self._on_delivery = on_delivery
        self._pulls = pulls.Pulls(connection, subjects.TASKS, self._arrived, self._no_more)
        self._lines: dict[str, Line] = {}
        self._unserved: dict[str, Queue] = {}
        self._reserved: Counter[str] = Counter()
        self._pumping = False

    async def open(self) -> None:
        """Listen for work."""
        await self._pulls.open()
        await self._connection.listen(patterns.HINTS, self._hinted)

    def answer(self, reply: str, what: bytes) -> None:
        """Acknowledge a delivery, hand it back, or keep it (`pulls.ACK`, `NAK`, `ALIVE`)."""
        self._pulls.answer(reply, what)

    def forget(self) -> None:
        """Take every request for lost: the connection was."""
        self._pulls.forget()
        for line in self._lines.values():
            self._release(line)
            line.asked, line.hot = False, True

    def swept(self, depths: Sequence[Depth], running: Iterable[str]) -> None:
        """Take note of how the queues stand: what a lost hint would have told, and what workers that died left.

        `running` names the consumer of each task that runs here.
        """
        mine = Counter(running)
        now_s = time.monotonic()
        for line in self._lines.values():
            if line.asked and now_s - line.asked_s > ANSWER_S:  # its answer got lost
                self._release(line)
                line.asked = False
        for depth in depths:
            self._unserved.pop(depth.queue.consumer, None)
            if depth.pending or depth.taken > mine[depth.queue.consumer]:
                self._heat(depth.queue)
        self.pump()

    def pump(self) -> None:
        """Ask for as much as there are places for, once in this turn of the loop."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def hold(self, agent: str, count: int) -> None:
        """Keep (1) or give back (-1) a place for a task that is being looked at before it begins."""
        if agent:
            self._reserve(agent, count)

    def reserved(self, agent: str) -> int:
        """Return how many places of an agent are kept for what was asked for and may still come."""
        return self._reserved[agent]

    @property
    def unserved(self) -> Collection[Queue]:
        """Return queues that we heard of when nobody was here for them, and that no look at all queues showed since."""
        return self._unserved.values()

    def know(self, queues: Iterable[Queue]) -> None:
        """Take note of queues that may have work for somebody who was not there before."""
        for queue in queues:
            self._heat(queue)
        self.pump()

    def _reserve(self, agent: str, count: int) -> None:
        self._reserved[agent] += count
        if not self._reserved[agent]:
            del self._reserved[agent]

    def _pump(self, *, few: bool = False) -> None:
        """Ask the hot queues; with `few` also when only a few of many places are free."""
        self._pumping = False
        if not self._open_for_work():
            return
        hot = [line for line in self._lines.values() if line.hot and not line.asked]
        for line in sorted(hot, key=lambda one: one.queue.urgency):
            places = self._places(line.queue)
            total = sum(places.values())
            if total == 0:
                continue
            if not few and total < self._many(places):  # not one request for each place that gets free
                self._pumping = True
                asyncio.get_running_loop().call_later(GATHER_S, partial(self._pump, few=True))
                return
            self._ask(line, places)

    def _ask(self, line: Line, places: dict[str, int]) -> None:
        if line.soon:
            agent = next(iter(places))
            places, wait_s = {agent: 1}, SOON_S
        else:
            wait_s = 0.0
        line.reserved = places
        for agent, count in places.items():
            self._reserve(agent, count)
        line.asked, line.asked_s, line.again, line.soon = True, time.monotonic(), False, False
        try:
            self._pulls.ask(line.queue.consumer, sum(places.values()), wait_s=wait_s)
        except KnotworkError:
            self._release(line)
            line.asked = False

    def _many(self, places: dict[str, int]) -> int:
        """Return how many places make a request worth it at once: a quarter of what these agents have."""
        concurrency = sum(one.places for one in self._agents() if one.key in places)
        return max(1, min(concurrency, BATCH_MAX) // 4)

    def _places(self, queue: Queue) -> dict[str, int]:
        """Return how many tasks of a queue each of our agents can take now."""
        places: dict[str, int] = {}
        left = BATCH_MAX
        for agent in self._agents():
            free = min(left, agent.free - self._reserved[agent.key])
            if free > 0 and serves(agent, queue, self._node) and self._accepts(agent, queue):
                places[agent.key] = free
                left -= free
        return places

    def _release(self, line: Line) -> None:
        for agent, count in line.reserved.items():
            self._reserve(agent, -count)
        line.reserved = {}

    def _place_of(self, line: Line | None) -> str:
        """Return the agent whose reserved place a delivery takes, "" when none is left."""
        if line is None:
            return ""
        for agent in line.reserved:
            line.reserved[agent] -= 1
            self._reserve(agent, -1)
            if not line.reserved[agent]:
                del line.reserved[agent]
            return agent
        return ""

    def _hinted(self, message: Message) -> None:
        queue = queues.from_hint(message.subject)
        if queue is not None:
            self._heat(queue, soon=message.data == SOON)
            self.pump()

    def _heat(self, queue: Queue, *, soon: bool = False) -> None:
        line = self._lines.get(queue.consumer)
        if line is None:
            if not any(serves(agent, queue, self._node) for agent in self._agents()):
                while len(self._unserved) >= UNSERVED_MAX:
                    del self._unserved[next(iter(self._unserved))]
                self._unserved[queue.consumer] = queue
                return
            line = self._lines[queue.consumer] = Line(queue, hot=False)
        line.soon = soon and not line.hot
        line.hot, line.again = True, line.asked

    def _no_more(self, consumer: str) -> None:
        """A request is over."""
        line = self._lines.get(consumer)
        if line is not None:
            self._release(line)
            line.asked, line.hot, line.again = False, line.again, False
            self.pump()  # the places that were kept for it may be what another hot queue lacks

    def _arrived(self, delivery: Delivery) -> None:
        line = self._lines.get(delivery.consumer)
        agent = self._place_of(line)
        if line is not None and (not line.reserved or delivery.pending == 0):
            self._release(line)  # all it asked for came, or all there is
            line.asked = False
            line.hot = delivery.pending > 0 or line.again
            line.again = False
            self.pump()
        self._on_delivery(delivery, agent)


def serves(agent: Taker, queue: Queue, node: str) -> bool:
    """Return whether an agent takes work of a queue: its name or a capability is meant, and it accepts the boundary."""
    record = agent.record
    if not agent.up:
        return False
    if record.boundaries and queue.boundary != "none" and queue.boundary not in record.boundaries:
        return False
    meant = subjects.addressee(queue.routed)
    if meant is None:
        return queue.routed in record.capabilities
    if record.attached and queue.routed in record.capabilities:  # a name it had before, or that of one whom all see
        return True
    if record.attached and queue.routed == subjects.seen(record.name):  # known where it comes in, not here
        return False
    return meant[1] == record.name and meant[0] in ("", node)
