"""The history of a run, made of whatever is still known of it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus.reading import Stored
from knotwork.desk.tasks import rows as task_rows
from knotwork.work import history, records, settle
from knotwork.work.records import Outcome, Past, Released, Retry, Started, Task

RUN = "t0123456789abcdef"
S = 1_000_000_000
TASK = Task(
    run=RUN, queue="do", capability="do", submitted_ns=S, retry=Retry(max_attempts=5), input=msgspec.Raw(b'"in"')
)
SEQ = itertools.count(1)


def fact(what: str, value, *place) -> Stored:
    subject = ".".join([records.facts_of(RUN), what, records.STEP, *map(str, place)])
    return Stored(subject, records.encode(value), next(SEQ), "1970-01-01T00:00:50Z")


def end(task: Task, state: str, at_s: int, **more) -> Outcome:
    return Outcome(
        state, records.raw(task), node="n", agent="a", started_ns=(at_s - 1) * S, ended_ns=at_s * S, **more
    )  # fmt: skip


def outcome_fact(task: Task, outcome: Outcome) -> Stored:
    return fact("outcome", outcome, task.iteration, task.number)


def words(found) -> list[str]:
    return [one.what for one in found]


def life() -> tuple[Task, list[Stored], Outcome]:
    """Return a run that failed, died, was redriven, looped and ended: its last attempt, its facts and its end."""
    facts = [fact("started", Started("n", "a", 2 * S), 0, 1, 1), fact("released", Released("n", "a", 3 * S, "it drains", "x.w"), 0, 1, 1),
             fact("started", Started("m", "a", 4 * S), 0, 1, 2)]  # fmt: skip
    first = end(TASK, "waiting", 6, due_ns=8 * S, error={"code": "x.y", "message": "oops"})
    second = settle.following(TASK, first)
    dead = end(second, "dead", 9, error={"code": "x.z", "message": "worse"})
    third = settle.revived(second, dead, 0)
    again = end(third, "continued", 60)
    fourth = settle.following(third, again)
    done = end(fourth, "completed", 70)
    facts += [outcome_fact(TASK, first), fact("next", second, 0, 2), outcome_fact(second, dead),
              fact("redriven", msgspec.structs.replace(third, why="redriven by me"), 0, 3), outcome_fact(third, again),
              outcome_fact(fourth, done)]  # fmt: skip
    return fourth, facts, done


WHOLE = [
    "submitted", "started", "released", "started", "waiting", "started", "dead", "redriven", "started", "continued",
    "started", "completed",
]  # fmt: skip


def test_everything_is_told_in_order():
    task, facts, done = life()
    found = history.transitions(task, facts, done)
    assert words(found) == WHOLE
    assert [one.state for one in found if one.what == "continued"] == ["pending"]
    waiting = next(one for one in found if one.what == "waiting")
    assert (waiting.due_ns, waiting.code, waiting.message) == (8 * S, "x.y", "oops")
    released = next(one for one in found if one.what == "released")
    assert (released.code, released.message) == ("x.w", "it drains")
    assert next(one for one in found if one.what == "redriven").message == "redriven by me"


def test_an_attempt_whose_end_was_said_to_another_node_began_once():
    done = end(TASK, "completed", 6)
    begun = fact("started", Started("elsewhere", "a", done.started_ns), 0, 1, 1)
    found = history.transitions(TASK, [begun, outcome_fact(TASK, done)], done)
    assert words(found) == ["submitted", "started", "completed"]
    assert [one.node for one in found[1:]] == ["elsewhere", "n"]


def test_without_facts_the_task_itself_remembers():
    task, _, done = life()
    assert words(history.transitions(task, [], done)) == [
        "submitted", "started", "waiting", "started", "dead", "started", "continued", "started", "completed"
    ]  # fmt: skip


@given(st.data())
def test_what_is_forgotten_or_told_twice_changes_no_order(data):
    task, facts, done = life()
    kept = data.draw(st.lists(st.sampled_from(facts), max_size=20))
    found = history.transitions(task, kept, done)
    assert [(one.iteration, one.number, one.rank) for one in found] == sorted(
        (one.iteration, one.number, one.rank) for one in found
    )
    ends = [one for one in found if one.what in ("waiting", "dead", "continued", "completed")]
    assert words(ends) == ["waiting", "dead", "continued", "completed"]
    assert words(found)[0] == "submitted"


@pytest.mark.parametrize(
    "stored",
    [
        Stored(f"{records.facts_of(RUN)}.started.task.0.1.1", b"garbage", 1, ""),
        Stored(f"{records.facts_of(RUN)}.started.task.x.1.1", b"{}", 1, ""),
        Stored(f"{records.facts_of(RUN)}.redriven.task.0.1", b"{}", 1, ""),
        Stored(f"{records.facts_of(RUN)}.keyed", records.encode(TASK), 1, ""),
        Stored(f"{records.facts_of(RUN)}.outcome.task.0.1", b'{"state":"completed"}', 1, ""),
        Stored(f"{records.facts_of(RUN)}.new.kind.of.fact.some.day", b"1", 1, ""),
    ],
)
def test_what_is_none_of_ours_tells_nothing(stored):
    assert words(history.transitions(TASK, [stored])) == ["submitted"]
    assert history.told(stored) == []


def test_values_are_left_out_and_nothing_else():
    task, facts, done = life()
    light = [history.without_values(stored) for stored in facts]
    assert all(b'"in"' not in stored.data for stored in light if ".outcome." in stored.subject)
    assert history.transitions(task, light, done) == history.transitions(task, facts, done)


def test_one_fact_tells_what_it_is():
    task, facts, done = life()
    assert words(history.told(outcome_fact(task, done))) == ["completed"]
    assert words(history.told(facts[0])) == ["started"]


def test_crashes_of_a_poisonous_task_are_told_once_whether_or_not_their_traces_are_there():
    begun = [Started("n", "a", 2 * S), Started("n", "a", 4 * S, 2), Started("m", "a", 6 * S, 3)]
    task = msgspec.structs.replace(TASK, past=tuple(settle.crash(TASK, one) for one in begun))
    dead = Outcome("dead", records.raw(task), node="n", ended_ns=8 * S, delivery=4)
    facts = [fact("started", one, 0, 1, one.delivery) for one in begun]
    for known in ([], facts[:1], facts):
        told = history.transitions(task, known, dead)
        assert words(told) == ["submitted", "started", "started", "started", "dead"]
        assert [one.at_ns for one in told if one.what == "started"] == [2 * S, 4 * S, 6 * S]


def test_a_crash_of_which_nothing_is_known_counts_and_tells_no_start():
    task = msgspec.structs.replace(TASK, past=(settle.crash(TASK, None), settle.crash(TASK, Started("n", "a", S, 2))))
    assert settle.ended_by_crashes(task)
    assert words(history.transitions(task, [], Outcome("dead", records.raw(task)))) == ["submitted", "started", "dead"]
    assert settle.crashes(4, frozenset({2, 3, 4}), frozenset({3})) == [1, 2]
    assert settle.crashes(1, frozenset(), frozenset()) == []


def test_every_attempt_is_told_the_last_one_too():
    error = {"code": "x.y", "message": "no"}
    past = tuple(
        Past(number=number, state="waiting", started_ns=number * S, ended_ns=number * S + 1) for number in (1, 2)
    )
    task = msgspec.structs.replace(TASK, number=3, past=past)
    end = Outcome("dead", records.raw(task), error=error, node="n", agent="a", started_ns=7 * S, ended_ns=8 * S)
    told = settle.told(task, end)
    assert [one.number for one in told] == [1, 2, 3]
    assert told[2] == Past(
        number=3, state="dead", code="x.y", message="no", node="n", agent="a", started_ns=7 * S, ended_ns=8 * S
    )
    assert settle.told(task, None) == past
    never = Outcome("cancelled", records.raw(task), node="n", ended_ns=8 * S)
    assert settle.told(task, never) == past  # the attempt that was to come was not begun
    shown = task_rows.info(task_rows.of_outcome(end)).attempts
    assert [(one.attempt, one.state, one.worker, one.code) for one in shown][2] == (3, "dead", "n/a", "x.y")


def test_a_crash_ended_when_it_was_known_by_the_next_beginning_or_at_the_end():
    begun = [None, Started("n", "a", 4 * S, 2), Started("m", "a", 6 * S, 3)]
    found = settle.crashed(TASK, begun, 9 * S)
    assert [(one.started_ns, one.ended_ns) for one in found] == [(0, 4 * S), (4 * S, 6 * S), (6 * S, 9 * S)]
    task = msgspec.structs.replace(TASK, past=found)
    dead = Outcome("dead", records.raw(task), node="n", ended_ns=9 * S, delivery=4)
    assert settle.told(task, dead) == found  # the end is no attempt of its own
