"""How is durable work wired for one project? Streams, writers, worker, timers, waiters: opened together, closed together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.bus import reading, subjects
from knotwork.bus.background import background
from knotwork.bus.commit import open_group_commit
from knotwork.sdk.errors import KnotworkError, TimedOut
from knotwork.work import archive, fold, queues, records, stores, timers
from knotwork.work.recording import Recorder
from knotwork.work.submit import Submitter
from knotwork.work.waiting import Waiters
from knotwork.work.worker import Worker

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.mesh.hosting import Hosting
    from knotwork.mesh.job import HostedAgent
    from knotwork.work.records import Outcome, Task

log = logging.getLogger(__name__)
SWEEP_S = 1.0


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
        project: str,
        node: str,
        agents: Callable[[], Sequence[HostedAgent]],
        lease_s: float,
    ) -> None:
        """Wire the parts."""
        self._connection, self._facts, self._node = connection, facts, node
        self.depths: list[queues.Depth] = []
        self.recorder = Recorder(group, connection, facts, tasks)
        self.submitter = Submitter(connection, self.recorder, facts, tasks, lease_s=lease_s)
        self.waiters = Waiters(connection, self.find)
        self.timers = timers.Timers(group, connection, self._due)
        self.worker = Worker(
            group, connection, hosting, self.recorder, facts, project=project, node=node, agents=agents,
            accepts=lambda _agent, _queue: True, has_ended=self._has_ended, lease_s=lease_s,
        )  # fmt: skip
        self._purged: dict[str, int] = {}
        self._again = asyncio.Event()

    async def find(self, run: str) -> Outcome | None:
        """Return the final outcome of a run, None while it has none."""
        facts = await reading.each_last(self._connection, subjects.FACTS, [f"{records.facts_of(run)}.outcome.>"])
        latest = fold.latest_outcome(facts)
        return latest[1] if latest is not None and latest[1].state in records.FINAL else None

    async def open(self) -> None:
        """Make the streams and begin to listen."""
        await stores.open_stores(self._connection)
        await self.timers.open()
        await self.worker.open()
        await self._reconnected()

    async def run(self) -> None:
        """Keep leases, look around every second, take up the thread after a reconnect; until cancelled."""
        forget = self._connection.on_up(self._again.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.worker.renew(), name="leases")
                group.create_task(self._resume(), name="work after a reconnect")
                while True:
                    await asyncio.sleep(SWEEP_S * random.uniform(0.8, 1.2))  # noqa: S311  (jitter)
                    with contextlib.suppress(KnotworkError):  # NATS is away: next time
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
        await self.worker.reconnected()
        self.timers.look(anew=True)
        await self.waiters.reconnected()

    async def _look_around(self) -> None:
        """See how the queues stand, tell the worker, and remove what is finished, in bulk."""
        self.depths = await queues.sweep(self._connection)
        self.worker.swept(self.depths)
        self.timers.look()
        for depth in self.depths:
            name = depth.queue.consumer
            if depth.floor > self._purged.get(name, 0):
                await reading.purge(self._connection, subjects.TASKS, depth.queue.filter, depth.floor + 1)
                self._purged[name] = depth.floor

    async def _due(self, name: str, task: Task) -> None:
        if name == "deadline":
            error = TimedOut("Its deadline passed.", code="work.deadline")
            await self.end(task.run, "timed-out", error)
        else:
            await self.recorder.enqueue(task)

    async def end(self, run: str, state: records.Final, error: KnotworkError) -> Outcome | None:
        """Record that a run ends now, whatever it is doing, and stop whoever works on it.

        Returns the outcome that stands, None when there is no such task that has not ended.
        """
        while True:
            task = await self.current(run)
            if task is None:
                return await self.find(run)
            now_ns = time.time_ns()
            outcome = records.Outcome(state, records.raw(task), error=error.to_wire(), node=self._node, ended_ns=now_ns)
            standing = await self.recorder.append(task, outcome)
            if standing.state in records.FINAL:
                break
        await self._withdraw(run)
        return standing

    async def _withdraw(self, run: str) -> None:
        """Take a run that has ended out of its queue, and stop whoever took it before."""
        with contextlib.suppress(KnotworkError):  # a worker that gets it looks the outcome up, or is refused with its own
            waits = await reading.last(self._connection, subjects.TASKS, subjects.tasks_of(run))
            if waits is not None:
                await reading.delete(self._connection, subjects.TASKS, waits.seq)
        self._connection.send(subjects.cancel_task(run))

    async def current(self, run: str) -> Task | None:
        """Return the attempt that waits or runs now, None when the run has ended or is unknown."""
        stored = await reading.each_last(
            self._connection, subjects.FACTS, [f"{records.facts_of(run)}.outcome.>", f"{records.facts_of(run)}.next.>"]
        )
        waits = await reading.last(self._connection, subjects.TASKS, subjects.tasks_of(run))
        return fold.current(stored, waits)

    async def _has_ended(self, _task: Task) -> bool:
        return False


@asynccontextmanager
async def open_work(
    connection: Connection,
    hosting: Hosting,
    *,
    project: str,
    node: str,
    agents: Callable[[], Sequence[HostedAgent]],
    lease_s: float = 10.0,
) -> AsyncIterator[Work]:
    """Take part in the durable work of a project inside the block."""
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(background())
        facts = await stack.enter_async_context(open_group_commit(connection))
        tasks = await stack.enter_async_context(open_group_commit(connection))
        work = Work(
            group, connection, hosting, facts, tasks, project=project, node=node, agents=agents, lease_s=lease_s
        )
        await work.open()
        group.create_task(work.run(), name=f"work {project}")
        group.create_task(archive.Archiver(connection, node=node).run(), name=f"archive {project}")
        try:
            yield work
        finally:
            work.worker.close()
