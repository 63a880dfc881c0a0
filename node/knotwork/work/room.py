"""How is durable work wired for one project? Streams, writers, worker, timers, waiters: opened together, closed together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, patterns, publisher, reading, subjects
from knotwork.bus.background import background
from knotwork.bus.commit import open_group_commit
from knotwork.bus.pauses import comes_again
from knotwork.sdk.errors import Conflict, KnotworkError, TimedOut, Unavailable
from knotwork.work import intake, lookup, overdue, proof, queues, recording, records, route, stores, timers
from knotwork.work.accepting import Accepting
from knotwork.work.attached import Attached
from knotwork.work.claims import Claims
from knotwork.work.dead import DeadLetters
from knotwork.work.finished import Finished, first_of
from knotwork.work.gate import Gate
from knotwork.work.holding import Holding
from knotwork.work.meant import Meant
from knotwork.work.passing import Passing
from knotwork.work.recording import Recorder
from knotwork.work.reroute import Rerouter
from knotwork.work.route import Routing
from knotwork.work.signals import Signals
from knotwork.work.submit import Submitter
from knotwork.work.sweeping import Sweeper
from knotwork.work.values import Values
from knotwork.work.waiting import Waiters
from knotwork.work.worker import Worker

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.mesh.hosting import Hosting
    from knotwork.mesh.job import HostedAgent
    from knotwork.mesh.membership import Membership
    from knotwork.work.intake import Ended
    from knotwork.work.records import Outcome, Task

log = logging.getLogger(__name__)
SWEEP_S = 1.0
EARLY_NS = 100_000_000
"""A deadline this close has come: two clocks may differ by that."""
STORING_NS = 60_000_000_000
"""Whoever has set the deadline of a task and has not stored it for so long has died."""


class Work:
    """Durable work of one project, as this node takes part in it. Made by `open_work`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        hosting: Hosting,
        facts: GroupCommit,
        tasks: GroupCommit,
        *,
        held: GroupCommit,
        project: str,
        node: str,
        agents: Callable[[], Sequence[HostedAgent]],
        lease_s: float,
        membership: Membership | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Wire the parts; without `membership` no policy holds, and nobody but the submitter chooses agents."""
        self._connection, self._node, self._membership = connection, node, membership
        self.facts = facts
        """The one writer of facts: what many append at a time shares a write to disk."""
        self.lease_s = lease_s
        self.depths: list[queues.Depth] = []
        self.patience, self._sweeper = queues.Patience(), Sweeper(connection)
        self.past: Ended | None = None
        """Who knows what FACTS has forgotten; the view, when there is one."""
        self.proofs = proof.of(connection)
        """What was proved of attempts; it asks the view, too, when there is one."""
        self.values = Values(connection)
        self.recorder = Recorder(group, connection, facts, tasks)
        self.submitter = Submitter(connection, self.recorder, tasks, lease_s=lease_s)
        self.recorder.on_bytes, self.recorder.has_room = self.submitter.storage.add, self.submitter.storage.has_room
        self.dead = DeadLetters(connection, self.recorder, facts)
        self.waiters = Waiters(group, connection, self.find, self._is_there)
        self.accepts = Accepting(connection, membership, node=node, pauses=lambda: self.submitter.storage.tight)
        self.routing = Routing(membership) if membership is not None else None
        self._rerouter = (
            Rerouter(connection, membership, self.submitter, over=self._over, lease_s=lease_s) if membership else None
        )
        self.timers = timers.Timers(group, connection, self._due, self._fired)
        self.signals = Signals(connection, facts)
        self.claims = Claims(
            group, connection, self.recorder, facts, held, values=self.values, project=project, node=node,
            patience=self.patience, accepts=self.accepts, has_ended=self._has_ended, draining=lambda: hosting.draining,
            look=self._sweeper.look,
        )  # fmt: skip
        self.finished = Finished(connection, self.recorder, mine=first_of(membership, node))
        self.holding = Holding(self.claims.keeper, self.claims.leases, membership, lease_s=lease_s)
        self.attached = Attached(self.claims.keeper, lambda: frozenset(agent.record.name for agent in hosting.agents()))
        self.worker = Worker(
            group, connection, hosting, self.recorder, facts, project=project, node=node, agents=agents,
            accepts=self.accepts, has_ended=self._has_ended, adopts=self.claims.keeper.adopt, values=self.values,
            patience=self.patience,
        )  # fmt: skip
        self.gate = gate or Gate()
        self.worker.mind(self.gate)
        self.claims.polls.intake.gate = self.gate
        self.meant = self.claims.polls.meant = Meant(connection, self.submitter)
        if membership is not None:
            self.worker.passes = Passing(connection, membership, self.submitter).pass_on
        self._again = asyncio.Event()

    @property
    def at_hand(self) -> bool:
        """Return whether this node keeps work for an agent that came in, or looks up some that may begin here."""
        return self.worker.looking or any(True for _ in self.claims.keeper.consumers())

    async def find(self, run: str) -> Outcome | None:
        """Return the final outcome of a run, None while it has none."""
        return await lookup.final(self._connection, run)

    async def _is_there(self, run: str) -> bool:
        return await lookup.look(self._connection, run) is not None

    async def open(self) -> None:
        """Make the streams and begin to listen."""
        await stores.open_stores(self._connection)
        await self.values.open()
        await self.timers.open()
        await self.claims.open()
        await self.worker.open()
        await self.submitter.storage.look()
        await self._reconnected()

    async def run(self) -> None:
        """Keep leases, look around every second, take up the thread after a reconnect; until cancelled."""
        forget = self._connection.on_up(self._again.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.worker.renew(), name="leases")
                group.create_task(self.claims.keeper.run(), name="claims")
                group.create_task(self._resume(), name="work after a reconnect")
                if (rerouter := self._rerouter) is not None:
                    moving = _again_and_again(lambda: rerouter.look(self.depths))
                    group.create_task(moving, name="work of agents that are gone")
                group.create_task(_again_and_again(self.finished.look), name="work that has ended")
                while True:
                    await asyncio.sleep(SWEEP_S * random.uniform(0.8, 1.2))  # noqa: S311  (jitter)
                    with comes_again("looking around for work"):
                        await self._look_around()
        finally:
            forget()

    async def _resume(self) -> None:
        while True:
            await self._again.wait()
            self._again.clear()
            try:
                await self._reconnected()
            except KnotworkError as error:
                log.debug("work is taken up again in a moment: %s", error)
                await asyncio.sleep(SWEEP_S / 4)
                self._again.set()

    async def _reconnected(self) -> None:
        self.submitter.reconnected()
        self.finished.reconnected()
        self._sweeper.reconnected()
        await self.worker.reconnected()
        await self.claims.reconnected()
        self.timers.look(anew=True)
        await self.waiters.reconnected()

    async def _look_around(self) -> None:
        """See how the store and the queues stand, tell the worker, and remove what is finished, in bulk."""
        await self.submitter.storage.look()
        self.depths = await self._sweeper.look()
        self.patience.swept(self.depths)
        await self.accepts.look(self.depths)
        self.worker.swept(self.depths)
        self.finished.swept(self.depths)
        self.claims.swept(self.depths)
        self.attached.sweep()
        await self.claims.overdue.look()
        self.timers.look()
        await self.timers.forget_handled()
        await self._sweeper.forget_finished(self.depths)

    async def _over(self, task: Task) -> bool:
        """Return whether an attempt has its outcome."""
        over = await intake.outcome_at(self._connection, task.outcome_subject) is not None
        return over or await self._has_ended(task)

    async def look(self, run: str, step: str = "") -> lookup.Sight | None:
        """Return a run as it is (`lookup.look`), as `pending` when the worker that began it has vanished."""
        return await lookup.look(self._connection, run, self.holding, step)

    async def placed(self, task: Task, value: object = None) -> Task:
        """Return a new task with boundary, queue and `why` filled in; raises what `route.Routing.placed` raises."""
        task = self.meant.placed(task)
        return task if self.routing is None else await self.routing.placed(task, value)

    def placed_at_once(self, task: Task) -> Task | None:
        """Do the same without waiting; None when a router must be asked."""
        task = self.meant.placed(task)
        return task if self.routing is None else self.routing.placed_at_once(task)

    def near(self, task: Task, node: str, agent: str, *, hard: bool) -> Task:
        """Return a placed task as it waits for an agent of one node, this one rather than others.

        When nobody there can do it, it is left as it is; if that is `hard`, it raises `Unavailable` (`work.node_away`).
        """
        found = self.routing.near(task, node, agent) if self.routing is not None else task.agent or agent
        if not found and hard:
            raise Unavailable(
                f"Nobody on {node} can do it now, and it is to be done there.",
                code="work.node_away",
                retry_after_s=1.0,
                hint=f"See `knotwork nodes`; start {node} again.",
            )
        return route.near(task, node, found, hard=hard)

    def changed(self) -> None:
        """Take note that the policy, or our agents, are different."""
        self.worker.taking.pump()

    async def _due(self, name: str, task: Task) -> None:
        if name.partition("-")[0] == "deadline":
            await self._deadline(task)
        elif name.partition("-")[0] == recording.START:
            await overdue.unbegun(self._connection, self.recorder, task, node=self._node, over=self._over)
        elif not await self._over(task):  # a timer fires again when the server forgot that it was handled
            await self.recorder.enqueue(task)

    async def _deadline(self, timed: Task) -> None:
        """End a task whose deadline has passed: its own, for whoever submits other work with its key may have set one.

        It is set before the task is stored, so it may pass before: then it is set anew, as long as somebody may be at it.
        """
        run, now_ns = timed.run, clock.now_ns()
        task = await self.current(run)
        if task is None:
            if now_ns < timed.deadline_ns + STORING_NS and await lookup.look(self._connection, run) is None:
                await self.recorder.set_timer(run, "deadline", now_ns + STORING_NS // 30, records.encode(timed))
        elif task.deadline_ns > now_ns + EARLY_NS:
            await self.recorder.set_timer(run, "deadline", task.deadline_ns, records.encode(task))
        elif task.deadline_ns:
            await self.end(run, "timed-out", TimedOut("Its deadline passed.", code="work.deadline"))

    async def _fired(self, subject: str) -> None:
        with contextlib.suppress(Conflict):  # it is on record already
            await self.facts.append(subject, b"")

    async def end(self, run: str, state: records.Final, error: KnotworkError, step: str = "") -> Outcome | None:
        """Record that a task, or one step of a run, ends now, whatever it is doing, and stop whoever works on it.

        Returns the outcome that stands, None when there is no such task that has not ended. Raises `Unavailable` at
        once while the store has no room at all (`work.store_full`).
        """
        while True:
            task = await lookup.present(self._connection, run, step)
            if task is None:
                return await lookup.final(self._connection, run, step)
            self.submitter.check_room(f"That {run} is {state} was not recorded.")
            now_ns = clock.now_ns()
            kept = records.spare(task) if self.submitter.storage.scarce else task
            outcome = records.Outcome(state, records.raw(kept), error=error.to_wire(), node=self._node, ended_ns=now_ns)
            begun = await lookup.worker(self._connection, task, self.holding)
            if begun is not None:  # whose attempt it was is told by its end alone, once its traces are packed away
                outcome = msgspec.structs.replace(
                    outcome, node=begun.node, agent=begun.agent, started_ns=begun.started_ns, delivery=begun.delivery
                )
            standing = await self._ended(task, outcome)
            if standing.state in records.FINAL:
                break
        await self._withdraw(run, step)
        return standing

    async def _ended(self, task: Task, outcome: Outcome) -> Outcome:
        """Record an end that was asked for; where a large input finds no room, without it."""
        try:
            return await self.recorder.append_end(task, outcome, patient=False)
        except Unavailable as error:
            if error.code not in publisher.FULL:
                raise
        least = msgspec.structs.replace(outcome, task=records.raw(records.spare(task)))
        try:
            return await self.recorder.append_end(task, least, patient=False)
        except Unavailable as error:
            if error.code not in publisher.FULL:
                raise
            so = f"That {task.run} is {outcome.state} was not recorded."
            raise self.submitter.no_room_for(so) from error

    async def _withdraw(self, run: str, step: str) -> None:
        """Take a run that has ended out of its queue, and stop whoever took it before."""
        with contextlib.suppress(
            KnotworkError
        ):  # a worker that gets it looks the outcome up, or is refused with its own
            waits = await reading.last(self._connection, subjects.TASKS, patterns.tasks_of(run, step))
            if waits is not None:
                await reading.delete(self._connection, subjects.TASKS, waits.seq)
        self._connection.send(subjects.cancel_task(run), step.encode())

    async def current(self, run: str) -> Task | None:
        """Return the attempt that waits or runs now, None when the run has ended or is unknown."""
        return await lookup.present(self._connection, run)

    async def _has_ended(self, task: Task) -> bool:
        return False if self.past is None else await self.past(task)


async def _again_and_again(look: Callable[[], Awaitable[None]]) -> None:
    """Look every second, for ever."""
    while True:
        await asyncio.sleep(SWEEP_S)
        with comes_again("looking after work"):
            await look()


@asynccontextmanager
async def open_work(
    connection: Connection,
    hosting: Hosting,
    *,
    project: str,
    node: str,
    agents: Callable[[], Sequence[HostedAgent]],
    lease_s: float = 10.0,
    membership: Membership | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Work]:
    """Take part in the durable work of a project inside the block; `gate` says what may not begin yet."""
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(background())
        facts = await stack.enter_async_context(open_group_commit(connection))
        tasks = await stack.enter_async_context(open_group_commit(connection))
        held = await stack.enter_async_context(open_group_commit(connection, returning=True))
        work = Work(
            group, connection, hosting, facts, tasks, held=held, project=project, node=node, agents=agents,
            lease_s=lease_s, membership=membership, gate=gate,
        )  # fmt: skip
        await work.open()
        group.create_task(work.run(), name=f"work {project}")
        try:
            yield work
        finally:
            work.worker.close()
            work.claims.close()
            work.attached.close()
            work.waiters.close(work.claims.left)
