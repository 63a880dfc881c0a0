"""How does an agent that came in get tasks? It asks for some and waits; they are taken for it as for our own agents.

A poll is a taker like a hosted agent: it has as many places as it asked for, so nobody gets more than that, and what
arrives for one that is gone goes to another that waits, or back to its queue, on record as released.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from knotwork.bus.waits import set_within
from knotwork.sdk.errors import KnotworkError
from knotwork.work import leases
from knotwork.work.intake import Adopts, Ended, Intake
from knotwork.work.queues import Depth, Queue
from knotwork.work.taking import Accepts, Taking, serves

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.pulls import Delivery
    from knotwork.mesh.records import AgentRecord
    from knotwork.work.leases import Claim, Leases
    from knotwork.work.meant import Meant
    from knotwork.work.recording import Recorder
    from knotwork.work.records import Task

log = logging.getLogger(__name__)
GATHER_S = 0.5
"""How long a poll that has something waits at most for the rest of what was asked for in its name."""
STEP_S = 0.002
KNOWN_S = 0.03
"""How long a poll waits for what is in the queues that we know, before we look whether there are others."""
LOOK_S = 0.25
"""How long a poll waits at least: what is there now needs a moment to come. Nobody looks at all queues more often."""
Look = Callable[[], Awaitable[Sequence[Depth]]]


class Given(NamedTuple):
    """One task in the hands of an agent that came in."""

    claim: Claim
    task: Task


@dataclass(eq=False, slots=True)
class Poll:
    """One request for tasks (`taking.Taker`). `limit()` is how many more its agent may hold now, `agent` its id or ""."""

    record: AgentRecord
    key: str
    lease_s: float
    limit: Callable[[], int]
    agent: str = ""
    given: list[Given] = field(default_factory=list)
    coming: int = 0
    closed: bool = False
    some: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def up(self) -> bool:
        """Return whether somebody waits."""
        return not self.closed

    @property
    def places(self) -> int:
        """Return how many tasks were asked for."""
        return self.record.concurrency

    @property
    def free(self) -> int:
        """Return how many of them are still to come."""
        return min(self.places - len(self.given), self.limit()) - self.coming


class Polls:
    """All polls of one project on this node (`intake.Beginner`)."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        recorder: Recorder,
        facts: GroupCommit,
        *,
        leases: Leases,
        node: str,
        accepts: Accepts,
        has_ended: Ended,
        adopts: Adopts,
        open_for_work: Callable[[], bool],
        look: Look,
    ) -> None:
        """Give tasks out by `leases`; `look()` says how every queue stands."""
        self._look_at_queues, self._leases, self._node = look, leases, node
        self._polls: dict[str, Poll] = {}
        self.meant: Meant | None = None
        """Whom work is meant for that names an agent; without it, whoever has the name."""
        self._count = 0
        self._depths: Sequence[Depth] = ()
        self._looked_s, self._looking = 0.0, asyncio.Lock()
        self.taking = Taking(
            connection, node=node, agents=lambda: tuple(self._polls.values()), accepts=accepts,
            on_delivery=lambda delivery, taker: self.intake.arrived(delivery, taker),  # noqa: PLW0108  made below
            open_for_work=open_for_work,
        )  # fmt: skip
        self.intake = Intake(
            group, connection, recorder, facts, taking=self.taking, beginner=self, node=node, has_ended=has_ended,
            adopts=adopts,
        )  # fmt: skip

    def swept(self, depths: Sequence[Depth], held: Iterable[str]) -> None:
        """Take note of how the queues stand; `held` names the consumer of each task that we keep for somebody."""
        self._depths = depths
        self.taking.swept(depths, held)

    def close(self) -> None:
        """Let nobody wait any longer."""
        for poll in self._polls.values():
            poll.some.set()

    async def wait(
        self, record: AgentRecord, lease_s: float, limit: Callable[[], int], wait_s: float, agent: str = ""
    ) -> list[Given]:
        """Return the tasks given to an agent, `record.concurrency` at most, as soon as there are some.

        After `wait_s` seconds there may be none. When the wait is cancelled nothing is lost: what was given to it is
        handed back.
        """
        self._count += 1
        poll = Poll(record, f"{record.name}/{self._count}", lease_s, limit, agent)
        self._polls[poll.key] = poll
        try:
            end_s = asyncio.get_running_loop().time() + max(wait_s, LOOK_S)
            known = self._served(poll)
            self.taking.know(known)
            if not known or not await set_within(poll.some, KNOWN_S):
                await self._look(poll, known, end_s)
            await self._gathered(poll)
        except BaseException:
            poll.closed = True
            for given in poll.given:
                self.hand_back(given, "nobody waits for it")
            raise
        finally:
            poll.closed = True
            del self._polls[poll.key]
        return poll.given

    async def _look(self, poll: Poll, known: Collection[Queue], end_s: float) -> None:
        """Wait until `end_s` for something to be given to a poll, also of queues that were not `known` to be there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end_s):
                async with self._looking:  # what it could have may lie in a queue that is younger than our last look
                    await self._look_anew()
                self.taking.know(one for one in self._served(poll) if one not in known)
                await poll.some.wait()

    def _served(self, poll: Poll) -> list[Queue]:
        known = dict.fromkeys((*(depth.queue for depth in self._depths), *self.taking.unserved))
        return [queue for queue in known if serves(poll, queue, self._node)]

    async def _look_anew(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s >= LOOK_S:
            with contextlib.suppress(KnotworkError):  # in a second it is looked again anyway
                self._depths = await self._look_at_queues()
            self._looked_s = now_s

    async def _gathered(self, poll: Poll) -> None:
        """Wait a moment for what is under way, so that it need not be handed back."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + GATHER_S
        while poll.free > 0 or poll.coming:
            if not (poll.coming or self.taking.reserved(poll.key)) or loop.time() >= end_s:
                return
            await asyncio.sleep(STEP_S)

    # -- what arrives ------------------------------------------------------------------------------------------------

    def holds(self, task: Task, delivery: Delivery) -> bool:  # noqa: ARG002  the protocol's
        """Return False: who holds what is asked of LEASES."""
        return False

    @property
    def claims(self) -> bool:
        """Return True: what is given out is a claim."""
        return True

    def name(self, taker: str) -> str:
        """Return the agent that polls."""
        return taker.partition("/")[0]

    def begin(self, task: Task, delivery: Delivery, taker: str, left_s: float | None) -> None:
        """Give a task to whoever it was taken for, else to somebody else who waits for such, else back."""
        poll = self._polls.get(taker)
        queue = Queue(task.boundary, task.queue, task.lane)
        if poll is None or poll.closed:
            fit = (one for one in self._polls.values() if serves(one, queue, self._node))
            poll = next((one for one in fit if one.free > 0), None)
        if poll is None or poll.limit() <= self._coming(poll.record.name):
            self.intake.spawn(self.intake.release(task, delivery.count, delivery.reply, self.name(taker), "no poll"))
            return
        if self.meant is not None and not self.meant.is_for(task, poll.record.name):
            self.intake.spawn(self.meant.set_aside(task, delivery))
            return
        poll.coming += 1
        self.intake.spawn(self._give(poll, task, delivery, left_s))

    def _coming(self, worker: str) -> int:
        return sum(one.coming for one in self._polls.values() if one.record.name == worker)

    async def _give(self, poll: Poll, task: Task, delivery: Delivery, left_s: float | None) -> None:
        claim = leases.fresh(
            task,
            delivery,
            worker=poll.record.name,
            node=self._node,
            lease_s=poll.lease_s,
            left_s=left_s,
            agent=poll.agent,
        )
        try:
            standing = await self._leases.give(claim)
        except KnotworkError as error:
            log.debug("%s could not be given out: %s", task.run, error)
            await self._take_back(Given(claim, task), "it could not be given out", ours=True)
            return
        finally:
            poll.coming -= 1
        if standing is not None:
            log.debug("%s is in the hands of %s already", task.run, standing.worker)
            return
        if poll.closed:
            await self._take_back(Given(claim, task), "nobody waits for it")
        else:
            poll.given.append(Given(claim, task))
            poll.some.set()

    def hand_back(self, given: Given, why: str) -> None:
        """Give a task back to its queue, on record; in the background."""
        self.intake.spawn(self._take_back(given, why))

    async def _take_back(self, given: Given, why: str, *, ours: bool = False) -> None:
        """End a claim and give its task back; when it stands no more that is done by others, unless it is surely `ours`."""
        try:
            claim = await self._leases.end(given.claim, "said")
        except KnotworkError as error:  # its lease ends by itself
            log.debug("the claim on %s is not taken back: %s", given.claim.run, error)
            return
        if claim is not None or ours:
            claim = claim or given.claim
            await self.intake.release(given.task, claim.delivery, claim.reply, claim.worker, why)
