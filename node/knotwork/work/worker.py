"""Who carries tasks out? This node's agents: they take what they have places for, keep the lease, and record the end.

Follow one task: `_arrived` (a delivery), `_begin` (the agent's executor starts, by the same door as an invocation),
`Running.frame` (what the executor says), `_ended` (settled and recorded), `_recorded` (acknowledged). A task that is
not certainly fresh is first looked up in FACTS, because acknowledgements do not survive a crash of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from knotwork.bus import frames, pulls, reading, subjects
from knotwork.sdk.errors import Conflict, Failed, Invalid, KnotworkError, TimedOut
from knotwork.work import queues, records, settle
from knotwork.work.queues import Queue
from knotwork.work.records import Outcome, Released, Started, Task
from knotwork.work.taking import Accepts, Taking, serves

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Kind
    from knotwork.bus.publisher import Ack
    from knotwork.bus.pulls import Delivery
    from knotwork.bus.wire import Message
    from knotwork.mesh.hosting import Hosting
    from knotwork.mesh.job import HostedAgent
    from knotwork.work.recording import Recorder

log = logging.getLogger(__name__)
LONG_S = 0.25
"""An attempt that takes longer is recorded as started; a shorter one tells it with its outcome."""
Key = tuple[str, str, int, int]


class Ended(Protocol):
    """Whether an attempt has ended, for those that FACTS has forgotten."""

    async def __call__(self, task: Task, /) -> bool:
        """Return whether the attempt has an outcome that is kept elsewhere."""


@dataclass(eq=False, slots=True)
class Running:
    """One attempt that an agent of this node works on (`mesh.hosting.Answering`). `renewed_s` is monotonic."""

    worker: Worker
    task: Task
    data: bytes
    reply: str
    agent: str
    delivery: int
    started_ns: int
    renewed_s: float
    over: bool = False
    timer: asyncio.TimerHandle | None = None
    told_s: float = 0.0

    def close(self) -> None:
        """Do nothing: there is no caller who could go away."""

    def frame(self, kind: Kind, data: bytes) -> None:
        """Take what the executor says."""
        if kind in frames.LAST:
            self.worker.ended(self, kind, data)
        elif kind != "alive":
            self.worker.tell(self, kind, data)


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
        lease_s: float,
    ) -> None:
        """Work for `agents()`; `lease_s` is how long a task may go without a sign of life."""
        self._group, self._connection, self._hosting = group, connection, hosting
        self._recorder, self._facts = recorder, facts
        self._project, self._node, self._lease_s = project, node, lease_s
        self._agents, self._has_ended = agents, has_ended
        self.taking = Taking(
            connection, node=node, agents=agents, accepts=accepts, on_delivery=self._arrived,
            open_for_work=lambda: not (self._closed or hosting.draining),
        )  # fmt: skip
        self._running: dict[Key, Running] = {}
        self._looking: set[Key] = set()
        self._fresh_after = 2**62
        self._closed = False
        self._loop = asyncio.get_running_loop()

    # -- opening and keeping on --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen for work."""
        await self.taking.open()
        await self._connection.listen("cancel.*", self._cancelled)

    async def renew(self) -> None:
        """Keep the lease of everything that runs, for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            now_s = self._loop.time()
            for running in list(self._running.values()):
                try:
                    self._connection.send(running.reply, pulls.ALIVE)
                except KnotworkError:
                    break  # no connection: `reconnected` looks after them
                running.renewed_s = now_s

    async def reconnected(self) -> None:
        """Find out, after a (re)connect, what is certainly fresh from now on, and what ended without us."""
        self._fresh_after = 2**62
        self.taking.forget()
        self._fresh_after = await reading.last_seq(self._connection, subjects.TASKS)
        for running in list(self._running.values()):
            if await self._outcome_of(running.task) is not None:
                self._stop(running)
        self.taking.pump()

    def swept(self, depths: Sequence[queues.Depth]) -> None:
        """Take note of how the queues stand: what a lost hint would have told, and what workers that died left."""
        running = (Queue(one.task.boundary, one.task.queue, one.task.lane).consumer for one in self._running.values())
        self.taking.swept(depths, running)

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True

    @property
    def running(self) -> list[Running]:
        """Return the attempts that are being worked on here."""
        return list(self._running.values())

    # -- taking ------------------------------------------------------------------------------------------------------

    def _arrived(self, delivery: Delivery, agent: str) -> None:
        try:
            task = records.decode_task(delivery.data)
            if task.subject != delivery.subject:
                raise Invalid("It does not stand where it says.", code="work.bad_record")
        except KnotworkError as error:
            log.error("a message on %s is no task and is dropped: %s", delivery.subject, error)  # noqa: TRY400
            self.taking.answer(delivery.reply, pulls.TERM)
            return
        if delivery.count == 1 and delivery.seq > self._fresh_after:
            self._begin(task, delivery, agent)
        else:
            self.taking.hold(agent, 1)
            self._spawn(self._look_up(task, delivery, agent))

    async def _look_up(self, task: Task, delivery: Delivery, agent: str) -> None:
        """Begin a task that may have ended already, or may have killed its workers, only when neither is so."""
        key = _key(task)
        try:
            here = self._running.get(key)
            if here is not None:  # our own, delivered again because a sign of life was lost
                here.reply = delivery.reply
            elif key not in self._looking:
                self._looking.add(key)
                try:
                    await self._begin_unless_over(task, delivery, agent)
                finally:
                    self._looking.discard(key)
        except KnotworkError as error:
            log.debug("%s could not be looked up, it comes again: %s", task.run, error)
        finally:
            self.taking.hold(agent, -1)
            self.taking.pump()

    async def _begin_unless_over(self, task: Task, delivery: Delivery, agent: str) -> None:
        if await self._is_over(task):
            self.taking.answer(delivery.reply, pulls.ACK)
        elif crashed := await self._crashes(task, delivery, agent):
            self._poison(task, delivery, crashed)
        else:
            self._begin(task, delivery, agent)

    async def _is_over(self, task: Task) -> bool:
        """Return whether an attempt has its outcome; what that calls for is done again."""
        outcome = await self._outcome_of(task)
        if outcome is None:
            return await self._has_ended(task)
        await self._recorder.carry_out(task, outcome)
        return True

    async def _crashes(self, task: Task, delivery: Delivery, agent: str) -> int:
        """Return how many workers a task has killed when those are too many, else 0 and it is on record that it begins."""
        if delivery.count == 1:
            return 0
        begun, released = await self._traces(task)
        crashed = settle.crashes(delivery.count, begun, released)
        if crashed >= task.retry.max_crashes:
            return crashed
        fact = Started(self._node, agent, time.time_ns(), delivery.count)
        with contextlib.suppress(Conflict):  # a server that crashed counts deliveries anew
            await self._facts.append(_trace_subject(task, "started", delivery.count), records.encode(fact))
        return 0

    def _poison(self, task: Task, delivery: Delivery, crashed: int) -> None:
        error = Failed(
            f"Its worker died {crashed} times while it ran.", code="work.poison",
            hint="Mend the agent, then `knotwork task redrive`.",
        )  # fmt: skip
        running = self._remember(task, delivery, "")
        self._record(running, "dead", error=error.to_wire())

    async def _traces(self, task: Task) -> tuple[frozenset[int], frozenset[int]]:
        found: dict[str, set[int]] = {"started": set(), "released": set()}
        for what, numbers in found.items():
            pattern = f"{_trace_subject(task, what)}.*"
            for stored in await reading.each_last(self._connection, subjects.FACTS, [pattern]):
                number = stored.subject.rpartition(".")[2]
                if number.isdigit():
                    numbers.add(int(number))
        return frozenset(found["started"]), frozenset(found["released"])

    async def _outcome_of(self, task: Task) -> Outcome | None:
        subject = records.outcome_subject(task.run, task.step, task.iteration, task.number)
        stored = await reading.last(self._connection, subjects.FACTS, subject)
        if stored is None:
            return None
        try:
            return records.decode_outcome(stored.data)
        except Invalid:
            return None  # garbage: the recorder removes it

    # -- executing ---------------------------------------------------------------------------------------------------

    def _remember(self, task: Task, delivery: Delivery, agent: str) -> Running:
        running = Running(
            self, task, delivery.data, delivery.reply, agent, delivery.count, time.time_ns(), self._loop.time()
        )
        self._running[_key(task)] = running
        return running

    def _begin(self, task: Task, delivery: Delivery, agent: str) -> None:
        agent = agent or self._any(task)
        left_s = _left_s(task)
        running = self._remember(task, delivery, agent)
        if left_s is not None and left_s <= 0:
            self._record(running, "timed-out", error=_too_late().to_wire())
            return
        envelope = frames.Envelope(
            task.run, left_s, task.by, task.capability, task.boundary, min(task.number, 9999), task.key or task.run,
            task.traceparent, plain=False,
        )  # fmt: skip
        running.timer = self._loop.call_later(LONG_S, self._takes_long, running)
        self._hosting.arrive(
            self._project, agent, bytes(task.input), envelope, running, durable=True, labels=task.labels
        )

    def _any(self, task: Task) -> str:
        queue = Queue(task.boundary, task.queue, task.lane)
        fit = [agent for agent in self._agents() if serves(agent, queue, self._node)]
        if not fit:
            return task.agent
        return min(fit, key=lambda one: one.admission.running / one.admission.concurrency).record.name

    def _takes_long(self, running: Running) -> None:
        if not running.over and running.delivery == 1:
            fact = Started(self._node, running.agent, running.started_ns)
            try:
                stored = self._facts.put(_trace_subject(running.task, "started", 1), records.encode(fact))
            except KnotworkError:
                return
            stored.add_done_callback(_seen)

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
        if kind == "result":
            self._record(running, "completed", output=data)
        elif kind == "continue":
            self._record(running, "continued", output=data)
        else:
            error = frames.read_error(data)
            wire = error.to_wire()
            if error.code in settle.HANDED_BACK:
                self._hand_back(running, error)
                return
            wire.get("detail", {}).pop("begun", None)
            now_ns = time.time_ns()
            state, due_ns = settle.after_failure(running.task, wire, now_ns, random.random())  # noqa: S311  (jitter)
            self._record(running, state, error=wire, due_ns=due_ns)

    def _record(
        self, running: Running, state: records.Ended, *, output: bytes = b"null", error: dict[str, object] | None = None,
        due_ns: int = 0,
    ) -> None:  # fmt: skip
        running.over = True
        if running.timer is not None:
            running.timer.cancel()
        outcome = Outcome(
            state, msgspec.Raw(running.data), msgspec.Raw(output or b"null"), "", error, self._node, running.agent,
            running.started_ns, time.time_ns(), due_ns, running.delivery,
        )  # fmt: skip
        if (
            self._loop.time() - running.renewed_s > self._lease_s * 0.8
        ):  # frozen for a while: it may have ended elsewhere
            self._spawn(self._record_late(running, outcome))
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

    def _recorded(self, running: Running) -> None:
        self.taking.answer(running.reply, pulls.ACK)
        self._forget(running)

    def _hand_back(self, running: Running, error: KnotworkError) -> None:
        """Give an attempt back unfinished, on record; somebody else takes it at once."""
        running.over = True
        if running.timer is not None:
            running.timer.cancel()
        self._spawn(self._release(running, error))

    async def _release(self, running: Running, error: KnotworkError) -> None:
        fact = Released(self._node, running.agent, time.time_ns(), error.code)
        try:
            await self._facts.append(_trace_subject(running.task, "released", running.delivery), records.encode(fact))
        except KnotworkError as failure:
            log.debug("handing %s back is not on record: %s", running.task.run, failure)
        self.taking.answer(running.reply, pulls.NAK)
        self._forget(running)

    def _cancelled(self, message: Message) -> None:
        run = message.subject.rpartition(".")[2]
        for running in [one for one in self._running.values() if one.task.run == run]:
            self._stop(running)

    def _stop(self, running: Running) -> None:
        """End an attempt whose outcome is recorded already."""
        running.over = True
        if running.timer is not None:
            running.timer.cancel()
        self._hosting.cancel(self._project, running.task.run)
        self._recorded(running)

    def _forget(self, running: Running) -> None:
        if self._running.get(_key(running.task)) is running:
            del self._running[_key(running.task)]
        self.taking.pump()

    def _spawn(self, work: object) -> None:
        try:
            self._group.create_task(work)  # type: ignore[arg-type]  # one of our coroutines
        except RuntimeError:  # the group is closing: what is not recorded comes again
            work.close()  # type: ignore[attr-defined]


def _key(task: Task) -> Key:
    return task.run, task.step, task.iteration, task.number


def _trace_subject(task: Task, what: str, delivery: int = 0) -> str:
    parts = (what, task.step, str(task.iteration), str(task.number), *((str(delivery),) if delivery else ()))
    return subjects.fact(records.shard(task.run), task.run, *parts)


def _left_s(task: Task) -> float | None:
    """Return how long an attempt may take from now on, in seconds; None: as long as it likes."""
    left = [task.timeout_s] if task.timeout_s else []
    if task.deadline_ns:
        left.append((task.deadline_ns - time.time_ns()) / 1e9)
    return min(left) if left else None


def _too_late() -> KnotworkError:
    return TimedOut("Its deadline passed before an agent could begin it.", code="work.deadline")


def _seen(future: asyncio.Future[Ack]) -> None:
    if not future.cancelled():
        future.exception()
