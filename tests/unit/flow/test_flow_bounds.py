"""What bounds attempts, and what a run holds meanwhile: the waits in queues, silence, places in limits, nodes, new beginnings."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.flow.play import NOW_NS, Play, S, task

from knotwork.flow import anew, calls, expressions, facts
from knotwork.flow.definitions import parsed
from knotwork.flow.effects import Dispatch, End, Readmit
from knotwork.flow.graph import graph
from knotwork.sdk.errors import Invalid
from knotwork.work import leases, records, settle

TASK = records.Task("w0000000", "do", start_within_s=5.0, retry=records.Retry(max_attempts=3, jitter=False))


def waiting(count: int, state: records.Ended = "waiting") -> facts.StepEnd:
    return facts.StepEnd(state, due_ns=NOW_NS + count)


# -- attempts --------------------------------------------------------------------------------------------------------


def test_each_attempt_may_wait_as_long_as_the_first():
    outcome = settle.unbegun(TASK, "n", 10 * S, 0.0)
    assert (outcome.state, outcome.error["code"], outcome.due_ns) == ("waiting", "work.not_begun", 11 * S)
    following = settle.following(TASK, outcome)
    assert (following.number, following.start_by_ns) == (2, 16 * S)
    assert settle.following(TASK, msgspec.structs.replace(outcome, state="continued", due_ns=0)).start_by_ns == 15 * S
    assert settle.revived(TASK, outcome, 20 * S).start_by_ns == 25 * S
    last = msgspec.structs.replace(TASK, retry=records.Retry(max_attempts=1))
    assert settle.unbegun(last, "n", 10 * S, 0.0).state == "timed-out"


def test_signs_of_life_move_the_end_up_to_the_limit():
    subject = "task.none.do.normal.w0000000.a.0.1"
    claim = leases.Claim("x" * 16, subject, "$JS.ACK.x", "w", "n", 1, 0, S, 60.0, heartbeat_s=10.0, limit_ns=25 * S)
    assert [leases.alive(claim, at * S).ends_ns // S for at in (0, 10, 15, 20)] == [10, 20, 25, 25]
    assert leases.alive(msgspec.structs.replace(claim, heartbeat_s=0.0, ends_ns=7), 20 * S).ends_ns == 7


# -- limits ----------------------------------------------------------------------------------------------------------


def test_each_attempt_that_waits_is_admitted_again_and_known_by_its_count():
    play = Play({"a": task(limit={"concurrency": 1})})
    for count in (1, 2):
        play.fact("again", "a", waiting(count))
        effect = play.run.open["again.a"]
        assert isinstance(effect, Readmit)
        assert (effect.count, effect.due_ns) == (count, NOW_NS + count)
    assert [calls.is_over(play.run, one) for one in ("a", "a.1", "a.2")] == [True, True, False]
    play.done("a", 7)
    assert calls.is_over(play.run, "a.2")
    assert play.completed() == 7


def test_without_a_limit_the_next_attempt_comes_by_itself():
    play = Play({"a": task()}).fact("again", "a", waiting(1))
    assert play.open == {"do.a"}
    assert play.called == []


def test_a_run_that_waits_for_its_place_asks_for_it_again_when_it_is_resumed():
    play = Play({"a": task()}, concurrency={"max_runs": 1})
    asked = play.run.open["admit"]
    assert play.fact("pause", "", facts.Wish()).called == []
    assert play.fact("resume", "", facts.Wish()).called == [asked]
    assert play.fact("admitted").open == {"do.a"}
    assert play.fact("pause", "", facts.Wish()).fact("resume", "", facts.Wish()).called == []


def test_what_is_called_off_is_not_admitted_again():
    play = Play({"a": task(limit={"concurrency": 1})}).fact("again", "a", waiting(1)).cancel()
    assert play.open == {"do.a", "again.a", "withdraw.a"}
    play.fact("again", "a", waiting(2))
    assert calls.tries(play.run, "a") == 1
    play.recalled("a")
    assert play.end.state == "cancelled"


def books(play, *tokens):
    """Return the keys of the limits that admit these."""
    effects = [play.run.open[f"do.{token}"] for token in tokens]
    assert all(isinstance(one, Dispatch) for one in effects)
    return [one.limit.key for one in effects if isinstance(one, Dispatch) and one.limit is not None]


def test_the_key_of_a_limit_sees_the_items_of_a_map_as_they_are_in_its_list():
    limit = {"concurrency": 1, "key": "[item.who, input[0].who]"}
    ask = {"kind": "map", "capability": "work", "items": "input", "input": "item.n", "limit": limit}
    play = Play({"m": ask}, [{"who": "a", "n": 1}, {"who": "b", "n": 2}, {"who": "a", "n": 3}])
    first, second, third = books(play, "m--0", "m--1", "m--2")
    assert first == third != second
    assert play.given("m--2") == 3
    by_place = {**ask, "limit": {"concurrency": 1, "key": "index"}}
    assert len({*books(Play({"m": by_place}, [{}, {}, {}]), "m--0", "m--1", "m--2")}) == 3


def test_the_key_of_a_limit_is_the_same_in_whatever_order_an_object_is_written():
    limit = {"concurrency": 1, "key": "item"}
    ask = {"kind": "map", "capability": "work", "items": "input", "limit": limit}
    play = Play({"m": ask}, [{"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}, {"a": 1}])
    first, second, third = books(play, "m--0", "m--1", "m--2")
    assert first == second != third


def test_a_key_that_cannot_be_worked_out_for_an_item_fails_the_map_before_any_begins():
    limit = {"concurrency": 1, "key": "length(item)"}
    play = Play({"m": {"kind": "map", "capability": "work", "parallelism": 1, "limit": limit}}, [[1], 7])
    assert play.failed()["code"] == "flow.expression_failed"


@pytest.mark.parametrize("kind", [{}, {"kind": "agent", "prompt": "mend {{ step }}"}], ids=["task", "agent"])
def test_the_key_of_the_limit_of_a_handler_sees_what_it_handles(kind):
    heal = task(**kind, limit={"concurrency": 1, "key": "step"})
    play = Play({"a": task(on_failure="h"), "b": task(on_failure="h"), "h": heal}).fail("a").fail("b")
    assert len({*books(play, "h--0", "h--1")}) == 2


# -- sizes -----------------------------------------------------------------------------------------------------------


def test_a_run_whose_output_cannot_be_kept_fails_and_is_undone(monkeypatch):
    monkeypatch.setattr(expressions, "SIZE_MAX_BYTES", 100)
    play = Play({"m": {"kind": "map", "capability": "work", "compensate": "u"}, "u": task()}, [1, 2])
    play.done("m--0", "x" * 60).done("m--1", "y" * 60)
    assert play.given("u--0u")["output"] == ["x" * 60, "y" * 60]
    assert play.done("u--0u").failed()["code"] == "flow.too_large"


def test_what_a_run_cannot_start_itself_anew_with_fails_it(monkeypatch):
    monkeypatch.setattr(expressions, "SIZE_MAX_BYTES", 100)
    play = Play({"a": task(), "on": {"kind": "continue_as_new", "depends_on": ["a"]}}).done("a", "x" * 120)
    assert play.failed()["code"] == "flow.too_large"
    assert play.end.anew is None


# -- nodes -----------------------------------------------------------------------------------------------------------


def test_a_step_sticks_to_who_completed_the_other():
    play = Play({"a": task(allow_failure=True), "b": task("a", sticky={"step": "a", "mode": "hard"})})
    play.fact("outcome", "a", facts.StepEnd("completed", node="n1", agent="x"))
    near = play.run.open["do.b"].near
    assert (near.node, near.agent, near.hard) == ("n1", "x", True)
    failed = Play({"a": task(allow_failure=True), "b": task("a", sticky={"step": "a"})})
    failed.fact("outcome", "a", facts.StepEnd("failed", node="n1", agent="x", error={"message": "no"}))
    assert failed.run.open["do.b"].near is None


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ({"a": task(), "b": task(sticky={"step": "a"})}, "may not have ended"),
        ({"a": {"kind": "sleep", "duration": 1}, "b": task("a", sticky={"step": "a"})}, "not done by one agent"),
        ({"a": task(), "b": {"agent": "n/x", "depends_on": ["a"], "sticky": {"step": "a"}}}, "names a node already"),
        ({"a": {"kind": "continue_as_new"}}, "nothing but start itself anew"),
        ({"a": {"kind": "continue_as_new", "when": "input"}, "b": task("a")}, "nothing follows"),
    ],
)
def test_what_makes_no_sense(steps, told):
    with pytest.raises(Invalid) as refused:
        graph(parsed({"name": "w", "steps": steps}))
    assert told in refused.value.message


# -- new beginnings --------------------------------------------------------------------------------------------------


def test_the_next_run_has_what_the_one_before_had_but_its_history():
    start = facts.Start(
        "w", "d", by="me", labels={"a": "b"}, key="k", trigger="t", parent=facts.Parent("wp", "s"), depth=3
    )
    play = Play(
        {"a": task(), "again": {"kind": "continue_as_new", "depends_on": ["a"], "input": {"n": "steps.a.output"}}}
    )
    play.signal("x", 1).signal("y", 2).done("a", 5)
    end = play.end
    assert isinstance(end, End)
    assert (end.state, end.anew.input, end.anew.unheard, end.anew.after) == ("completed", b'{"n":5}', (2, 3), 4)
    second, made = anew.started("w1", start, end.anew, "d2")
    assert (second, made.first, made.number, made.after, made.digest) == (facts.chained("w1", 1), "w1", 1, 4, "d2")
    assert (made.key, made.labels, made.parent, made.depth, made.trigger) == ("", {"a": "b"}, start.parent, 3, "t")
    third, made = anew.started(second, made, end.anew, "d2")
    assert (third, made.first, made.number) == (facts.chained("w1", 2), "w1", 2)
    assert anew.before(made) == second


def test_a_run_that_fails_does_not_start_anew():
    steps = {"a": task(), "b": task(), "again": {"kind": "continue_as_new", "depends_on": ["a"]}}
    play = Play(steps).done("a").fail("b")
    assert play.failed()["code"] == "agent.failed"
    assert play.end.anew is None


def test_of_two_the_first_counts():
    new = {"kind": "continue_as_new"}
    play = Play({"a": task(), "b": task(), "x": {**new, "depends_on": ["a"]}, "y": {**new, "depends_on": ["b"]}})
    play.done("b", 2).done("a", 1)
    assert (play.end.anew.step, play.end.anew.input) == ("y", b"2")


# -- what workers start ----------------------------------------------------------------------------------------------

GRANT = {"workflows": ["kid"], "capabilities": ["work"]}


def spawned(play: Play, token: str, **wish: str) -> Play:
    return play.fact("spawned", token, facts.Spawn(**wish))


def test_what_a_worker_starts_is_waited_for_and_fails_nothing():
    play = Play({"a": task(children=GRANT), "b": task("a")})
    spawned(play, "a--c1", workflow="kid")
    spawned(play, "a--c2", capability="work")
    assert play.open == {"do.a", "child.a--c1", "do.a--c2"}
    assert play.run.open["child.a--c1"].spawned
    play.done("a", 1).done("b", 2)
    assert play.open == {"child.a--c1", "do.a--c2"}
    play.fail("a--c1").done("a--c2", 3)
    assert play.completed() == 2
    assert {token: one.end.state for token, one in play.run.spawned.items()} == {
        "a--c1": "failed",
        "a--c2": "completed",
    }


def test_it_ends_with_its_step_and_with_its_run():
    play = Play({"a": task(children=GRANT, allow_failure=True), "b": task()})
    spawned(play, "a--c1", workflow="kid").fail("a")
    assert play.open == {"child.a--c1", "cancel-child.a--c1", "do.b"}
    play.recalled("a--c1")
    again = Play({"a": task(children=GRANT)})
    spawned(again, "a--c1", capability="work").cancel()
    assert again.open == {"do.a", "withdraw.a", "do.a--c1", "withdraw.a--c1"}
    assert again.recalled("a", "a--c1").end.state == "cancelled"


def test_nothing_is_started_for_who_holds_nothing_or_below():
    play = Play({"a": task(children=GRANT), "b": task("a")}).done("a", 1)
    spawned(play, "a--c1", workflow="kid")
    spawned(play, "zz--c1", workflow="kid")
    spawned(play, "b--c2", workflow="kid", below="wchild")
    assert play.open == {"do.b"}
    spawned(play, "b--c1", workflow="kid").cancel()
    spawned(play, "b--c3", workflow="kid")
    assert "child.b--c3" not in play.open


def test_what_is_started_while_its_run_is_paused_waits_with_it():
    play = spawned(Play({"a": task(children=GRANT)}), "a--c1", workflow="kid")
    spawned(play.fact("pause"), "a--c2", workflow="kid")
    assert play.open == {"do.a", "child.a--c1", "hold-child.a--c1", "child.a--c2"}
    assert [play.run.open[f"child.a--c{number}"].paused for number in (1, 2)] == [False, True]
    play.fact("resume")
    assert [play.run.open[f"hold-child.a--c{number}"].pause for number in (1, 2)] == [False, False]
    assert play.done("a--c1").done("a--c2").done("a", 5).completed() == 5


def test_of_a_map_each_item_has_its_own():
    play = Play({"m": {"kind": "map", "capability": "work", "children": GRANT}}, [1, 2])
    spawned(play, "m--0--c1", capability="work").done("m--0--c1", "x").done("m--0", 5)
    assert play.done("m--1", 6).completed() == [5, 6]
