"""How are durable tasks submitted, awaited and ended by those who ask? The work of one project, as the ops' replies."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from knotwork.bus import clock, patterns, reading, subjects
from knotwork.desk.callers import caller_name
from knotwork.desk.seen_agents import SeenAgents
from knotwork.desk.tasks import dead_letters
from knotwork.desk.tasks import ends as task_ends
from knotwork.desk.tasks import filter as task_filter
from knotwork.desk.tasks import rows as task_rows
from knotwork.desk.tasks import values as task_values
from knotwork.desk.tasks.ends import not_cancelled
from knotwork.desk.tasks.new import NewTasks
from knotwork.desk.tasks.reasons import TaskReasons
from knotwork.desk.tasks.watch import TaskWatch
from knotwork.ops import replies, task_replies
from knotwork.sdk.errors import Cancelled, KnotworkError, NotFound, Unavailable
from knotwork.work import dead, hands, history, lookup, queues, records

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.reading import Stored
    from knotwork.desk.tasks.past import Past
    from knotwork.mesh.membership import Membership
    from knotwork.ops.op import Caller
    from knotwork.ops.task_ports import DeadFilter, NewTask, TaskFilter
    from knotwork.spinup.room import SpinUps
    from knotwork.work.dead import Letter
    from knotwork.work.lookup import Sight
    from knotwork.work.records import Outcome, Task
    from knotwork.work.room import Work

log = logging.getLogger(__name__)


class TaskDesk:
    """One project's tasks (`ops.task_ports.Tasks`)."""

    def __init__(
        self,
        work: Work,
        membership: Membership,
        past: Past,
        spinups: SpinUps | None = None,
        *,
        revival: Callable[[], dead_letters.Revival],
        circles: tuple[str, ...] | None = None,
        agents: SeenAgents | None = None,
    ) -> None:
        """Work through our part in the project; what is long over is asked of `past`, what is started of `spinups`.

        A step of a run that died comes back by `revival()`.
        Beside what is the whole project's, the work of these circles is shown (`trust.scopes`), with None everybody's.
        """
        self._circles, self._agents = circles, agents or SeenAgents()
        self._work, self._membership, self._past, self._revival = work, membership, past, revival
        self._connection, self._values = membership.connection, work.values
        self._new = NewTasks(work, membership, past, self._agents)
        self._reasons = TaskReasons(work, membership, spinups, self._agents)

    # -- submitting --------------------------------------------------------------------------------------------------

    async def submit(self, wanted: NewTask, caller: Caller) -> task_replies.TaskInfo:
        """Store a task durably and return it; raises `NotFound` (`work.not_found`) for a parent that nobody knows."""
        await self._check_parent(wanted.parent)
        task, is_new = await self._new.submit(wanted, caller)
        return self._stored(task) if is_new else await self.get(task.run)

    async def retry(self, run: str, caller: Caller) -> task_replies.TaskInfo:
        """Submit the work of an ended task anew."""
        return self._stored(await self._new.submit_anew(await self._sight(run), caller))

    async def _check_parent(self, run: str) -> None:
        """Raise `NotFound` for a task that is none; where the past cannot be asked just now, and of runs, it is believed."""
        if not run or run.startswith(records.WORKFLOW):
            return
        try:
            await self._sight(run)
        except Unavailable as error:
            log.debug("whether there is a task %s is not known: %s", run, error)
        except NotFound as error:
            raise NotFound(
                f"There is no task {run} that this could belong to.", code=error.code,
                hint="Leave `parent` out, or name a task: see `knotwork task list`.",
            ) from error  # fmt: skip

    def _stored(self, task: Task) -> task_replies.TaskInfo:
        return task_rows.info(lookup.Sight(task, "pending"), new=True, note=self._new.note(task))

    # -- looking -----------------------------------------------------------------------------------------------------

    async def get(self, run: str, *, with_input: bool = False) -> task_replies.TaskInfo:
        """Return a task as it is now."""
        return await task_values.info(self._values, await self._sight(run), with_input=with_input)

    async def ended(self, run: str, timeout_s: float) -> task_replies.TaskInfo:
        """Return a task when it has ended, or as it is after `timeout_s` seconds."""
        sight = await self._sight(run)
        if sight.state not in records.FINAL:
            try:
                async with asyncio.timeout(timeout_s):
                    sight = task_rows.of_outcome(await self._work.waiters.ended(run))
            except TimeoutError:
                return await self.get(run)
        return await task_values.info(self._values, sight)

    async def _sight(self, run: str) -> Sight:
        """Return a run as it is; raises `NotFound` (`work.not_found`)."""
        sight = await self._work.look(records.run_id(run))
        if sight is not None and sight.state == "waiting" and sight.outcome is None:  # for longer than FACTS remembers
            with suppress(Unavailable):
                sight = dataclasses.replace(sight, outcome=await self._past.latest(run))
        if sight is None and (outcome := await self._past_end(run)) is not None:
            sight = task_rows.of_outcome(outcome)
        if sight is None or not task_filter.may_know(sight.task, self._circles):
            raise NotFound(
                f"There is no task {run}.", code="work.not_found", hint="It may be over for longer than it is kept."
            )
        return sight

    async def _past_end(self, run: str) -> Outcome | None:
        """Return the final outcome of a run that FACTS has forgotten; raises `Unavailable` when that cannot be told."""
        outcome = await self._past.latest(run)
        return outcome if outcome is not None and outcome.state in records.FINAL else None

    # -- large values ------------------------------------------------------------------------------------------------

    async def keep(self, data: bytes, upload: str, digest: str) -> task_replies.BlobKept:
        """Keep a piece of a large value."""
        return await task_values.keep(self._values.blobs, data, upload, digest)

    def read(self, digest: str, after: int | None) -> AsyncGenerator[replies.Chunk | task_replies.BlobKept, None]:
        """Yield the pieces of a large value, or the one behind a place."""
        return task_values.read(self._values.blobs, digest, after)

    # -- looking closer ----------------------------------------------------------------------------------------------

    async def history(self, run: str) -> task_replies.TaskHistory:
        """Return everything that is on record about a task."""
        sight = await self._sight(run)
        ended = sight.outcome if sight.state in records.FINAL else None
        told = history.transitions(sight.task, await self._facts_of(run), ended)
        rows = [task_rows.transition(one) for one in told]
        return task_replies.TaskHistory(id=run, state=sight.state, transitions=rows)

    async def _facts_of(self, run: str) -> list[Stored]:
        every = reading.every(self._connection, subjects.FACTS, patterns.facts_of(run))
        return [history.without_values(stored) async for stored in every]

    async def why(self, run: str) -> task_replies.TaskWhy:
        """Return why a task is where it is."""
        sight = await self._sight(run)
        around = await self._reasons.around(sight)
        return task_rows.why(sight, around, clock.now_ns())

    async def watch(
        self, run: str, timeout_s: float
    ) -> AsyncGenerator[replies.Progress | replies.Chunk | task_replies.TaskInfo, None]:
        """Yield what happens to a task, then the task as it is at the end."""
        sight = await self._sight(run)
        if sight.state not in records.FINAL:
            watching = TaskWatch(self._connection, run, self._work.look)
            await watching.open()
            try:
                async with aclosing(watching.pieces(timeout_s)) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                await watching.close()
        yield await self.get(run)

    # -- many of them ------------------------------------------------------------------------------------------------

    async def list(self, wanted: TaskFilter) -> task_replies.TaskList:
        """Return the tasks that fit, the newest first, a page at a time."""
        return await self._past.list(dataclasses.replace(wanted, circles=self._circles))

    async def stats(self) -> task_replies.TaskStats:
        """Return how much there is to do."""
        found = self._in_hands(await queues.sweep(self._connection))  # an older sweep does not know a new queue
        seen = None if self._circles is None else ("", *self._circles)
        depths = [one for one in sorted(found) if seen is None or subjects.circle_of(one.queue.routed) in seen]
        count = reading.count_from
        return task_replies.TaskStats(
            waiting=sum(one.pending for one in depths),
            taken=sum(one.taken for one in depths),
            timers=await count(self._connection, subjects.TIMERS, patterns.TIMERS, 1),
            dead=await self._work.dead.count(),
            running_here=len(self._work.worker.running),
            refused_here=self._work.recorder.refused,
            by_state=await self._past.counts(),
            queues=task_rows.queue_rows(depths),
        )  # fmt: skip

    def _in_hands(self, depths: Sequence[queues.Depth]) -> Sequence[queues.Depth]:
        """Return how queues stand, without what workers that are gone left."""
        directory = self._membership.directory
        known = [*self._work.claims.keeper.all_consumers(), *(one.consumer for one in self._work.worker.running)]
        others = [
            hands.Busy(record.node, agent)
            for record, agent, state in directory.agents()
            if record.node != directory.here
            and state != "offline"
            and not agent.attached
            and (agent.running or agent.queued)
        ]
        return hands.held(depths, known, others)

    # -- ending ------------------------------------------------------------------------------------------------------

    async def cancel(self, runs: Sequence[str], why: str, caller: Caller) -> task_replies.CancelledTasks:
        """End tasks wherever they are, what waits first; raises `Unavailable` when none of them can be ended now."""
        rows: dict[str, task_replies.Cancelled] = {}
        states: dict[str, str] = {}
        for run in runs:
            try:
                states[run] = (await self._sight(run)).state
            except NotFound as failure:
                rows[run] = not_cancelled(run, failure)
        for run in sorted(states, key=lambda run: states[run] == "running"):
            try:
                rows[run] = await self._cancel(run, why, caller)
            except task_ends.PASSING as failure:
                if not any(one.changed for one in rows.values()):
                    raise
                rows[run] = not_cancelled(run, failure, states[run])
        asked = [rows[run] for run in dict.fromkeys(runs)]
        return task_replies.CancelledTasks(tasks=asked, changed=sum(one.changed for one in asked))

    async def _cancel(self, run: str, why: str, caller: Caller, since_ns: int = 0) -> task_replies.Cancelled:
        """End a task; that it ended so since then (nanoseconds, now by default) was our doing."""
        since_ns = since_ns or clock.now_ns()
        told = f"Cancelled by {caller_name(caller)}" + (f": {why}" if why else ".")
        error = Cancelled(told, code="work.cancelled")
        try:
            outcome = await self._work.end(records.run_id(run), "cancelled", error)
            outcome = outcome or await self._past_end(run)
        except task_ends.PASSING:
            raise
        except KnotworkError as failure:
            return not_cancelled(run, failure)
        if outcome is None:
            return not_cancelled(
                run, NotFound("There is no such task.", code="work.not_found", hint="See `knotwork task list`.")
            )
        mine = outcome.state == "cancelled" and outcome.ended_ns >= since_ns
        why_not = "" if mine else f"It was {outcome.state} before."
        return task_replies.Cancelled(id=run, state=outcome.state, changed=mine, why=why_not)

    async def cancel_where(self, wanted: TaskFilter, why: str, caller: Caller) -> task_replies.CancelledTasks:
        """End every task that fits and has not ended."""
        wanted = dataclasses.replace(wanted, circles=self._circles)
        patience_s = 0.0 if self._work.submitter.full() else task_ends.PATIENCE_S
        ending = task_ends.Ending(lambda run, since_ns: self._cancel(run, why, caller, since_ns), patience_s)
        return await ending.all(lambda: task_filter.fitting(self._connection, wanted, self._work.look))

    def _known(self, wanted: DeadFilter) -> DeadFilter:
        """Return a filter that means only what may be seen here."""
        return dataclasses.replace(wanted, circles=self._circles)

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def dead(self, wanted: DeadFilter) -> task_replies.DeadList:
        """Return dead letters, a page at a time."""
        return await dead_letters.page(self._work.dead, self._known(wanted))

    async def dead_letter(self, run: str, step: str = "") -> task_replies.TaskInfo:
        """Return a dead letter with its input, as it is kept: the run that it was a step of may be packed away.

        What is none is told as it is, to be refused.
        """
        letter: Letter | None = None
        with suppress(NotFound):
            letter = await self._work.dead.of(records.run_id(run), step)
        if letter is None or not task_filter.may_know(letter.task, self._circles):
            found = await self.get(run, with_input=True)
            if found.state == "dead":  # its letter was dropped
                raise dead.unknown(run)
            return found
        return await task_values.info(self._values, task_rows.of_outcome(letter.outcome), with_input=True)

    async def redrive(
        self, wanted: DeadFilter, *, per_s: float, dry_run: bool, caller: Caller
    ) -> task_replies.RedrivenTasks:
        """Give dead tasks another attempt."""
        known, runs = self._known(wanted), self._revival()
        return await dead_letters.redrive(self._work.dead, runs, known, caller, per_s=per_s, dry_run=dry_run)

    async def drop(self, wanted: DeadFilter, caller: Caller) -> task_replies.Dropped:  # noqa: ARG002  for the audit to come
        """Remove dead letters."""
        return await dead_letters.drop(self._work.dead, self._known(wanted))
