"""What is told of a run: how an attempt began, also a short one, and of how many steps so many are done."""

from __future__ import annotations

import json
from dataclasses import replace

from knotwork.bus.reading import Stored
from knotwork.desk import moments
from knotwork.desk.runs import rows as flow_rows
from knotwork.desk.runs.watch import BACKLOG_MAX, OPEN_MAX_PERCENT, _percent, _told, lines
from knotwork.flow import facts, looking
from knotwork.flow.graph import graph
from knotwork.flow.looking import Sight
from knotwork.flow.model import Workflow

RUN = "w0198c0ffee0012345678ab"
STEPS = {
    "a": {"capability": "x", "on_failure": "mend"},
    "b": {"capability": "x", "depends_on": ["a"], "compensate": "undo"},
    "mend": {"capability": "x"},
    "undo": {"capability": "x"},
}


def fact(number: int, *what: str, **body: object) -> Stored:
    return Stored(facts.subject(RUN, *what), json.dumps(body).encode(), number, "2026-01-01T00:00:00Z")


def ended(number: int, step: str, attempt: str = "1", state: str = "completed", **more: object) -> Stored:
    return fact(number, "outcome", step, "0", attempt, state=state, started_ns=5, ended_ns=6, **more)


def test_each_attempt_is_told_to_have_begun_once():
    begun: set[tuple[str, ...]] = set()
    told = [
        text
        for number, stored in enumerate(
            [
                fact(1, "started", "m--0", "0", "1", "1", node="n"),
                ended(2, "m--0", state="retried", due_ns=7),
                ended(3, "m--0", "2"),  # too short for a fact of its own
                fact(4, "started", "m--0", "0", "2", "1", node="n"),  # which came late
                fact(5, "outcome", "ask", "0", "1", state="completed", ended_ns=6),  # nobody works on a question
            ],
            start=1,
        )
        for text in lines(number, stored, begun)
    ]
    assert told == [
        "m--0 started", "m--0 outcome retried", "m--0 started", "m--0 outcome completed", "ask outcome completed",
    ]  # fmt: skip


def sight(*more: Stored) -> Sight:
    workflow = Workflow.model_validate({"name": "w", "steps": STEPS})
    stored = [fact(1, "start", workflow="w", digest="d"), *more]
    known = [one for place in stored if (one := looking.read(place)) is not None]
    start, last = known[0].body, known[-1].body
    assert isinstance(start, facts.Start)
    finish = last if isinstance(last, facts.Finish) else None
    return Sight(RUN, start, looking.folded(RUN, graph(workflow), known), finish, stored)


def test_handlers_are_not_counted_but_the_steps_that_they_stand_in_for():
    over = flow_rows.row(sight(ended(2, "a"), ended(3, "b"), fact(4, "ended", state="completed")))
    assert (over.state, over.done, over.steps) == ("completed", 2, 2)
    broken = ended(2, "a", state="failed", error={"kind": "failed", "code": "x", "message": "no"})
    mending = flow_rows.row(sight(broken))
    assert (mending.state, mending.done, mending.steps) == ("running", 0, 2)


def test_each_time_that_a_handler_began_is_told_and_for_which_step():
    failed = {"kind": "failed", "code": "x.y", "message": "no"}
    going = sight(ended(2, "a", state="failed", error=failed), fact(3, "started", "mend--0", "0", "1", "1", node="n"))
    told = {one.id: one for one in flow_rows.info(going).progress}
    assert [(one.id, one.state, one.handles) for one in told.values()] == [
        ("a", "open", ""), ("b", "blocked", ""), ("mend--0", "open", "a"), ("undo", "handler", ""),
    ]  # fmt: skip
    over = sight(
        ended(2, "a"), ended(3, "b", output="booked"), fact(4, "cancel"),
        ended(5, "undo--1u", output={"gone": True}),
    )  # fmt: skip
    undone = next(one for one in flow_rows.info(over).progress if one.id == "undo--1u")
    assert (undone.state, undone.handles, undone.output) == ("completed", "b", {"gone": True})
    assert (undone.begun_at, undone.ended_at) == (moments.moment(5), moments.moment(6))


def test_of_an_error_that_says_too_much_the_beginning_is_shown():
    failed = {"kind": "failed", "code": "x", "message": "m" * 3_000_000, "detail": {"trace": "t" * 3_000_000}}
    over = sight(ended(2, "a", state="failed", error=failed), ended(3, "mend--0", state="failed", error=failed))
    told = flow_rows.info(over)
    assert told.error.message.startswith("Step a: mmm")
    assert {one.error.code for one in told.progress if one.error is not None} == {"x"}
    assert len(told.model_dump_json()) < 300_000


def test_a_run_as_it_was_shows_nothing_of_what_came_after():
    stored = [
        fact(1, "start", workflow="w", digest="d"), ended(2, "a"), ended(3, "b"), fact(4, "cancel"),
        ended(5, "undo--1u"), fact(6, "ended", state="cancelled"),
    ]  # fmt: skip
    was = looking.outlined(RUN, stored, 3)
    told = flow_rows.info(replace(sight(*was.facts[1:]), facts=was.facts))
    assert told.facts == 3
    assert [(one.id, one.state) for one in told.progress[2:]] == [("mend", "handler"), ("undo", "handler")]


def many(count: int, *, finish: facts.Finish | None) -> Sight:
    stored = [fact(n, "started", f"m--{n}", "0", "1", "1", node="n") for n in range(1, count + 1)]
    return replace(sight(), facts=stored, finish=finish)


def test_of_a_long_past_the_end_is_told_and_once_how_far_the_run_is():
    past = many(5000, finish=None)
    told = _told(past, 0, set(), 50.0)
    assert len(told) == 1 + BACKLOG_MAX
    assert told[0].text == f"{5000 - BACKLOG_MAX} facts before: `knotwork run events {RUN}` lists them"
    assert [one.percent for one in told] == [None] * BACKLOG_MAX + [50.0]
    assert len(_told(past, 1000, set(), 50.0)) == 4000  # what happens while somebody looks on is told whole
    assert _told(past, 5000, set(), 50.0) == []


def test_what_is_not_over_is_never_shown_as_done(monkeypatch):
    row = flow_rows.row(many(1, finish=None)).model_copy(update={"done": 3, "steps": 3})
    monkeypatch.setattr(flow_rows, "row", lambda _: row)
    assert _percent(many(1, finish=None)) == OPEN_MAX_PERCENT
    assert _percent(many(1, finish=facts.Finish(state="failed"))) == 100.0
