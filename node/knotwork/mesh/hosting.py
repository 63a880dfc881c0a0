"""What happens when one of our agents is called? Admission, the executor, a deadline, and exactly one answer.

A call is answered when it is over, timed out or cancelled, whichever comes first; its executor may need longer to
stop, and keeps its place until it has. A task that times out is answered only when its executor has ended, or does not
for `LET_GO_S`: what follows from it must not meet it at work. Calls from this node and from others come in by the same
function.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from knotwork.bus import clock, codec, frames, way
from knotwork.bus.background import ends
from knotwork.mesh import late, refusal
from knotwork.mesh.answers import Answers
from knotwork.mesh.job import Answering, HostedAgent, Job, crashed
from knotwork.mesh.policy import READY
from knotwork.sdk import Attempt, Done, Span
from knotwork.sdk import Failed as FailedOutcome
from knotwork.sdk.errors import (
    Cancelled,
    Failed,
    Invalid,
    KnotworkError,
    TimedOut,
    TooLarge,
    Unavailable,
)
from knotwork.sockets import raised, said
from knotwork.telemetry import trace
from knotwork.telemetry.measure import AgentMeter, Meter

if TYPE_CHECKING:
    from knotwork.bus.frames import Envelope, Kind
    from knotwork.mesh.policy import Policy
    from knotwork.telemetry.emitter import Emitter

__all__ = ["Answering", "HostedAgent", "Hosting", "Job"]
LET_GO_S = 10.0
"""How long the executor of a task that took too long may take to end, before that is told regardless."""
NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Hosting:
    """All agents of this node, and the calls they are working on."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        emitter: Emitter,
        meter: Meter,
        *,
        node: str,
        policy: Callable[[], Policy] = lambda: READY,
    ) -> None:
        """Host nothing yet; work runs in tasks of `group`, is told to `emitter` and `meter`, and allowed by `policy`."""
        self._group, self._policy = group, policy
        self._emitter = emitter
        self._node = node
        self._meter = meter
        self._meters: dict[tuple[str, str], AgentMeter] = {}
        self._agents: dict[str, HostedAgent] = {}
        self._jobs: set[Job] = set()
        self._by_id: dict[tuple[str, str], Job] = {}
        self._answers = Answers(group, self._rest)
        self.draining = False
        self.rested_s = time.monotonic()  # when it had work last
        self.idle = asyncio.Event()
        self.idle.set()

    # -- which agents ------------------------------------------------------------------------------------------------

    def replace(self, agents: Iterable[HostedAgent]) -> None:
        """Host these agents from now on; calls of agents that are gone finish where they are."""
        self._agents = {agent.record.name: agent for agent in agents}
        for agent in self._agents.values():  # more places than before: those who wait need not wait for one to leave
            while (waiting := agent.admission.next()) is not None:
                self._start(waiting)
        for key in [key for key in self._meters if key[0] not in self._agents]:
            self._meters.pop(key).forget()

    def agents(self) -> tuple[HostedAgent, ...]:
        """Return all agents of this node."""
        return tuple(self._agents.values())

    def get(self, name: str) -> HostedAgent | None:
        """Return one agent, None when it is not ours."""
        return self._agents.get(name)

    def running(self) -> list[Job]:
        """Return the calls that are here, the waiting ones included."""
        return list(self._jobs)

    # -- calls -------------------------------------------------------------------------------------------------------

    def arrive(
        self,
        project: str,
        name: str,
        data: bytes,
        envelope: Envelope,
        answer: Answering,
        *,
        durable: bool = False,
        labels: Mapping[str, str] = NO_LABELS,
    ) -> Job | None:
        """Take a call; its answer comes through `answer`, now when it is refused.

        A `durable` one is a task: it may take as long as its envelope says, whatever calls of this agent may take.
        """
        agent = self._agents.get(name)
        if agent is None or project not in agent.projects:
            self._refuse(answer, refusal.absent(name, self._node), project, name, envelope)
            return None
        closed = refusal.closed(agent, self._node, envelope.boundary, self._policy(), draining=self.draining)
        if closed is not None:
            self._refuse(answer, closed, project, name, envelope)
            return None
        agent.counts.requests += 1
        meter = self._meter_of(name, project)
        allowed_s = _allowed_s(math.inf if durable else agent.record.timeout_s, envelope)
        job = Job(agent, project, envelope, data, answer, clock.now_ns(), meter, allowed_s, labels, durable=durable)
        admitted = agent.admission.enter(job)
        if admitted is None:
            meter.count("busy")
            busy = refusal.busy(agent, self._node)
            agent.counts.errors += 1
            agent.counts.last_error = busy.message
            self._refuse(answer, busy, project, name, envelope)
            return None
        meter.began()
        self._jobs.add(job)
        self.idle.clear()
        if envelope.id:
            self._by_id[project, envelope.id] = job
        loop = asyncio.get_running_loop()
        job.told_s = loop.time()
        if allowed_s < math.inf:
            job.timer = loop.call_later(allowed_s, self._time_is_over, job, allowed_s)
        if admitted:
            self._start(job)
        return job

    def cancel(self, project: str, call_id: str) -> None:
        """Stop a call because its caller went away or asked for it; unknown ids are ignored."""
        job = self._by_id.get((project, call_id))
        if job is not None:
            self.end(job, Cancelled("The call was cancelled.", code="call.cancelled"))

    def stop(self, project: str, call_id: str, why: KnotworkError, *, late: bool = False) -> bool:
        """Stop a call that is answered only when its executor has ended: with `why`, or with what it gave after all.

        When it is `late` that does not count, and it is answered `LET_GO_S` from now whatever its executor does.
        Returns False when there is no such call.
        """
        job = self._by_id.get((project, call_id))
        if job is not None:
            self._stop(job, why, late=late)
        return job is not None

    def _stop(self, job: Job, why: KnotworkError, *, late: bool) -> None:
        if job.task is None:
            self.end(job, why)
        elif not (job.over or job.why):  # to be stopped twice would cut short how it ends
            job.why, job.late = why, late
            if job.timer is not None:
                job.timer.cancel()
            if late:
                job.timer = asyncio.get_running_loop().call_later(LET_GO_S, self._settle, job, "error", b"", why)
            job.task.cancel()

    def end(self, job: Job, error: KnotworkError) -> None:
        """Answer a call with an error now and stop its work."""
        self._settle(job, "error", b"", error)
        if job.task is None:
            job.agent.admission.withdraw(job)
            self._forget(job)
        else:
            job.task.cancel()

    async def keep_alive(self, every_s: Callable[[], float]) -> None:
        """Tell callers who wait long that their call is still being worked on; for ever.

        Twice in each keepalive (`every_s()`), so that they do not give us up, and often enough to notice when they
        are gone themselves.
        """
        loop = asyncio.get_running_loop()
        while True:
            pause_s = min(every_s() / 2, way.EVERY_S)
            await asyncio.sleep(pause_s / 2)
            now_s = loop.time()
            for job in self._jobs:
                if not (job.over or job.envelope.plain) and now_s - job.told_s >= pause_s:
                    job.told_s = now_s
                    job.answer.frame("alive", b"")

    # -- within ------------------------------------------------------------------------------------------------------

    def _refuse(self, answer: Answering, error: KnotworkError, project: str, name: str, envelope: Envelope) -> None:
        """Answer a call that does not begin, and let it be seen in its trace."""
        with contextlib.suppress(
            KnotworkError
        ):  # no room for it: nothing was begun, and the caller's wait ends by itself
            answer.frame("error", frames.error_body(error))
        if self._emitter.wants_spans:
            now_ns = clock.now_ns()
            span = trace.child_of(envelope.traceparent)
            self._span(name, span, project, error, start_ns=now_ns, end_ns=now_ns)

    def _start(self, job: Job) -> None:
        present = self._agents.get(job.agent.record.name)
        if present is not None and present.admission is job.agent.admission and job.project in present.projects:
            job.agent = present  # it was exchanged by a reload while the call waited
        working = self._work(job)
        try:
            job.task = self._group.create_task(working)
        except RuntimeError:  # the group is closing
            working.close()
            self.end(job, Unavailable(f"{self._node} is stopping.", code="node.stopping"))
            return
        # not in a `finally` of the work: a task that is cancelled before its first step never runs that
        job.task.add_done_callback(lambda _task: self._left(job))

    async def _work(self, job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            outcome = await self._execute(job)
        except asyncio.CancelledError as error:
            if not (task.cancelling() and (job.over or job.why or ends(self._group))):  # the executor's own
                self._settle(job, "error", b"", crashed(job, error))
                return
            self._settle(job, "error", b"", self._stopped(job))
            raise
        except GeneratorExit as error:
            if raised.thrown_away(task):
                raise
            self._settle(job, "error", b"", crashed(job, error))
        except KnotworkError as error:
            self._settle(job, "error", b"", error if said.can_be_told(error) else crashed(job, error))
        except BaseException as error:  # noqa: BLE001  the boundary: whatever an executor raises becomes an answer
            self._settle(job, "error", b"", crashed(job, error))
        else:
            self._settle(job, *outcome, None)

    def _left(self, job: Job) -> None:
        """Give the place of a job that has really ended to the next one."""
        if not job.over:  # it was cancelled before its first step
            self._settle(job, "error", b"", self._stopped(job))
        job.agent.admission.leave()
        self._forget(job)
        following = job.agent.admission.next()
        if following is not None:
            self._start(following)

    async def _execute(self, job: Job) -> tuple[Kind, bytes]:
        """Return the frame that is the answer; raises the error that it is to be instead."""
        agent, envelope = job.agent, job.envelope
        value = codec.decode(job.data)
        if agent.input_schema is not None:
            await agent.input_schema.check(value, "input")
        job.span = trace.child_of(envelope.traceparent)
        trace.current.set(job.span.traceparent)
        attempt = Attempt(
            id=envelope.id,
            agent=agent.record.name,
            input=value,
            capability=envelope.capability,
            number=envelope.number,
            idempotency_key=envelope.key or envelope.id,
            deadline_s=job.left_s(),
            labels=job.labels,
            boundary=envelope.boundary,
            project=job.project,
            caller=envelope.caller,
            traceparent=job.span.traceparent,
            report=job,
        )
        with agent.slot.lease(lambda: self._revoked(job)) as executor:
            job.begun = True
            try:
                outcome = said.outcome(await executor.execute(attempt))
            except raised.HARMLESS:
                raise
            except BaseException as error:
                raise crashed(job, error) from error  # it says no more of a plugin than any other crash
        if isinstance(outcome, FailedOutcome):
            detail = {**outcome.detail, "retriable": outcome.retriable}
            raise Failed(outcome.message, code=outcome.code, detail=detail, retry_after_s=outcome.retry_after_s)
        try:
            if isinstance(outcome, Done) and agent.output_schema is not None:
                await agent.output_schema.check(outcome.output, "output")
            return ("result" if isinstance(outcome, Done) else "continue"), codec.encode(outcome.output)
        except Invalid as error:  # the caller's request was right
            raise Failed(error.message, code="agent.bad_output", hint=error.hint, detail=error.detail) from error

    def _stopped(self, job: Job) -> KnotworkError:
        return job.why or Unavailable(f"{self._node} stopped the call.", code="node.stopping", retry_after_s=5.0)

    def _revoked(self, job: Job) -> None:
        why = f"{job.agent.record.name} was replaced or stopped while it worked."
        self.end(job, Unavailable(why, code="agent.stopped", retry_after_s=1.0))

    def _time_is_over(self, job: Job, allowed_s: float) -> None:
        if not job.over:
            limit_s = round(allowed_s, 1) or allowed_s
            why = f"{job.agent.record.name} did not finish within {limit_s:g} s; it was stopped."
            error = TimedOut(why, code="call.timed_out", hint="Allow more time, or ask for less.")
            if job.durable:
                self._stop(job, error, late=True)
            else:
                self.end(job, error)

    def _settle(self, job: Job, kind: Kind, data: bytes, error: KnotworkError | None) -> None:
        """Answer, once."""
        if job.over:
            return
        job.over = True
        if job.timer is not None:
            job.timer.cancel()
        if job.late:
            kind, error = "error", job.why
        if error is None and job.unsent:  # an answer with a hole in it must not look whole
            kind, error = "error", late.too_slow()
        try:
            self._answers.send(job, kind, data if error is None else job.error_body(error))
        except TooLarge as why:
            agent = job.agent.record.name
            error = late.too_large(agent, why) if error is None else why.with_detail(agent=agent)
            self._answers.send(job, "error", job.error_body(error))
        if error is not None:
            job.agent.counts.errors += 1
            job.agent.counts.last_error = error.message[:500]
        self._tell(job, error)

    def _tell(self, job: Job, error: KnotworkError | None) -> None:
        now_ns = clock.now_ns()
        job.agent.counts.busy_ns += now_ns - job.arrived_ns
        job.meter.ended(error.kind if error else "done", (now_ns - job.arrived_ns) / 1e9)
        if self._emitter.wants_spans:
            span = job.span or trace.child_of(job.envelope.traceparent)  # one that ended before it began has none yet
            record = job.agent.record
            self._span(
                record.name, span, job.project, error,
                start_ns=job.arrived_ns, end_ns=now_ns, executor=record.executor, call=job.envelope.id,
            )  # fmt: skip

    def _span(
        self,
        name: str,
        span: trace.Child,
        project: str,
        error: KnotworkError | None,
        *,
        start_ns: int,
        end_ns: int,
        **about: str,
    ) -> None:
        if not trace.sampled(span.traceparent):
            return
        attributes = {f"knotwork.{key}": value for key, value in {"agent": name, **about}.items()}
        self._emitter.emit(
            Span(
                f"execute {name}", span.trace_id, span.span_id, span.parent_id, start_ns, max(start_ns, end_ns),
                "server", error is None, error.code if error else "", self._node, project, attributes,
            )
        )  # fmt: skip

    def _meter_of(self, agent: str, project: str) -> AgentMeter:
        meter = self._meters.get((agent, project))
        if meter is None:
            meter = self._meters[agent, project] = AgentMeter(self._meter, agent, project)
        return meter

    def _forget(self, job: Job) -> None:
        self._jobs.discard(job)
        if job.envelope.id and self._by_id.get((job.project, job.envelope.id)) is job:
            del self._by_id[job.project, job.envelope.id]
        self._rest()

    def _rest(self) -> None:
        if not (self._jobs or self._answers.waiting):
            self.rested_s = time.monotonic()
            self.idle.set()


def _allowed_s(longest_s: float, envelope: Envelope) -> float:
    """Return how long a call may take: as long as the agent allows and the caller waits."""
    return longest_s if envelope.timeout_s is None else min(longest_s, envelope.timeout_s)
