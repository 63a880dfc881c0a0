"""How does the end of an attempt become a fact, and what follows from it? Record, carry out, and only then forget.

The order is what makes a crash harmless: the outcome is stored first; then what it calls for (the next attempt, its
timer, a dead letter), each under a name that can be stored once; then the task is acknowledged. Whoever takes the task
again after a crash finds the outcome and does the rest again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus import clock, patterns, publisher, reading, subjects
from knotwork.bus.background import begin_in
from knotwork.bus.pauses import Pauses, insist
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound, TooLarge, Unavailable
from knotwork.work import records, settle
from knotwork.work.taking import SOON, SOON_S

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.work.records import Outcome, Task

log = logging.getLogger(__name__)
AGAIN_MIN_S, AGAIN_MAX_S = 0.05, 2.0
REFUSALS_MAX = 10
"""So often something is stored again although the server finds fault with it: within some ten seconds."""
START = "start"
"""What the name of a timer begins with that ends the wait in a queue."""
Done = Callable[[], None]


class Recorder:
    """Records outcomes of one project."""

    def __init__(
        self, group: asyncio.TaskGroup, connection: Connection, facts: GroupCommit, tasks: GroupCommit
    ) -> None:
        """Write facts and tasks through these; what needs time runs in tasks of `group`."""
        self._group, self._connection, self._facts, self._tasks = group, connection, facts, tasks
        self._hints: set[str] = set()
        self.refused = 0
        """Outcomes that came too late: another was recorded before."""
        self.insisting = 0
        """Outcomes that could not be stored yet."""
        self.on_bytes: Callable[[int], None] = lambda _size: None
        """Told of the size of each outcome that is being stored."""
        self.has_room: Callable[[int], bool] = lambda _size: True
        """Whether an outcome of so many bytes may be stored now, or has to wait for what frees room."""

    def record(self, task: Task, outcome: Outcome, done: Done) -> None:
        """Store an outcome, or find the one that stands, and carry out what follows; then `done()`.

        It insists through every failure that may pass; the caller keeps the lease meanwhile. An outcome that can never
        be stored, because it is too large, becomes a failure that says so.
        """
        payload = records.encode(outcome)
        if not self.has_room(len(payload)):
            begin_in(self._group, self._insist(task, outcome, done))
            return
        self.on_bytes(len(payload))
        try:
            answer = self._facts.put(task.outcome_subject, payload)
        except KnotworkError:
            begin_in(self._group, self._insist(task, outcome, done))
            return

        def stored(future: asyncio.Future[publisher.Ack]) -> None:
            if future.cancelled():
                return
            if future.exception() is not None:
                begin_in(self._group, self._insist(task, outcome, done))
            elif outcome.state in ("completed", "failed", "cancelled", "timed-out"):
                done()
            else:
                begin_in(self._group, self._follow(task, outcome, done))

        answer.add_done_callback(stored)

    async def append(self, task: Task, outcome: Outcome) -> Outcome:
        """Store an outcome and return the one that stands: this one, or what was recorded before.

        It insists through what may pass; raises `TooLarge` and `Invalid` for what can never be stored.
        """
        return await self._stand(task.outcome_subject, outcome)

    async def append_end(self, task: Task, outcome: Outcome, *, patient: bool = True) -> Outcome:
        """Do the same for an end that must come, without what makes it too large if need be.

        Unless `patient` it raises `Unavailable` (`bus.store_full`, `bus.stream_full`) at once while there is no room.
        """
        standing, _ = await self._surely(task, outcome, patient=patient)
        return standing

    async def carry_out(self, task: Task, outcome: Outcome) -> None:
        """Do what a recorded outcome calls for; safe to repeat. Raises what storing raises, while that may pass.

        An attempt that can never be stored, because it is too large, is recorded as failed with that.
        """
        try:
            await self._carry_out(task, outcome)
        except (TooLarge, Invalid) as error:
            following = settle.following(task, outcome)
            log.warning("what follows the %s of %s cannot be stored: %s", outcome.state, task.run, error)
            if following is not None:
                now_ns = clock.now_ns()
                failed = records.Outcome(
                    "failed", records.raw(following), error=error.to_wire(), node=outcome.node, agent=outcome.agent,
                    started_ns=now_ns, ended_ns=now_ns,
                )  # fmt: skip
                await self._surely(following, failed)

    async def _carry_out(self, task: Task, outcome: Outcome) -> None:
        following = settle.following(task, outcome)
        if following is not None and outcome.due_ns:
            payload = records.encode(following)
            with contextlib.suppress(Conflict):  # it was recorded before
                await self._facts.append(records.next_subject(following), payload)
            if not following.gated:
                await self.set_timer(following.run, _attempt_timer(following), outcome.due_ns, payload)
        elif following is not None:
            await self.enqueue(following)
        elif outcome.state == "dead":
            place = subjects.dead(task.queue, task.run, task.step)
            # whoever does this again brings back no letter that was dealt with
            head = publisher.head(publisher.once(task.outcome_subject))
            await publisher.publish(self._connection, place, records.encode(outcome), head=head)

    async def enqueue(self, task: Task, *, only: bool = False) -> bool:
        """Store one attempt of a task in its queue; False when it was there already, with `only` in whatever queue.

        A lone task is announced while it is being stored, which saves an idle worker half of its wait.
        """
        if task.start_by_ns:  # before it is there, so that it cannot wait longer whatever crashes
            await self.set_timer(task.run, start_timer(task), task.start_by_ns, records.encode(task))
        try:
            await self.put(task, only=only)
        except Conflict as error:
            if error.code != "bus.exists" and not only:
                raise
            return False
        return True

    def put(self, task: Task, *, only: bool = False) -> asyncio.Future[publisher.Ack]:
        """Do the same for an attempt that may wait in its queue for ever; for those who cannot wait themselves."""
        hint = subjects.hint(task.boundary, task.queue, task.lane)
        alone_there = publisher.expect_none(patterns.tasks_of(task.run)) if only else ()
        storing = self._tasks.put(task.subject, records.encode(task), *alone_there)
        alone = self._tasks.alone
        start_s = time.monotonic()
        if alone:
            with contextlib.suppress(KnotworkError):  # what became of the task says its own answer
                self._connection.send(hint, SOON)

        def stored(answer: asyncio.Future[publisher.Ack]) -> None:
            if answer.cancelled() or answer.exception() is not None:
                return
            if not alone or time.monotonic() - start_s > SOON_S / 2:
                self._announce(hint)

        storing.add_done_callback(stored)
        return storing

    def _announce(self, hint: str) -> None:
        """Tell workers of a queue, once in this turn of the loop."""
        if not self._hints:
            asyncio.get_running_loop().call_soon(self._send_hints)
        self._hints.add(hint)

    def _send_hints(self) -> None:
        hints, self._hints = self._hints, set()
        with contextlib.suppress(KnotworkError):  # workers look around by themselves every second
            for hint in hints:
                self._connection.send(hint)

    async def set_timer(self, run: str, name: str, due_ns: int, payload: bytes) -> None:
        """Have `payload` arrive at `fired` when it is due; setting it again replaces it."""
        shard = records.shard(run)
        target = subjects.fired(shard, run, name)
        head = publisher.head(("Nats-Schedule", f"@at {clock.written(due_ns)}"), ("Nats-Schedule-Target", target))
        await publisher.publish(self._connection, subjects.timer(shard, run, name), payload, head=head)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _insist(self, task: Task, outcome: Outcome, done: Done) -> None:
        self.insisting += 1
        try:
            pauses = Pauses(AGAIN_MIN_S, AGAIN_MAX_S)
            stored = await insist(lambda: self._surely(task, outcome), f"the outcome of {task.run}", pauses)
        finally:
            self.insisting -= 1
        assert stored is not None
        standing, ours = stored
        if not ours:
            self.refused += 1
            log.warning(
                "attempt %d of %s ended as %s before; this end of it (%s) is refused",
                task.number, task.run, standing.state, outcome.state,
            )  # fmt: skip
        await self._follow(task, standing, done)

    async def _surely(self, task: Task, outcome: Outcome, *, patient: bool = True) -> tuple[Outcome, bool]:
        """Store an outcome, or else what can be stored of it; return the one that stands, and whether it is of ours."""
        subject = task.outcome_subject
        try:
            standing = await self._stand(subject, outcome, patient=patient)
        except (TooLarge, Invalid) as error:
            refusal = error
        else:
            return standing, standing is outcome
        log.warning("the outcome of %s (%s) cannot be stored: %s", task.run, outcome.state, refusal)
        *others, least = settle.unstorable(task, outcome, refusal.to_wire())
        for other in others:
            with contextlib.suppress(TooLarge, Invalid):
                standing = await self._stand(subject, other, patient=patient)
                return standing, standing is other
        standing = await self._stand(subject, least, patient=patient, for_ever=True)
        return standing, standing is least

    async def _stand(self, subject: str, outcome: Outcome, *, patient: bool = True, for_ever: bool = False) -> Outcome:
        """Store an outcome, however long it takes, and return the one that stands.

        Raises `TooLarge`, and `Invalid` when the server has refused it often, unless it is to be tried `for_ever`;
        unless `patient` also that there is no room.
        """
        payload = records.encode(outcome)
        tried = {payload}
        pauses, refusals = Pauses(AGAIN_MIN_S, AGAIN_MAX_S), 0
        while True:
            try:
                if not self.has_room(len(payload)):
                    payload = records.encode(records.spared_end(outcome))
                    tried.add(payload)
                if not self.has_room(len(payload)):
                    raise Unavailable("The last of the room is for what frees some.", code="bus.store_full")
                await self._facts.append(subject, payload)
            except Conflict:
                found = await self._found(subject)
                if found is not None:  # it may be this very one, stored by a try whose answer was lost
                    return outcome if records.encode(found) in tried else found
                await asyncio.sleep(AGAIN_MIN_S)
            except KnotworkError as error:
                refusals += REFUSALS_MAX if isinstance(error, TooLarge) else isinstance(error, Invalid)
                if (refusals >= REFUSALS_MAX and not for_ever) or (not patient and error.code in publisher.FULL):
                    raise
                log.debug("an outcome is stored again: %s", error)
                await pauses.wait()
            else:
                self.on_bytes(len(payload))
                return outcome

    async def _found(self, subject: str) -> Outcome | None:
        """Return the outcome that stands; what is none is removed, so that it cannot block the place."""
        try:
            stored = await reading.last(self._connection, subjects.FACTS, subject)
            if stored is None:
                return None
            try:
                return records.decode_outcome(stored.data)
            except Invalid as error:
                log.error("garbage on %s is removed: %s", subject, error)  # noqa: TRY400  no bug of ours
                await reading.delete(self._connection, subjects.FACTS, stored.seq)
        except NotFound:
            pass
        except KnotworkError as error:
            log.debug("an outcome could not be read: %s", error)
            await asyncio.sleep(AGAIN_MIN_S)
        return None

    async def _follow(self, task: Task, outcome: Outcome, done: Done) -> None:
        pauses = Pauses(AGAIN_MIN_S, AGAIN_MAX_S)
        await insist(lambda: self.carry_out(task, outcome), f"what follows {task.run}", pauses)
        done()


def _attempt_timer(task: Task) -> str:
    """Return the name of the timer of an attempt that waits for its time."""
    return f"attempt-{_place(task)}"


def start_timer(task: Task) -> str:
    """Return the name of the timer of an attempt that may wait so long in its queue."""
    return f"{START}-{_place(task)}"


def _place(task: Task) -> str:
    step = records.shown_step(task.step)
    return f"{step and f'{step}-'}{task.iteration}-{task.number}"
