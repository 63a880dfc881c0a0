"""Which facts are packed into the archive: the ends of attempts of tasks, and nothing else."""

from __future__ import annotations

import pytest

from knotwork.view import archive
from knotwork.work import records

RUN = "t0123456789abcdef"


def fits(subject: str) -> bool:
    """Return whether a subject fits `OUTCOMES` as NATS reads it."""
    pattern, parts = archive.OUTCOMES.split("."), subject.split(".")
    return len(pattern) == len(parts) and all(one in ("*", part) for one, part in zip(pattern, parts, strict=True))


@pytest.mark.parametrize(
    "subject",
    [
        records.outcome_subject(RUN, "task", 0, 1),
        records.outcome_subject(RUN, "task", 12, 345),
        records.outcome_subject(RUN, "other", 0, 1),
        f"{records.facts_of(RUN)}.keyed",
        f"{records.facts_of(RUN)}.started.task.0.1.1",
        f"{records.facts_of(RUN)}.next.task.0.2",
        f"{records.facts_of(RUN)}.outcome.task.0",
        f"{records.facts_of(RUN)}.outcome.task.0.1.1",
        "trigger.a.b.outcome.task.0.1",
    ],
)
def test_what_is_packed_is_what_is_removed_later(subject: str):
    assert archive.is_outcome(subject) == fits(subject)


def test_the_end_of_a_task_is_packed():
    assert archive.is_outcome(records.outcome_subject(RUN, "task", 0, 1))
