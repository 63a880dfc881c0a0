"""What is known of a run this moment? A few reads by subject, never a scan; the past is kept elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from knotwork.bus import patterns, reading, subjects
from knotwork.work import fold, proof, records, settle
from knotwork.work.records import FINAL, Outcome, Released, Started, State, Task

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored

T = TypeVar("T", Started, Released)


@dataclass(frozen=True, slots=True)
class Sight:
    """One run as it is. `task` is the present attempt, or the last one; `outcome` the last there is.

    `started` says who works on the present attempt, `released` who handed it back last. `seq` is its place in TASKS, 0
    when it is not there; `stored_ns` is when it came there, or when the outcome was recorded.
    """

    task: Task
    state: State
    outcome: Outcome | None = None
    started: Started | None = None
    released: Released | None = None
    seq: int = 0
    stored_ns: int = 0


async def newest(connection: Connection, run: str, step: str = "") -> list[Stored]:
    """Return the facts that say which attempt is the present one; of a long run not all of its thousands are read.

    What no attempt before calls for is passed over (see `proof`).
    """
    place, meant = records.facts_of(run), _meant(run, step)
    rest = f"{meant}.>" if meant else ">"
    found = []
    ended = await proof.latest(connection, subjects.FACTS, f"{place}.outcome.{rest}", proof.of_outcome)
    while ended is not None:
        found.append(ended)
        ended = await _after(connection, ended)
    for kind in ("next", "redriven"):
        stored = await proof.latest(connection, subjects.FACTS, f"{place}.{kind}.{rest}", fold.task_at)
        if stored is not None:
            found.append(stored)
    return found


async def _after(connection: Connection, ended: Stored) -> Stored | None:
    """Return the outcome of the attempt that an outcome calls for; it may have been stored too early, by somebody else."""
    at = fold.outcome_at(ended.subject, ended.data)
    following = None if at is None else settle.following(records.decode_task(bytes(at[1].task)), at[1])
    if following is None:
        return None
    return await reading.last(connection, subjects.FACTS, following.outcome_subject)


async def _waits(connection: Connection, run: str, step: str = "") -> Stored | None:
    """Return the attempt that waits in TASKS."""
    pattern = patterns.tasks_of(run, _meant(run, step))
    return await proof.latest(connection, subjects.TASKS, pattern, fold.task_at)


def _meant(run: str, step: str) -> str:
    """Return the step that is meant, "" for any: a task has only one, whatever else somebody writes there."""
    return step or ("" if run.startswith(records.WORKFLOW) else records.STEP)


async def final(connection: Connection, run: str, step: str = "") -> Outcome | None:
    """Return the final outcome of a run, or of one of its steps; None while it has none, or when FACTS has forgotten it."""
    facts = await newest(connection, run, step)
    latest = fold.latest_outcome(facts)
    if latest is None or latest[1].state not in FINAL:
        return None
    if latest[1].state == "dead" and fold.current(facts, None) is not None:
        return None  # it was redriven
    return latest[1]


async def present(connection: Connection, run: str, step: str = "") -> Task | None:
    """Return the attempt of a run, or of one of its steps, that waits or runs now; None when it has ended or is unknown."""
    facts = await newest(connection, run, step)
    waits = await _waits(connection, run, step)
    return fold.current(facts, waits)


class Holds(Protocol):
    """Who has an attempt."""

    async def holds(self, task: Task, started: Started, /) -> bool:
        """Return False once the worker that began it has vanished and the lease is over: then it waits for another."""

    async def begun(self, task: Task, /) -> Started | None:
        """Return the claim of an agent that came in, which may be too young to be on record as begun."""


async def worker(connection: Connection, task: Task, holds: Holds) -> Started | None:
    """Return who works on an attempt that has no outcome, None while nobody does (or nobody is known to)."""
    begun, _ = await _traces(connection, task)
    if begun is not None:
        return begun if await holds.holds(task, begun) else None
    return await holds.begun(task)


async def look(connection: Connection, run: str, holds: Holds | None = None, step: str = "") -> Sight | None:
    """Return a run, or the task of one of its steps, as it is; None when neither FACTS nor TASKS knows it (any more).

    What was begun counts as running, unless `holds` knows better.
    """
    facts = await newest(connection, run, step)
    latest = fold.latest_outcome(facts)
    outcome = latest[1] if latest is not None else None
    if outcome is not None and outcome.state in FINAL and outcome.state != "dead":
        return Sight(records.decode_task(bytes(outcome.task)), final_state(outcome), outcome)
    waits = await _waits(connection, run, step)
    task = fold.current(facts, waits)
    if task is None:
        if outcome is None or outcome.state not in FINAL:
            return None
        return Sight(records.decode_task(bytes(outcome.task)), final_state(outcome), outcome)
    begun, released = await _traces(connection, task)
    queued = waits if waits is not None and waits.subject == task.subject else None
    state: State = "pending"
    if begun is None and holds is not None and queued is not None:
        begun = await holds.begun(task)
        state = "running" if begun is not None else "pending"
    elif begun is not None and (holds is None or await holds.holds(task, begun)):
        state = "running"
    elif queued is None and ((outcome is not None and outcome.state == "waiting") or _is_to_come(facts, task)):
        state = "waiting"
    return Sight(
        task, state, outcome, begun if state == "running" else None, released,
        queued.seq if queued is not None else 0, queued.time_ns if queued is not None else 0,
    )  # fmt: skip


def _is_to_come(facts: list[Stored], task: Task) -> bool:
    """Return whether it is on record that an attempt waits for its time."""
    return any(stored.subject == records.next_subject(task) for stored in facts)


def final_state(outcome: Outcome) -> State:
    """Return the state of a run that ended like this; raises `ValueError` for an outcome that is not final."""
    if outcome.state == "waiting" or outcome.state == "continued":  # noqa: PLR1714  mypy narrows this way
        raise ValueError(outcome.state)
    return outcome.state


async def _traces(connection: Connection, task: Task) -> tuple[Started | None, Released | None]:
    """Return who began an attempt and has not handed it back, and who handed it back last, as far as it is on record."""
    begun, begun_seq = await _trace(connection, task, "started", Started)
    released, back_seq = await _trace(connection, task, "released", Released)
    return begun if begun_seq > back_seq else None, released


async def _trace(connection: Connection, task: Task, what: str, kind: type[T]) -> tuple[T | None, int]:
    """Return the last trace of a kind and its place in FACTS; what is none counts as not there."""
    stored = await reading.last(connection, subjects.FACTS, f"{records.trace_subject(task, what)}.*")
    if stored is None:
        return None, 0
    try:
        return msgspec.json.decode(stored.data, type=kind), stored.seq
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, 0
