"""Pauses, events, signals, approvals: what a run waits for, and what happens when nobody comes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.flow.play import NOW_NS, Play, S, task

from knotwork.desk.runs import rows as flow_rows
from knotwork.flow.effects import Ask, Expect, SetTimer, WatchEvent


@pytest.mark.parametrize(
    ("how", "given", "due_ns"),
    [
        ({"duration": "90s"}, None, NOW_NS + 90 * S),
        ({"duration": 0}, None, NOW_NS),
        ({"until": "input"}, "2030-01-01T00:00:00+01:00", int(datetime(2029, 12, 31, 23, tzinfo=UTC).timestamp()) * S),
        ({"until": "input"}, 1_900_000_000.5, 1_900_000_000 * S + S // 2),
        ({"until": "input"}, "1970-01-01T00:00:00Z", 0),
        ({"cron": "0 8 * * *"}, None, NOW_NS),  # 2027-01-15 08:00 is now: the next is tomorrow
    ],
)
def test_a_pause_ends_when_its_timer_fires_and_gives_its_input(how, given, due_ns):
    play = Play({"s": {"kind": "sleep", **how}}, given)
    due_ns += 86400 * S if "cron" in how else 0
    assert play.called == [SetTimer("sleep-s", due_ns)]
    assert play.fire("sleep-s").completed() == given


@pytest.mark.parametrize(
    "moment",
    [None, "soon", "2030-01-01T00:00:00", True, -1, 1e12, [], "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
)
def test_a_moment_that_is_none_fails_the_step(moment):
    assert Play({"s": {"kind": "sleep", "until": "input"}}, moment).failed()["code"] == "flow.bad_time"


def test_an_event_is_awaited_from_the_moment_when_its_turn_came():
    steps = {"a": task(), "e": {"kind": "wait_for_event", "event": "x.y", "match": "event.id == steps.a.output", "depends_on": ["a"],
                                "timeout": "1m"}}  # fmt: skip
    play = Play(steps, {"n": 1})
    play.now_ns += 5 * S
    play.done("a", 7)
    watch, timer = play.called
    assert isinstance(watch, WatchEvent)
    assert (watch.event, watch.since_ns, watch.context["steps"]["a"]["output"]) == ("x.y", NOW_NS + 5 * S, 7)
    assert timer == SetTimer("wait-e", NOW_NS + 65 * S)
    assert play.done("e", {"id": 7}).completed() == {"id": 7}


@pytest.mark.parametrize("kind", ["wait_for_event", "wait_for_signal", "approval"])
def test_who_does_not_come_in_time(kind):
    more = {"wait_for_event": {"event": "x"}, "wait_for_signal": {"signal": "x"}, "approval": {}}[kind]
    error = Play({"e": {"kind": kind, **more, "timeout": "1m"}}).fire("wait-e").failed()
    assert (error["code"], error["message"]) == ("flow.wait_timeout", "Step e: Nothing came within 60 s.")
    wait = {"kind": kind, **more, "timeout": "1m", "on_timeout": "value", "timeout_value": {"late": True}}
    assert Play({"e": wait}).fire("wait-e").completed() == {"late": True}
    play = Play({"e": {"kind": kind, **more, "timeout": "1m", "on_failure": "h"}, "h": task()}).fire("wait-e")
    assert play.done("h--0", "instead").completed() == "instead"
    late = Play({"e": wait, "f": task("e")}).fire("wait-e")
    state = late.open
    assert late.done("e", "late").signal("x").open == state, "whoever comes later changes nothing"


def test_a_signal_goes_to_the_first_that_waits_and_is_kept_when_nobody_does():
    wait = {"kind": "wait_for_signal", "signal": "go"}
    play = Play(
        {"a": wait, "b": wait, "c": task("a"), "d": {**wait, "depends_on": ["c"]}, "e": {**wait, "depends_on": ["d"]}}
    )
    assert play.called == [Expect("a", "go", NOW_NS), Expect("b", "go", NOW_NS)]
    play.signal("other", 0).signal("go", 1)
    assert play.state("a", "b") == ["completed", "open"]
    play.signal("go", 2).signal("go", 3).signal("go", 4).done("c")
    assert play.completed() == {"b": 2, "e": 4}


def test_a_signal_passes_over_a_step_that_gave_up_or_was_called_off():
    wait = {"kind": "wait_for_signal", "signal": "go"}
    steps = {
        "late": {**wait, "timeout": "1m", "allow_failure": True}, "off": wait, "a": task(), "b": {**wait, "depends_on": ["a"]},
        "j": {"kind": "join", "need": "any", "depends_on": ["a", "off"], "cancel_rest": True},
    }  # fmt: skip
    play = Play(steps).fire("wait-late").done("a").signal("go", 1)
    assert play.completed() == {"late": None, "b": 1, "j": {"a": None}}


def test_an_approval_is_asked_for_once_and_ends_with_the_answer():
    play = Play({"a": {"kind": "approval", "title": "t", "approvers": ["ann"]}}, {"what": "it"})
    (ask,) = play.called
    assert isinstance(ask, Ask)
    assert (ask.token, ask.input) == ("a", b'{"what": "it"}')
    assert play.done("a", {"approved": True}).completed() == {"approved": True}
    no = Play({"a": {"kind": "approval"}}).fail(
        "a", {"kind": "failed", "code": "flow.rejected", "message": "Ann rejected it."}
    )
    assert no.failed() == {
        "kind": "failed", "code": "flow.rejected", "message": "Step a: Ann rejected it.", "detail": {"step": "a"}
    }  # fmt: skip


def test_the_title_of_an_approval_is_filled_in_and_one_that_cannot_be_hinders_nobody():
    ship = {"kind": "approval", "title": "Ship {{ steps.a.output.what }} to {{ input.who }}?", "depends_on": ["a"]}
    play = Play({"a": task(), "q": ship}, {"who": "Ann"}).done("a", {"what": [1, "x"]})
    assert play.run.steps["q"].title == 'Ship [1,"x"] to Ann?'
    (waits,) = flow_rows.waits(play.run)
    assert waits.what == 'somebody to approve or reject: Ship [1,"x"] to Ann?'
    assert play.done("q", {"approved": True}).completed() == {"approved": True}
    kept_before = {
        "{{ abs(input) }}": None,
        "{{ steps.zzz.output }} {{": "null {{",
        "{{ [ }}": None,
        "{{ steps.* }}": "[]",
    }
    for title, shown in kept_before.items():  # before it was checked
        play = Play({"q": {"kind": "approval", "title": title}}, "x")
        assert play.run.steps["q"].title == (shown or title)
        assert play.done("q", {"approved": True}).completed() == {"approved": True}


def test_a_run_that_takes_too_long_is_stopped_and_undone():
    steps = {
        "a": task(compensate="u"),
        "b": task("a"),
        "c": {"kind": "wait_for_signal", "signal": "x"},
        "u": task(),
        "f": task(),
    }
    play = Play(steps, timeout="1h", on_failure="f")
    assert play.called[0] == SetTimer("run", NOW_NS + 3600 * S)
    play.done("a", 1).fire("run")
    assert play.open == {"do.b", "withdraw.b"}
    play.recalled("b")
    assert play.done("u--0u").given("f--5")["error"]["code"] == "flow.timeout"
    assert play.done("f--5").failed("timed-out")["message"] == "It took longer than 3600 s."


def test_a_clock_that_jumps_back_is_not_followed():
    play = Play({"a": task(), "s": {"kind": "sleep", "duration": "1m", "depends_on": ["a"]}})
    play.now_ns -= 3600 * S
    play.done("a")
    assert play.called == [SetTimer("sleep-s", NOW_NS + 60 * S)]
