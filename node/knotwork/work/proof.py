"""Is an attempt called for by the one before it? Only then its task and its outcome count; all else is garbage.

Whoever may write to the streams could store an outcome of attempt 2 for a task that was completed by attempt 1. So the
first final outcome in order of attempts is the truth, and every attempt but the first is proved back to what is known:
the outcome before it must be `waiting` or `continued`, or `dead` with a `redriven` on record. Outcomes that FACTS has
forgotten are asked of the view; what nobody remembers is believed when the task carries it in its `past`. A proof holds
for good, so a long run is proved step by step, and a first attempt costs nothing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import msgspec

from knotwork.bus import reading, subjects
from knotwork.sdk.errors import Invalid, KnotworkError
from knotwork.work import fold, records, settle
from knotwork.work.fold import FIRST

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.work.fold import Place
    from knotwork.work.records import Outcome, Task

log = logging.getLogger(__name__)
WALK_MAX = 200
"""So many attempts are looked through that nobody has proved yet; what goes on for longer is believed."""
PROVED_MAX, TOLD_MAX = 20_000, 1000


class Leads(Protocol):
    """What is known of attempts that FACTS has forgotten."""

    async def __call__(self, run: str, iteration: int, number: int, /) -> bool | None:
        """Return whether what came before an attempt calls for it, None when that is not known."""


class Proofs:
    """What was proved over one connection."""

    def __init__(self) -> None:
        """Begin with nothing proved."""
        self.leads: Leads | None = None
        """Who knows what FACTS has forgotten; the view, when there is one."""
        self.garbage = 0
        """Attempts and outcomes that were passed over, each counted once."""
        self._proved: OrderedDict[tuple[str, str], Place] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()

    def is_proved(self, task: Task, place: Place) -> bool:
        """Return whether an attempt of this run is known to be called for."""
        return place == FIRST or self._proved.get((task.run, task.step)) == place

    def remember(self, task: Task) -> None:
        """Take note that an attempt is called for."""
        self._proved[task.run, task.step] = fold.place_of(task)
        self._proved.move_to_end((task.run, task.step))
        if len(self._proved) > PROVED_MAX:
            self._proved.popitem(last=False)

    def pass_over(self, subject: str) -> None:
        """Count garbage, and tell of it once."""
        if subject in self._told:
            return
        self._told[subject] = None
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)
        self.garbage += 1
        log.warning("what stands on %.200s is passed over: no attempt before it calls for it", subject)

    async def remembered(self, task: Task, place: Place) -> bool:
        """Return whether an attempt is called for by one that FACTS has not."""
        known = None
        if self.leads is not None and task.step == records.STEP:
            try:
                known = await self.leads(task.run, *place)
            except KnotworkError as error:
                log.debug("whether %s was called for cannot be told now: %s", task.run, error)
        return _carries(task, place) if known is None else known


_OF: WeakKeyDictionary[Connection, Proofs] = WeakKeyDictionary()


def of(connection: Connection) -> Proofs:
    """Return what was proved over a connection."""
    return _OF.setdefault(connection, Proofs())


async def proved(connection: Connection, task: Task, *, exactly: bool = False) -> bool:
    """Return whether the attempt of `task` is called for by those before it; `exactly`: with this very content."""
    known = of(connection)
    place = fold.place_of(task)
    if known.is_proved(task, place) and not (exactly and place != FIRST):
        return True
    for _ in range(WALK_MAX):
        found = await before(connection, task, place)
        if found is None:
            if not await known.remembered(task, place):
                return False
            break
        if not leads(*found, place) or not await _calls_for(connection, found, task if exactly else None, place):
            return False
        place, exactly = found[0], False
        if known.is_proved(task, place):
            break
    known.remember(task)
    return True


async def before(connection: Connection, task: Task, place: Place) -> tuple[Place, Outcome] | None:
    """Return the outcome of the attempt before one as FACTS has it, None when it has none."""
    iteration, number = place
    if number > 1:
        subject = records.outcome_subject(task.run, task.step, iteration, number - 1)
        stored = await reading.last(connection, subjects.FACTS, subject)
        return None if stored is None else fold.outcome_at(stored.subject, stored.data)
    pattern = f"{records.facts_of(task.run)}.outcome.{task.step}.{iteration - 1}.*"
    stored = await reading.last(connection, subjects.FACTS, pattern)
    found = None if stored is None else fold.outcome_at(stored.subject, stored.data)
    if stored is None or (found is not None and found[1].state == "continued"):
        return found
    ends = await reading.each_last(connection, subjects.FACTS, [pattern])
    read = [one for one in (fold.outcome_at(stored.subject, stored.data) for stored in ends) if one is not None]
    return max(read, key=lambda one: (one[1].state == "continued", one[0]), default=None)


def leads(at: Place, outcome: Outcome, to: Place) -> bool:
    """Return whether an outcome may be followed by an attempt at `to` (pure); whether a dead one was is on record."""
    if outcome.state == "continued":
        return to == (at[0] + 1, 1)
    return outcome.state in ("waiting", "dead") and to == (at[0], at[1] + 1)


async def latest(
    connection: Connection, stream: str, pattern: str, read: Callable[[Stored], Task | None]
) -> Stored | None:
    """Return the latest of what stands under a pattern and is called for; `read` tells which attempt a message is about."""
    stored = await reading.last(connection, stream, pattern)
    if stored is None:
        return None
    task = read(stored)
    if task is not None and await proved(connection, task):
        return stored
    of(connection).pass_over(stored.subject)
    best: tuple[Place, Stored] | None = None
    async for one in reading.every(connection, stream, pattern):
        task = read(one)
        if task is None or not await proved(connection, task):
            of(connection).pass_over(one.subject)
        elif best is None or fold.place_of(task) >= best[0]:
            best = fold.place_of(task), one
    return best[1] if best is not None else None


async def _calls_for(connection: Connection, found: tuple[Place, Outcome], task: Task | None, place: Place) -> bool:
    """Return whether an outcome that may lead to an attempt does; with a task, to exactly this one."""
    outcome = found[1]
    ended = records.decode_task(bytes(outcome.task))
    if outcome.state != "dead":
        following = settle.following(ended, outcome)
    else:
        following = await _redriven(connection, ended, found[0], place, task or ended)
    return following is not None and (task is None or _work(task) == _work(following))


async def _redriven(connection: Connection, ended: Task, at: Place, place: Place, packed: Task) -> Task | None:
    """Return the attempt that a redrive gave to a task that died; None when none is on record, `packed` when it was."""
    subject = records.redriven_subject(msgspec.structs.replace(ended, iteration=place[0], number=place[1]))
    stored = await reading.last(connection, subjects.FACTS, subject)
    if stored is not None:
        return fold.task_at(stored)
    died = records.outcome_subject(ended.run, ended.step, *at)
    if await reading.last(connection, subjects.FACTS, died) is None:  # both went meanwhile
        return packed
    return None


def _work(task: Task) -> bytes:
    """Return what an attempt is to do; it may have been moved to another queue, or had to wait for its place, meanwhile."""
    return records.encode(msgspec.structs.replace(task, queue="", why="", start_by_ns=0))


def _carries(task: Task, place: Place) -> bool:
    """Return whether a task says itself that an attempt before called for it, or left that out for want of room."""
    if fold.place_of(task) != place:  # further back in a chain that is proved up to there
        return True
    if not task.past:
        return task.why == settle.LEFT_OUT
    last = task.past[-1]
    if place[1] == 1:
        return last.iteration == place[0] - 1
    return (last.iteration, last.number) == (place[0], place[1] - 1)


def of_outcome(stored: Stored) -> Task | None:
    """Return the attempt that a stored outcome is about; None for garbage."""
    found = fold.outcome_at(stored.subject, stored.data)
    if found is None:
        return None
    try:
        return records.decode_task(bytes(found[1].task))
    except Invalid:
        return None
