"""What becomes of dead letters? They are looked at page by page, come back as the next attempt of their run, or go.

A redrive is a fact of its own, `redriven`, which holds the attempt it calls for. It is recorded first; then the attempt
is queued, under a name that can be stored once; then the dead letter is removed, if it is still the same one. So after
a crash it can simply be redriven again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import patterns, reading, subjects
from knotwork.sdk.errors import Conflict, Invalid, NotFound
from knotwork.work import history, records, settle

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.work.recording import Recorder
    from knotwork.work.records import Outcome, Task

PAGE = 200


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: how the task ended, the task itself, its place in DEAD and when it died (nanoseconds)."""

    outcome: Outcome
    task: Task
    seq: int
    died_ns: int


class DeadLetters:
    """The dead letters of one project."""

    def __init__(self, connection: Connection, recorder: Recorder, facts: GroupCommit) -> None:
        """Read over `connection`; bring back through `recorder` and `facts`."""
        self._connection, self._recorder, self._facts = connection, recorder, facts

    async def count(self) -> int:
        """Return how many there are."""
        return await reading.count_from(self._connection, subjects.DEAD, patterns.DEAD, 1)

    async def after(self, seq: int, run: str = "") -> AsyncGenerator[Letter, None]:
        """Yield those behind a place in DEAD, all or those of a run, the oldest first; what is none is passed over.

        What dies after this began is not among them: else whoever brings back what dies at once would never end.
        """
        newest = await reading.last_seq(self._connection, subjects.DEAD)
        pattern = patterns.dead_of(run) if run else patterns.DEAD
        while seq < newest:
            page = await reading.batch(self._connection, subjects.DEAD, pattern, seq + 1, PAGE)
            if not page:
                return
            for stored in page:
                if stored.seq > newest:
                    return
                letter = _letter(stored)
                if letter is not None:
                    yield letter
            seq = page[-1].seq

    async def of(self, run: str, step: str = "") -> Letter:
        """Return the dead letter of a task, or of a step of a run, that died last when none is named.

        Raises `NotFound` (`work.not_dead`).
        """
        stored = await reading.last(self._connection, subjects.DEAD, patterns.dead_of(run, step))
        letter = None if stored is None else _letter(stored)
        if letter is None:
            raise unknown(run)
        return letter

    async def is_there(self, run: str) -> bool:
        """Return whether there is a dead letter of a run."""
        return await reading.last(self._connection, subjects.DEAD, patterns.dead_of(run)) is not None

    async def redrive(self, letter: Letter, by: str, now_ns: int) -> Task:
        """Give a dead task its next attempt and return that.

        Raises `Conflict` for one that had a thousand (`work.attempts_used_up`), or that somebody else was quicker to bring
        back (`work.redriven`), and what storing raises. A step of a run is none of those: its run would never hear of it.
        """
        assert letter.task.step == records.STEP, "a step comes back with its run"
        task = settle.revived(letter.task, letter.outcome, now_ns, by)
        if task is None:
            raise Conflict(
                f"{letter.task.run} had {records.ATTEMPTS_MAX} attempts; that is all it can have.",
                code="work.attempts_used_up", hint="Submit it anew with `knotwork task retry`.",
            )  # fmt: skip
        subject, why = records.redriven_subject(task), history.redriven(by)
        over = False
        try:
            await self._facts.append(subject, records.encode(msgspec.structs.replace(task, why=why)))
        except Conflict:  # it was redriven before, perhaps by somebody who died then
            stored = await reading.last(self._connection, subjects.FACTS, subject)
            with contextlib.suppress(Invalid):
                before = task if stored is None else records.decode_task(stored.data)
                task, why = msgspec.structs.replace(before, why=task.why), before.why
            over = await reading.last(self._connection, subjects.FACTS, task.outcome_subject) is not None
        ours = not over and await self._queued(task)
        await self.drop(letter)
        if not ours:  # of many who redrive it at once, one queues it
            raise Conflict(f"{task.run} is back already: {why}.", code="work.redriven", hint="See `knotwork task get`.")
        return task

    async def _queued(self, task: Task) -> bool:
        """Queue the next attempt of a dead task; False when it was there already."""
        if task.deadline_ns:
            name = f"deadline-{task.number}"  # what an earlier end leaves behind is removed by its name
            await self._recorder.set_timer(task.run, name, task.deadline_ns, records.encode(task))
        return await self._recorder.enqueue(task)

    async def drop(self, letter: Letter) -> bool:
        """Remove a dead letter; False when it is gone, or its task has died again since."""
        try:
            await reading.delete(self._connection, subjects.DEAD, letter.seq)
        except NotFound:
            return False
        return True


def unknown(run: str) -> NotFound:
    """Return the error of a dead letter that is not there, or not to be seen: the two look the same."""
    return NotFound(
        f"There is no dead letter of {run}.", code="work.not_dead",
        hint="See `knotwork dead list`; one that was dropped can be submitted anew with `knotwork task retry`.",
    )  # fmt: skip


def _letter(stored: reading.Stored) -> Letter | None:
    try:
        outcome = records.decode_outcome(stored.data)
        task = records.decode_task(bytes(outcome.task))
    except Invalid:
        return None
    place = stored.subject == subjects.dead(task.queue, task.run, task.step) and outcome.state == "dead"
    return Letter(outcome, task, stored.seq, outcome.ended_ns or stored.time_ns) if place else None
