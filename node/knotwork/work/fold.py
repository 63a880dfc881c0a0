"""What is a run doing now? Folded from the facts there are of it and the attempt that waits in TASKS (pure)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from knotwork.bus import digits
from knotwork.sdk.errors import Invalid
from knotwork.work import records, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.bus.reading import Stored
    from knotwork.work.records import Outcome, Task

_PARTS = 7  # run.<shard>.<run>.outcome.<step>.<iteration>.<number>
Place = tuple[int, int]
"""Iteration and number of an attempt: the larger, the later."""
FIRST: Place = (0, 1)


def outcome_at(subject: str, data: bytes) -> tuple[Place, Outcome] | None:
    """Return the outcome stored (or told) on a subject and its attempt; None for what is none, or belongs elsewhere."""
    parts = subject.split(".")
    if len(parts) != _PARTS or parts[3] != "outcome":
        return None
    iteration, number = digits.read(parts[5]), digits.read(parts[6])
    if iteration is None or number is None:
        return None
    try:
        outcome = records.decode_outcome(data)
        task = records.decode_task(bytes(outcome.task))
    except Invalid:
        return None
    place = iteration, number
    stands = (records.shard(task.run), task.run, task.step, *place_of(task))
    return (place, outcome) if stands == (parts[1], parts[2], parts[4], *place) else None


def latest_outcome(facts: Sequence[Stored]) -> tuple[Place, Outcome] | None:
    """Return the outcome of the latest attempt that has one; what is none is passed over."""
    found = [outcome_at(stored.subject, stored.data) for stored in facts]
    return max((one for one in found if one is not None), key=lambda one: one[0], default=None)


def current(facts: Sequence[Stored], waits: Stored | None) -> Task | None:
    """Return the attempt that waits or runs now, None when the run has ended or nothing is known of it."""
    tasks = [task_at(stored) for stored in facts if ".next." in stored.subject or ".redriven." in stored.subject]
    if waits is not None:
        tasks.append(task_at(waits))
    ended = latest_outcome(facts)
    if ended is not None:
        with contextlib.suppress(Invalid):
            tasks.append(settle.following(records.decode_task(bytes(ended[1].task)), ended[1]))
    known = [task for task in tasks if task is not None]
    if not known:
        return None
    last = max(known, key=place_of)
    return None if ended is not None and ended[0] >= place_of(last) else last


def task_at(stored: Stored) -> Task | None:
    """Return the attempt that a message of TASKS holds, or a `next` or `redriven` of FACTS; None for garbage."""
    try:
        task = records.decode_task(stored.data)
        places = (task.subject, records.next_subject(task), records.redriven_subject(task))
    except Invalid:
        return None
    return task if stored.subject in places else None


def place_of(task: Task) -> Place:
    """Return which attempt a task is."""
    return task.iteration, task.number
