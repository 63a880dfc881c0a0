"""How are dead letters listed, brought back and dropped by those who ask? One page, or one after the other."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from knotwork.bus import clock, digits
from knotwork.desk.callers import caller_name
from knotwork.desk.moments import moment
from knotwork.desk.tasks import rows as task_rows
from knotwork.desk.tasks.filter import letter_fits, may_know
from knotwork.ops import task_replies
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError
from knotwork.work import dead, records, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from knotwork.ops.op import Caller
    from knotwork.ops.task_ports import DeadFilter
    from knotwork.work.dead import DeadLetters, Letter
    from knotwork.work.records import Task


class Revival(Protocol):
    """Retries the run that a step died for: desks of tasks know no runs."""

    async def meant(self, task: Task) -> str:
        """Return the run that has to be retried; raises `Conflict` (`work.step_of_run`) when that is none."""
        ...

    async def retry(self, task: Task, caller: Caller) -> str:
        """Retry it and return the run that takes its place, the same however often it is asked; raises as `meant`."""
        ...


async def page(letters: DeadLetters, wanted: DeadFilter) -> task_replies.DeadList:
    """Return those that fit, the oldest first, behind the cursor."""
    behind = digits.read(wanted.cursor or "0")
    if behind is None:
        raise Invalid("This is no cursor of this list.", code="work.bad_cursor", hint="Give the `next` of a page.")
    rows: list[task_replies.DeadRow] = []
    following, place = "", 0
    async with aclosing(letters.after(behind)) as found:
        async for letter in found:
            if letter_fits(letter, wanted):
                if len(rows) == wanted.limit:  # there is one more
                    following = str(place)
                    break
                rows.append(_row(letter))
                place = letter.seq
    return task_replies.DeadList(dead=rows, next=following, total=await letters.count())


async def redrive(
    letters: DeadLetters, runs: Revival, wanted: DeadFilter, caller: Caller, *, per_s: float, dry_run: bool
) -> task_replies.RedrivenTasks:
    """Bring back those that fit, `per_s` each second at most; for steps of runs, retry those by `runs`."""
    rows: list[task_replies.Redriven] = []
    next_s = time.monotonic()
    async with aclosing(_meant(letters, wanted)) as found:
        async for letter in found:
            if isinstance(letter, task_replies.Redriven):
                rows.append(letter)
                continue
            if dry_run:
                rows.append(await _would(runs, letter))
                continue
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            next_s = max(next_s, time.monotonic()) + (1 / per_s if per_s else 0.0)
            rows.append(await _redrive(letters, runs, letter, caller))
    return task_replies.RedrivenTasks(tasks=rows, changed=sum(row.done for row in rows), dry_run=dry_run)


async def _would(runs: Revival, letter: Letter) -> task_replies.Redriven:
    """Return what is told of a letter when nothing is done."""
    if letter.task.step == records.STEP:
        return task_replies.Redriven(id=letter.task.run, attempt=letter.task.number + 1, done=False)
    try:
        run = await runs.meant(letter.task)
    except KnotworkError as error:
        return task_replies.Redriven(id=letter.task.run, done=False, why=str(error))
    return task_replies.Redriven(id=letter.task.run, attempt=1, run=run, done=False)


async def _redrive(letters: DeadLetters, runs: Revival, letter: Letter, caller: Caller) -> task_replies.Redriven:
    try:
        if letter.task.step == records.STEP:
            task = await letters.redrive(letter, caller_name(caller), clock.now_ns())
            return task_replies.Redriven(id=task.run, attempt=task.number)
        run = await runs.retry(letter.task, caller)
        if not await letters.drop(letter):
            raise Conflict(f"Its run is back already, as {run}.", code="work.redriven", hint="See `knotwork run show`.")
    except KnotworkError as error:
        return task_replies.Redriven(id=letter.task.run, done=False, why=str(error))
    return task_replies.Redriven(id=letter.task.run, run=run, attempt=1)


async def drop(letters: DeadLetters, wanted: DeadFilter) -> task_replies.Dropped:
    """Remove those that fit."""
    ids: list[str] = []
    missing: list[task_replies.NoLetter] = []
    async with aclosing(_meant(letters, wanted)) as found:
        async for letter in found:
            if isinstance(letter, task_replies.Redriven):
                missing.append(task_replies.NoLetter(id=letter.id, why=letter.why))
            elif await letters.drop(letter):
                ids.append(letter.task.run)
    return task_replies.Dropped(ids=ids, changed=len(ids), missing=missing)


async def _meant(letters: DeadLetters, wanted: DeadFilter) -> AsyncGenerator[Letter | task_replies.Redriven, None]:
    """Yield what is meant, each task or step once: the ids that are given, or those that fit; what is not there says so."""
    for run in sorted(wanted.ids):
        found = [one async for one in letters.after(0, records.run_id(run)) if may_know(one.task, wanted.circles)]
        if not found:
            yield task_replies.Redriven(id=run, done=False, why=dead.unknown(run).message)
        for letter in found:
            if letter_fits(letter, wanted):
                yield letter
    if wanted.ids:
        return
    seen: set[tuple[str, str]] = set()
    async for letter in letters.after(0):
        if (letter.task.run, letter.task.step) not in seen and letter_fits(letter, wanted):
            seen.add((letter.task.run, letter.task.step))
            yield letter
            if len(seen) == wanted.limit:
                return


def _row(letter: Letter) -> task_replies.DeadRow:
    task, error = letter.task, letter.outcome.error or {}
    return task_replies.DeadRow(
        id=task.run,
        step=records.shown_step(task.step),
        died_at=moment(letter.died_ns),
        code=str(error.get("code", "")),
        message=str(error.get("message", "")),
        capability=task.capability,
        agent=f"{task.node}/{task.agent}" if task.node else task.agent,
        boundary=records.shown_boundary(task.boundary),
        attempts=len(task.past) + (0 if settle.ended_by_crashes(task) else 1),
        worker=task_rows.place(letter.outcome.node, letter.outcome.agent),
        labels=task.labels,
    )
