"""How is an effect carried out? Each by name, so that doing it again, here or on another node, does no harm.

What cannot be done for good becomes the outcome of its step; what cannot be done now is tried until it can, or until
nobody wants it any more.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, patterns, reading, subjects
from knotwork.bus.background import begin_in
from knotwork.bus.pauses import Pauses, comes_again
from knotwork.flow import admission, anew, facts, history, outputs, steps
from knotwork.flow.definitions import parsed
from knotwork.flow.effects import (
    Admit,
    Anew,
    CancelChild,
    Dispatch,
    Effect,
    End,
    HoldChild,
    Readmit,
    Respond,
    SendSignal,
    SetTimer,
    StartChild,
    WatchEvent,
    Withdraw,
)
from knotwork.flow.singletons import Singletons
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, NotFound, TooLarge
from knotwork.work import lookup, records, timers, withdrawing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.publisher import Ack
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.events import Events
    from knotwork.flow.facts import Start
    from knotwork.flow.limits import Limits
    from knotwork.flow.run import Run
    from knotwork.work.room import Work as Room

log = logging.getLogger(__name__)
FOR_GOOD = (Invalid, Denied, NotFound, TooLarge)


class Carrier:
    """Carries out what the runs of this node call for."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        work: Room,
        *,
        definitions: Definitions,
        events: Events,
        limits: Limits,
        node: str,
        sure: Callable[[], bool],
        below: Callable[[Start, str], Awaitable[Start]],
    ) -> None:
        """Work through `work` and append facts; `sure` says whether nobody else may be doing the same.

        `below` makes of the start of a run below one that takes over what another did.
        """
        self._group, self._connection, self._work, self._facts = group, connection, work, work.facts
        self._definitions, self._events, self._limits = definitions, events, limits
        self._node, self._sure, self._below = node, sure, below
        self._singletons = Singletons(connection, work.facts, limits)

    def carry_out(self, run: Run, effect: Effect, *, again: bool) -> None:
        """Begin to carry out an effect; `again`: somebody may have done so before."""
        again = again or not self._sure()  # else the next owner does it
        if again or not isinstance(effect, Dispatch) or not self._dispatched(run, effect):
            begin_in(self._group, self._surely(run, effect, again=again))

    def step_over(self, run: str, effect: Dispatch, tries: int) -> None:
        """Let others begin what an attempt of a step, or of an item of it, was admitted for."""
        if effect.limit is not None:
            self._limits.release(admission.holder(run, effect.token, tries), effect.limit.key)

    def run_over(self, run: Run) -> None:
        """Let another run of the workflow begin."""
        if run.admitted is not None:
            self._limits.release(admission.holder(run.id, admission.RUN), run.admitted.key)

    def resumed(self) -> None:
        """Let in, when their turn comes, the steps of a run that were passed over while it was paused."""
        self._limits.look_again()

    def forget(self, run: str) -> None:
        """Do nothing more for a run that is over, or somebody else's."""
        self._events.forget(run)

    async def _surely(self, run: Run, effect: Effect, *, again: bool) -> None:
        pauses = Pauses()
        while run.open.get(effect.name) is effect:
            with comes_again(f"{effect.name} of run {run.id}"):
                await self._do_or_fail(run, effect, again=again)
                return
            again = True
            await pauses.wait()

    async def _do_or_fail(self, run: Run, effect: Effect, *, again: bool) -> None:
        """Carry out an effect, or record that it cannot be; raises what may pass, of either."""
        try:
            await self._do(run, effect, again=again)
        except FOR_GOOD as error:
            if run.open.get(effect.name) is not effect:  # it is over, or somebody else's
                return
            if isinstance(effect, End):
                log.error("the end of run %s cannot be recorded: %s", run.id, error)  # noqa: TRY400  tried again
                raise
            await self._record_failure(run, effect, error)

    async def _do(self, run: Run, effect: Effect, *, again: bool) -> None:  # noqa: C901  one line for each kind
        match effect:
            case Admit():
                await self._admit(run, effect)
            case Dispatch():
                await self._dispatch(run, effect, again=again)
            case Readmit():
                await self._readmit(run, effect)
            case Withdraw():
                await self._withdraw(run, effect)
            case SetTimer():
                await self._work.recorder.set_timer(run.id, timers.FACT + effect.timer, effect.due_ns, b"")
            case StartChild():
                await self._start_child(run, effect, again=again)
            case CancelChild():
                wish = facts.Wish(by=run.id, why="the run that started it ends")
                child = await anew.latest(self._connection, facts.child_run(run.id, effect.token))
                await anew.deliver(self._connection, self._facts, child, ("cancel",), facts.encode(wish))
            case HoldChild():
                what, why = ("pause", "is paused") if effect.pause else ("resume", "goes on")
                wish = facts.Wish(by=run.id, why=f"the run that started it {why}", order=effect.order)
                child = await anew.latest(self._connection, facts.child_run(run.id, effect.token))
                place = (what, f"{run.id}-{effect.order}")
                await anew.deliver(self._connection, self._facts, child, place, facts.encode(wish))
            case WatchEvent():
                self._events.watch(
                    run.id, effect, lambda body: self._record(run.id, effect.token, outputs.as_json(body))
                )
            case SendSignal():
                await self._send(run, effect, again=again)
            case Respond():
                await self._record(run.id, effect.token, effect.payload)
            case End():
                await self._end(run, effect, again=again)

    # -- steps that agents carry out ---------------------------------------------------------------------------------

    def _dispatched(self, run: Run, effect: Dispatch) -> bool:
        """Store a step that nothing must be awaited for, as most are; False when that is not so.

        A task of its own would cost a tenth of the step. What does not succeed at once is left to one.
        """
        if effect.limit is not None or effect.near is not None or len(effect.input) > records.INLINE_MAX_BYTES:
            return False
        spec: Any = effect.spec
        try:
            task = steps.as_task(run, effect.token, spec, (effect.input, effect.blob), clock.now_ns())
            placed = self._work.placed_at_once(task)
            storing = self._work.submitter.requeue_at_once(placed) if placed is not None else None
        except Exception:  # noqa: BLE001  whatever it is comes again, and is dealt with there
            return False

        def stored(answer: asyncio.Future[Ack]) -> None:
            error = None if answer.cancelled() else answer.exception()
            if error is not None and getattr(error, "code", "") != "bus.exists":
                begin_in(self._group, self._surely(run, effect, again=True))

        if storing is not None:
            storing.add_done_callback(stored)
        return storing is not None

    async def _dispatch(self, run: Run, effect: Dispatch, *, again: bool) -> None:
        if again and await self._is_known(run.id, effect.token):
            return
        spec: Any = effect.spec
        if effect.limit is not None:

            def is_held() -> bool:  # what handles a failure, or undoes, begins in a paused run too
                begins = run.phase == "running" and effect.token not in run.handling
                return run.paused and begins and run.open.get(effect.name) is effect

            me, priority = admission.holder(run.id, effect.token), spec.priority or run.start.priority
            await self._limits.acquire(me, effect.limit, priority, passed_over=is_held)
            if run.open.get(effect.name) is not effect:  # it is over, or somebody else's: that may have been long ago
                return
        value = await self._kept(effect.input, effect.blob)
        task = await self._work.placed(steps.as_task(run, effect.token, spec, value, clock.now_ns()))
        if (near := effect.near) is not None:
            task = self._work.near(task, near.node, near.agent, hard=near.hard)
        await self._work.submitter.requeue(task)

    async def _readmit(self, run: Run, effect: Readmit) -> None:
        """Have the attempt that follows one wait for its time, and then for its place."""
        await asyncio.sleep(max(0.0, effect.due_ns - clock.now_ns()) / 1e9)
        asked = run.open.get(f"do.{effect.token}")
        if run.open.get(effect.name) is not effect or not isinstance(asked, Dispatch):
            return
        spec: Any = asked.spec
        me = admission.holder(run.id, effect.token, effect.count)
        await self._limits.acquire(me, effect.limit, spec.priority or run.start.priority)
        if run.open.get(effect.name) is not effect:
            return
        task = await lookup.present(self._connection, run.id, effect.token)
        if task is not None and (task.iteration, task.number) != (0, 1):
            if task.start_within_s is not None:
                begin_by_ns = clock.now_ns() + int(task.start_within_s * 1e9)
                task = msgspec.structs.replace(task, start_by_ns=begin_by_ns)
            await self._work.submitter.requeue(task)

    async def _is_known(self, run: str, token: str) -> bool:
        """Return whether a step waits or has ended; in this order, because what ends is recorded before it stops to wait."""
        waits = await reading.last(self._connection, subjects.TASKS, patterns.tasks_of(run, token))
        return waits is not None or bool(await lookup.newest(self._connection, run, token))

    async def _withdraw(self, run: Run, effect: Withdraw) -> None:
        await withdrawing.let_go(self._connection, run.id, effect.token, lambda: run.open.get(effect.name) is effect)
        if run.open.get(effect.name) is not effect:
            return
        error = withdrawing.not_needed()
        if await self._work.end(run.id, "cancelled", error, step=effect.token) is None:  # it was never stored
            await self._outcome(run.id, effect.token, records.Outcome("cancelled", facts.NULL, error=error.to_wire()))

    # -- runs --------------------------------------------------------------------------------------------------------

    async def _admit(self, run: Run, effect: Admit) -> None:
        """Have a run wait for its turn, or end it, or end those before it."""
        if effect.when_full == "queue":

            def is_held() -> bool:
                return run.paused and run.open.get(effect.name) is effect

            me = admission.holder(run.id, admission.RUN)
            await self._limits.acquire(me, effect.limit, run.start.priority, passed_over=is_held)
        elif not await self._singletons.admit(run, effect):
            return
        if run.open.get(effect.name) is effect:  # else it is over, or somebody else's
            await self._append(facts.subject(run.id, "admitted"), b"")

    async def _start_child(self, run: Run, effect: StartChild, *, again: bool) -> None:
        child = facts.child_run(run.id, effect.token)
        if run.start.depth >= facts.DEPTH_MAX:
            raise Invalid(f"Runs may start runs {facts.DEPTH_MAX} deep.", code="flow.too_deep")
        if effect.made is not None:
            digest = await self._definitions.put(parsed(effect.made), now_ns=clock.now_ns(), named=False)
        else:
            digest, graph = await self._definitions.find(effect.workflow)
        start = steps.as_run(run, effect, digest, await self._kept(effect.input, effect.blob), clock.now_ns())
        if effect.made is None and not start.boundary and graph.workflow.boundary is None:
            start = msgspec.structs.replace(start, boundary=steps.boundary_below(run, effect))
        if (left := run.start.left.get(effect.token)) is not None:
            start = await self._below(start, left.run)
        if not (again and await history.is_kept(self._connection, child)):
            await self._append(facts.subject(child, "start"), facts.encode(start))
        if effect.detach:
            await self._record(run.id, effect.token, facts.encode({"run": child}))

    async def _send(self, run: Run, effect: SendSignal, *, again: bool) -> None:
        to = await anew.latest(self._connection, effect.run) if facts.is_run(effect.run) else effect.run
        start = await anew.start_of(self._connection, to) if facts.is_run(to) else None
        if start is None or start.circle not in ("", run.start.circle):
            raise NotFound(f"There is no run {to[:80]!r}.", code="flow.no_run", hint="See `knotwork run list`.")
        place = ("signal", effect.signal, f"{run.id}-{effect.token}"[:64])
        over = await anew.is_over(self._connection, to)
        if (again or over) and await anew.was_sent(self._connection, to, place):
            pass  # whoever sent it died before that was on record
        elif over:
            error = Conflict(f"{to} has ended.", code="flow.over", hint="See `knotwork run show`.", detail={"id": to})
            await self._record_failure(run, effect, error)
            return
        else:
            signal = facts.Signal(msgspec.Raw(effect.payload), by=run.id)
            await anew.catch_up(self._connection, self._facts, to)
            await anew.deliver(self._connection, self._facts, to, place, facts.encode(signal))
        await self._record(run.id, effect.token, effect.payload)

    async def _end(self, run: Run, effect: End, *, again: bool) -> None:
        """Record the end of a run; whoever started it and waits is told before, because afterwards nobody looks at it."""
        if effect.anew is not None:
            following = await self._start_anew(run, effect.anew, again=again)
            finish = facts.Finish(effect.state, ended_ns=clock.now_ns(), next=following)
            await self._append(facts.subject(run.id, "ended"), facts.encode(finish))
            return
        value, blob = await self._kept(effect.output, effect.blob)
        now_ns = clock.now_ns()
        if (parent := run.start.parent) is not None:
            state = effect.state
            outcome = records.Outcome(
                state, facts.NULL, msgspec.Raw(value), blob, effect.error, self._node, started_ns=run.start.started_ns,
                ended_ns=now_ns,
            )  # fmt: skip
            await self._outcome(parent.run, parent.step, outcome)
        finish = facts.Finish(effect.state, msgspec.Raw(value), blob, effect.error, now_ns)
        await self._append(facts.subject(run.id, "ended"), facts.encode(finish))

    async def _start_anew(self, run: Run, wanted: Anew, *, again: bool) -> str:
        """Start the run that goes on for one, and give it what that has not seen; returns it."""
        digest = run.start.digest
        if wanted.latest and (named := await self._definitions.named(run.start.workflow)) is not None:
            digest = named.digests[-1]
        value, blob = await self._kept(wanted.input, wanted.blob)
        wanted = replace(wanted, input=value, blob=blob)
        following, start = anew.started(run.id, run.start, wanted, digest)
        if not (again and await history.is_kept(self._connection, following)):
            # before it starts, because then others send to it what comes later
            await anew.pass_on(self._connection, self._facts, run.id, following, wanted, kinds=anew.ORDERED)
            await self._append(facts.subject(following, "start"), facts.encode(start))
            await anew.pass_on(self._connection, self._facts, run.id, following, wanted)
        return following

    # -- facts -------------------------------------------------------------------------------------------------------

    async def _kept(self, value: bytes, blob: str) -> outputs.Value:
        """Return a value as a fact holds it: kept elsewhere when it is large, which may have been done before."""
        return (value, blob) if blob else await self._work.values.keep(value)

    async def _record_failure(self, run: Run, effect: Effect, error: KnotworkError) -> None:
        token = getattr(effect, "token", "")
        log.warning("%s of run %s cannot be done: %s", effect.name, run.id, error)
        if token:
            await self._outcome(run.id, token, records.Outcome("failed", facts.NULL, error=error.to_wire()))

    async def _record(self, run: str, token: str, output: bytes) -> None:
        value, blob = await self._work.values.keep_surely(output)
        await self._outcome(run, token, records.Outcome("completed", facts.NULL, msgspec.Raw(value), blob))

    async def _outcome(self, run: str, token: str, outcome: records.Outcome) -> None:
        now_ns = clock.now_ns()
        told = msgspec.structs.replace(outcome, node=self._node, ended_ns=outcome.ended_ns or now_ns)
        await self._append(records.outcome_subject(run, token, 0, 1), records.encode(told))

    async def _append(self, subject: str, payload: bytes) -> None:
        try:
            await self._facts.append(subject, payload)
        except Conflict as error:
            if error.code != "bus.exists":
                raise
