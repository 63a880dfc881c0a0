"""Which facts are packed into the archive: the ends of attempts of tasks, and nothing else."""

from __future__ import annotations

from collections import OrderedDict

import pytest

from knotwork.bus import subjects
from knotwork.bus.reading import Stored
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


def stored(number: int, state: str, seq: int) -> Stored:
    """Return the outcome of an attempt as FACTS holds it."""
    data = f'{{"state":"{state}","task":{{}}}}'.encode()
    return Stored(records.outcome_subject(RUN, "task", 0, number), data, seq, "2026-01-01T00:00:00Z")


def test_what_is_behind_the_end_is_not_packed():
    ended: OrderedDict[str, tuple[int, int]] = OrderedDict()
    retried, died, done = stored(1, "waiting", 1), stored(2, "dead", 2), stored(3, "completed", 3)
    assert archive.genuine([retried, died, done, stored(4, "failed", 4)], ended) == [retried, died, done]
    assert archive.genuine([stored(5, "waiting", 5), done], ended) == [done]  # packed again: it harms nobody
    assert ended == {RUN: (0, 3)}


def test_a_key_is_remembered_when_its_task_has_ended():
    run, other = f"{subjects.KEYED}aaaaaaaaaaaaaaa", f"{subjects.KEYED}bbbbbbbbbbbbbbb"

    def end(run: str, state: str) -> Stored:
        data = f'{{"state":"{state}","task":{{"run":"{run}","key":"k","input":[1],"asked":"abc"}}}}'.encode()
        return Stored(records.outcome_subject(run, "task", 0, 1), data, 1, "")

    for state in sorted(records.FINAL):
        assert archive.keys([end(run, state), end(other, "waiting"), end(RUN, state)]) == {
            subjects.keyed(run): b'{"asked":"abc"}'
        }
    assert archive.keys([Stored(records.outcome_subject(run, "task", 0, 1), b'{"state":"dead"', 1, "")]) == {}
