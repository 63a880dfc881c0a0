"""What is a run doing now? Folded from the facts there are of it and the attempt that waits in TASKS (pure)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from knotwork.sdk.errors import Invalid
from knotwork.work import records, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.bus.reading import Stored
    from knotwork.work.records import Outcome, Task

Place = tuple[int, int]
"""Iteration and number of an attempt: the larger, the later."""


def latest_outcome(facts: Sequence[Stored]) -> tuple[Place, Outcome] | None:
    """Return the outcome of the latest attempt that has one; what is none is passed over."""
    found: tuple[Place, Outcome] | None = None
    for stored in facts:
        parts = stored.subject.split(".")
        if len(parts) != 7 or parts[3] != "outcome" or not (parts[5].isdigit() and parts[6].isdigit()):  # noqa: PLR2004
            continue
        place = int(parts[5]), int(parts[6])
        if found is not None and place <= found[0]:
            continue
        try:
            found = place, records.decode_outcome(stored.data)
        except Invalid:
            continue
    return found


def current(facts: Sequence[Stored], waits: Stored | None) -> Task | None:
    """Return the attempt that waits or runs now, None when the run has ended or nothing is known of it."""
    tasks = [_task(stored) for stored in facts if ".next." in stored.subject]
    if waits is not None:
        tasks.append(_task(waits))
    ended = latest_outcome(facts)
    if ended is not None:
        with contextlib.suppress(Invalid):
            tasks.append(settle.following(records.decode_task(bytes(ended[1].task)), ended[1]))
    known = [task for task in tasks if task is not None]
    if not known:
        return None
    last = max(known, key=_place)
    return None if ended is not None and ended[0] >= _place(last) else last


def _task(stored: Stored) -> Task | None:
    try:
        return records.decode_task(stored.data)
    except Invalid:
        return None


def _place(task: Task) -> Place:
    return task.iteration, task.number
