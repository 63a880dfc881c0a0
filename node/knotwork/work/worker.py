"""Who carries tasks out? This node's agents: they take what they have places for, keep the lease, and record the end.

Follow one task: `Intake.arrived` (a delivery), `begin` (the agent's executor starts, by the same door as an
invocation), `Running.frame` (what the executor says), `ended` (settled and recorded), `_recorded` (acknowledged).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, frames, patterns, pulls, subjects
from knotwork.sdk.errors import KnotworkError
from knotwork.work import passing, queues, records, settle, still, withdrawing
from knotwork.work import values as work_values
from knotwork.work.intake import Adopts, Ended, Intake, Key, key_of
from knotwork.work.queues import Queue
from knotwork.work.records import Outcome, Task
from knotwork.work.running import Running
from knotwork.work.taking import Accepts, Taking, serves

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Envelope, Kind
    from knotwork.bus.pulls import Delivery
    from knotwork.bus.wire import Message
    from knotwork.mesh.hosting import Hosting
    from knotwork.mesh.job import HostedAgent
    from knotwork.work.gate import Gate
    from knotwork.work.passing import Passes
    from knotwork.work.queues import Patience
    from knotwork.work.recording import Recorder
    from knotwork.work.values import Values

log = logging.getLogger(__name__)
LONG_S = 0.25
"""An attempt that takes longer is recorded as started; a shorter one tells it with its outcome."""
STILL_S = 0.1
"""A look that comes so much later than it was due: this node stood still, and has not heard yet what was said meanwhile."""
HEARD_S = 0.25
"""Within so long it has."""


class Worker:
    """Takes tasks for this node's agents in one project; made by `room.open_work`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        hosting: Hosting,
        recorder: Recorder,
        facts: GroupCommit,
        *,
        project: str,
        node: str,
        agents: Callable[[], Sequence[HostedAgent]],
        accepts: Accepts,
        has_ended: Ended,
        adopts: Adopts,
        values: Values,
        patience: Patience,
    ) -> None:
        """Work for `agents()`; a task may go as long without a sign of life as `patience` says."""
        self._group, self._connection, self._hosting = group, connection, hosting
        self._recorder = recorder
        self._project, self._node, self._patience = project, node, patience
        self._agents, self._accepts, self._has_ended, self._values = agents, accepts, has_ended, values
        self.taking = Taking(
            connection, node=node, agents=agents, accepts=accepts,
            on_delivery=lambda delivery, agent: self._intake.arrived(delivery, agent),  # noqa: PLW0108  made below
            open_for_work=lambda: not (self._closed or hosting.draining),
        )  # fmt: skip
        self._intake = Intake(
            group, connection, recorder, facts, taking=self.taking, beginner=self, node=node, has_ended=has_ended,
            adopts=adopts,
        )  # fmt: skip
        self.passes: Passes | None = None
        """Who passes on what the schema of an agent of ours refuses; set by the room when others are known."""
        self._running: dict[Key, Running] = {}
        self._closed = False
        self._loop = asyncio.get_running_loop()

    def mind(self, gate: Gate) -> None:
        """Begin nothing that a gate holds back."""
        self._intake.gate = gate

    # -- opening and keeping on --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen for work."""
        await self.taking.open()
        await self._connection.listen(patterns.CANCELLED_TASKS, self._cancelled)
        await self._connection.listen(patterns.WITHDRAWN, self._withdrawn)
        await self._connection.listen(
            subjects.still(self._node), lambda message: still.answer(self._connection, message, self._running)
        )

    async def renew(self) -> None:
        """Keep the lease of everything that runs, for ever."""
        while True:
            await asyncio.sleep(queues.LEASE_MIN_S / 4)
            now_s = self._loop.time()
            for running in list(self._running.values()):
                if now_s - running.renewed_s < self._patience.of(running.consumer) / 4:
                    continue
                try:
                    self._connection.send(running.reply, pulls.ALIVE)
                except KnotworkError:
                    break  # no connection: `reconnected` looks after them
                running.renewed_s = now_s

    async def reconnected(self) -> None:
        """Find out, after a (re)connect, what is certainly fresh from now on, and what ended without us."""
        await self._intake.reconnected()
        for running in list(self._running.values()):
            if await self._intake.outcome_of(running.task) is not None:
                self._stop(running)
        self.taking.pump()

    def swept(self, depths: Sequence[queues.Depth]) -> None:
        """Take note of how the queues stand: what a lost hint would have told, and what workers that died left."""
        self.taking.swept(depths, (running.consumer for running in self._running.values()))

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True

    @property
    def running(self) -> list[Running]:
        """Return the attempts that are being worked on here."""
        return list(self._running.values())

    @property
    def looking(self) -> bool:
        """Return whether something is looked up that may begin here."""
        return self._intake.looking

    # -- executing ---------------------------------------------------------------------------------------------------

    def holds(self, task: Task, delivery: Delivery) -> bool:
        """Return whether an attempt runs here already: our own, delivered again because a sign of life was lost."""
        here = self._running.get(key_of(task))
        if here is not None:
            here.reply = delivery.reply
        return here is not None

    @property
    def claims(self) -> bool:
        """Return False: what our own agents do lives and dies with this node."""
        return False

    def name(self, taker: str) -> str:
        """Return the agent that takes: what it is known by here is its name."""
        return taker

    def begin(self, task: Task, delivery: Delivery, taker: str, left_s: float | None) -> None:
        """Have an agent of ours carry out an attempt, in `left_s` seconds at most."""
        agent = taker or self._any(task)
        running = Running(
            self, task, delivery.data, delivery.reply, agent, delivery.count, clock.now_ns(), self._loop.time()
        )
        self._running[key_of(task)] = running
        envelope = frames.Envelope(
            task.work, left_s, task.by, task.capability, task.boundary, min(task.number, 9999), task.key or task.work,
            task.traceparent, plain=False,
        )  # fmt: skip
        running.timer = self._loop.call_later(LONG_S, self._takes_long, running)
        if task.heartbeat_s:
            running.alive_s = self.now_s
            self._listen_in(task.heartbeat_s, running, task.heartbeat_s)
        if task.blob:
            self._beside(running, self._fetch(running, envelope))
        else:
            self._execute(running, envelope, bytes(task.input))

    def _beside(self, running: Running, work: Coroutine[Any, Any, None]) -> None:
        """Do beside what an attempt needs; if a bug of ours ends that it is given up: it comes again, and counts as a crash."""

        def given_up() -> None:
            self._finished(running)
            self._forget(running)

        self._intake.spawn(work, given_up)

    async def _fetch(self, running: Running, envelope: Envelope) -> None:
        """Begin an attempt whose input is kept elsewhere."""
        try:
            value = await self._values.input_of(running.task)
        except KnotworkError as error:
            if running.over:
                return
            if work_values.passing(error):
                self._hand_back(running, error)
            else:
                self._record(running, "failed", error=error.to_wire())
            return
        if not running.over:  # else it was cancelled meanwhile
            self._execute(running, envelope, value)

    def _execute(self, running: Running, envelope: Envelope, value: bytes) -> None:
        labels = running.task.labels
        self._hosting.arrive(self._project, running.agent, value, envelope, running, durable=True, labels=labels)

    def _any(self, task: Task) -> str:
        queue = Queue(task.boundary, task.queue, task.lane)
        fit = [one for one in self._agents() if serves(one, queue, self._node) and self._accepts.permits(one, queue)]
        if not fit:
            return task.agent
        return min(fit, key=lambda one: one.admission.running / one.admission.concurrency).record.name

    def _takes_long(self, running: Running) -> None:
        if not running.over and running.delivery == 1:
            self._intake.started(running.task, running.agent, running.started_ns, 1)

    @property
    def now_s(self) -> float:
        """Return the time that signs of life are measured by."""
        return self._loop.time()

    def _listen_in(self, left_s: float, running: Running, heartbeat_s: float) -> None:
        self._loop.call_later(left_s, self._listen_for, running, heartbeat_s, self.now_s + left_s)

    def _listen_for(self, running: Running, heartbeat_s: float, due_s: float) -> None:
        """End an attempt whose executor has been silent for too long; else look again when it could be."""
        if running.over or running.withdrawn:
            return
        left_s = running.alive_s + heartbeat_s - self.now_s
        if left_s > 0:
            self._listen_in(left_s, running, heartbeat_s)
            return
        if self.now_s - due_s > STILL_S:  # not for ever: a second look counts, however late it is
            self._loop.call_later(HEARD_S, self._listen_for, running, heartbeat_s, math.inf)
            return
        silent = settle.silent(f"{self._node}/{running.agent}", heartbeat_s)
        if not self._hosting.stop(self._project, running.task.work, silent, late=True):  # its input is on the way
            self._failed(running, silent)

    def tell(self, running: Running, kind: Kind, data: bytes) -> None:
        """Send progress or live output to whoever watches; dropped when there is no room, and progress when too often."""
        now_s = self._loop.time()
        if kind == "progress":
            if now_s - running.told_s < 0.1:  # noqa: PLR2004  ten a second are enough for any eye
                return
            running.told_s = now_s
        try:
            self._connection.send(subjects.live(running.task.run, running.task.step), data, "", frames.HEADS[kind])
        except KnotworkError:
            return

    # -- ending ------------------------------------------------------------------------------------------------------

    def ended(self, running: Running, kind: Kind, data: bytes) -> None:
        """Settle and record the end of an attempt."""
        if running.over:
            return
        if running.withdrawn and kind != "result":
            self._record(running, "cancelled", error=withdrawing.not_needed().to_wire())
        elif kind in ("result", "continue"):
            state: records.Ended = "completed" if kind == "result" else "continued"
            if len(data) > records.INLINE_MAX_BYTES:
                running.over = True
                self._beside(running, self._record_large(running, state, data))
            else:
                self._record(running, state, output=data)
        else:
            error = frames.read_error(data)
            if error.code in settle.HANDED_BACK:
                self._hand_back(running, error)
            elif self.passes is not None and passing.may_pass(running.task, error):
                self._beside(running, self._pass_on(running, error, self.passes))
            else:
                self._failed(running, error)

    def _failed(self, running: Running, error: KnotworkError) -> None:
        wire = error.to_wire()
        wire.get("detail", {}).pop("begun", None)
        state, due_ns, wire = settle.judged(running.task, wire, clock.now_ns(), random.random())  # noqa: S311  (jitter)
        self._record(running, state, error=wire, due_ns=due_ns)

    async def _record_large(self, running: Running, state: records.Ended, output: bytes) -> None:
        """Record an end whose output is kept elsewhere."""
        try:
            value, digest = await self._values.keep_surely(output)
        except KnotworkError as error:
            self._record(running, "failed", error=error.to_wire())
        else:
            self._record(running, state, output=value, blob=digest)

    def _record(
        self, running: Running, state: records.Ended, *, output: bytes = b"null", error: dict[str, object] | None = None,
        due_ns: int = 0, blob: str = "",
    ) -> None:  # fmt: skip
        self._finished(running)
        outcome = Outcome(
            state, msgspec.Raw(running.data), msgspec.Raw(output or b"null"), blob, error, self._node, running.agent,
            running.started_ns, clock.now_ns(), due_ns, running.delivery,
        )  # fmt: skip
        outcome = settle.bounded(running.task, outcome)
        silent_s = self._loop.time() - running.renewed_s
        if silent_s > self._patience.of(running.consumer) * 0.8:  # frozen for a while: it may have ended elsewhere
            self._beside(running, self._record_late(running, outcome))
        else:
            self._recorder.record(running.task, outcome, lambda: self._recorded(running))

    async def _record_late(self, running: Running, outcome: Outcome) -> None:
        try:
            ended = await self._has_ended(running.task)
        except KnotworkError:
            ended = False
        if ended:
            self._recorder.refused += 1
            log.warning("%s ended elsewhere meanwhile; its late outcome here is refused", running.task.run)
            self._recorded(running)
        else:
            self._recorder.record(running.task, outcome, lambda: self._recorded(running))

    @staticmethod
    def _finished(running: Running) -> None:
        running.over = True
        if running.timer is not None:
            running.timer.cancel()

    def _recorded(self, running: Running) -> None:
        self.taking.answer(running.reply, pulls.ACK)
        self._forget(running)

    def _hand_back(self, running: Running, error: KnotworkError) -> None:
        """Give an attempt back unfinished, on record; somebody else takes it at once."""
        self._finished(running)
        self._beside(running, self._release(running, error))

    async def _release(self, running: Running, error: KnotworkError) -> None:
        await self._intake.release(
            running.task, running.delivery, running.reply, running.agent, error.message, code=error.code
        )
        self._forget(running)

    async def _pass_on(self, running: Running, error: KnotworkError, passes: Passes) -> None:
        """Give an attempt to an agent that takes its input, or end it when there is none."""
        passed, failure = False, error
        try:
            passed = await passes(running.task, running.agent, await self._values.input_of(running.task))
        except KnotworkError as away:
            failure = away
        if running.over:  # it was cancelled meanwhile
            return
        if passed:
            self._finished(running)
            self._recorded(running)
        elif failure is error:
            self._failed(running, error)
        else:
            self._hand_back(running, failure)

    def _cancelled(self, message: Message) -> None:
        run, step = message.subject.rpartition(".")[2], message.data.decode("utf-8", "replace")
        for running in self._of(run, step):
            self._stop(running)

    def _withdrawn(self, message: Message) -> None:
        """Stop work that is asked back; its end goes on record when its executor has really ended."""
        run, step = message.subject.rpartition(".")[2], message.data.decode("utf-8", "replace")
        for running in self._of(run, step):
            if subjects.may_answer(message.reply):
                with contextlib.suppress(KnotworkError):  # it asks again
                    self._connection.send(message.reply, withdrawing.I_HAVE_IT)
            if running.over or running.withdrawn:  # to be stopped twice would cut short how it ends
                continue
            running.withdrawn = True
            if not self._hosting.stop(self._project, running.task.work, withdrawing.not_needed()):
                self._record(running, "cancelled", error=withdrawing.not_needed().to_wire())  # its input was on the way

    def _of(self, run: str, step: str) -> list[Running]:
        return [one for one in self._running.values() if one.task.run == run and step in ("", one.task.step)]

    def _stop(self, running: Running) -> None:
        """End an attempt whose outcome is recorded already."""
        self._finished(running)
        self._hosting.cancel(self._project, running.task.work)
        self._recorded(running)

    def _forget(self, running: Running) -> None:
        if self._running.get(key_of(running.task)) is running:
            del self._running[key_of(running.task)]
        self.taking.pump()
