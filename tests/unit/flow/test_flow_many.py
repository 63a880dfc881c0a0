"""Joins, maps and planners: steps that have to do with several others."""

from __future__ import annotations

import pytest
from tests.unit.flow.play import Play, task

from knotwork.flow.effects import StartChild

RACE = {"a": task(), "b": task(), "c": task()}


def join(need, **more):
    return {"kind": "join", "need": need, "depends_on": ["a", "b", "c"], **more}


def test_a_join_waits_for_all_for_any_or_for_so_many():
    assert Play({**RACE, "j": join("all")}).done("b", 2).done("a", 1).done("c", 3).completed() == {
        "a": 1,
        "b": 2,
        "c": 3,
    }
    play = Play({**RACE, "j": join("any"), "d": task("j")}).done("b", 2)
    assert play.given("d") == {"b": 2}
    assert play.done("a").done("c").done("d", 9).completed() == 9, "without cancel_rest the others are still waited for"
    assert Play({**RACE, "j": join(2)}).done("b", 2).done("c", 1).state("j") == ["completed"]


@pytest.mark.parametrize("need", ["any", 2])
def test_a_join_that_cannot_have_enough_fails(need):
    steps = {one: task(allow_failure=True) for one in "abc"}
    play = Play({**steps, "j": join(need)}).fail("a").fail("b")
    assert play.state("j") == ["blocked"]
    play.fail("c")
    assert play.failed()["code"] == "flow.join_short"


def test_a_join_of_skipped_steps_is_skipped():
    steps = {one: task(when="input") for one in "abc"}
    assert Play({**steps, "j": join("any"), "d": task("j")}).completed() is None


def test_a_join_stops_the_rest_and_the_run_ends_when_that_has_ended():
    steps = {
        **RACE, "m": task(kind="map", items="[run.id, run.id]"), "w": {"kind": "workflow", "workflow": "x"},
        "s": {"kind": "wait_for_signal", "signal": "x", "timeout": "1m"}, "p": task(kind="planner"),
        "e": {"kind": "approval"}, "z": task("late"), "late": task("a"), "f": task(on_failure="h"), "h": task(),
        "d": {"kind": "workflow", "workflow": "x", "detach": True},
        "j": {"kind": "join", "need": 1, "cancel_rest": True,
              "depends_on": ["a", "b", "c", "m", "w", "s", "p", "e", "late", "f", "d"]},
    }  # fmt: skip
    play = Play(steps).fail("f").done("b", 2)
    assert play.state("a", "c", "m", "w", "s", "p", "e", "late", "f", "d") == ["cancelled"] * 10
    assert play.state("j", "z") == ["completed", "skipped"]
    recalled = ("a", "c", "m--0", "m--1", "w", "p--plan", "h--10")
    assert {f"{name}.{token}" for token in recalled for name in ("do", "withdraw") if token != "w"} | {
        "child.w", "cancel-child.w",
    } == play.open  # fmt: skip
    play.done("a", 5).recalled("c", "m--0", "w", "p--plan").fail("h--10").done("m--1", 5)
    assert play.completed() == {"z": None, "j": {"b": 2}}


def test_what_was_called_off_is_not_recalled_again_when_the_run_is_cancelled():
    steps = {**RACE, "j": join("any", cancel_rest=True), "d": task("j")}
    play = Play(steps).done("b")
    assert [effect.name for effect in play.called] == ["withdraw.a", "withdraw.c", "do.d"]
    assert [effect.name for effect in play.cancel().called] == ["withdraw.d"]
    assert play.recalled("d", "a", "c").failed("cancelled")


# -- maps ----------------------------------------------------------------------------------------------------------------


def test_a_map_keeps_the_order_and_runs_so_many_at_a_time():
    play = Play({"m": task(kind="map", parallelism=2)}, [10, 20, 30])
    assert (play.open, play.given("m--1")) == ({"do.m--0", "do.m--1"}, 20)
    assert play.done("m--1", "b").open == {"do.m--0", "do.m--2"}
    play.done("m--1", "twice").done("m--2", "c").done("m--0", "a")
    assert play.completed() == ["a", "b", "c"]


def test_a_map_over_nothing_gives_nothing():
    assert Play({"m": task(kind="map")}, []).completed() == []


def test_each_item_may_be_mapped():
    play = Play(
        {"m": task(kind="map", items="input.l", input={"i": "item.x", "n": "index", "k": "input.k"})},
        {"l": [{"x": 5}], "k": 1},
    )
    assert play.given("m--0") == {"i": 5, "n": 0, "k": 1}
    bad = Play({"m": task(kind="map", input="abs(item)")}, [1, "x"])
    assert (bad.failed()["code"], bad.called[0].name) == ("flow.expression_failed", "end")


@pytest.mark.parametrize("value", [None, {}, "text", 5, True])
def test_a_map_needs_a_list(value):
    assert Play({"m": task(kind="map")}, value).failed()["code"] == "flow.not_a_list"


def test_a_map_refuses_too_many_items():
    assert Play({"m": task(kind="map", max_items=2)}, [1, 2]).open == {"do.m--0", "do.m--1"}
    assert Play({"m": task(kind="map", max_items=2)}, [1, 2, 3]).failed()["code"] == "flow.too_many_items"


@pytest.mark.parametrize(("allowed", "count", "fits"), [(0, 10, 0), (2, 10, 2), ("20%", 10, 2), ("29%", 10, 2), ("30%", 10, 3),
                                                       ("32.3%", 1000, 323), ("0.1%", 999, 0), ("100%", 3, 3)])  # fmt: skip
def test_so_many_items_may_fail(allowed, count, fits):
    steps = {"m": task(kind="map", allowed_failures=allowed, parallelism=1000)}
    play = Play(steps, list(range(count)))
    assert play.run.steps["m"].items.allowed == fits
    if count <= 10:
        for index in range(count):
            play.fail(f"m--{index}") if index < fits else play.done(f"m--{index}", index)
        assert play.completed() == [None] * fits + list(range(fits, count))


def test_one_failure_too_many_stops_the_items_and_the_first_of_them_is_told():
    play = Play({"m": task(kind="map", parallelism=3, allowed_failures=1)}, [0, 1, 2, 3, 4])
    play.fail("m--1").fail("m--0", {"code": "agent.failed", "message": "zero"})
    assert play.open == {f"{what}.m--{index}" for index in (2, 3) for what in ("do", "withdraw")}
    play.recalled("m--3").done("m--2")
    assert play.failed()["message"] == "Step m: Item 0: zero"


def test_a_map_that_fails_is_handled_and_what_was_before_it_is_undone():
    steps = {"a": task(compensate="u"), "m": task("a", kind="map", on_failure="h"), "h": task(), "u": task()}
    play = Play(steps).done("a", [1]).fail("m--0")
    assert play.given("h--1")["input"] == [1]
    assert play.done("h--1", []).completed() == []
    assert (
        Play(steps).done("a", [1]).fail("m--0").fail("h--1").done("u--0u").failed()["message"] == "Step m: Item 0: no"
    )


def test_a_map_whose_last_items_end_while_the_run_stops_is_done_and_undone():
    steps = {"m": task(kind="map", compensate="u"), "b": task(), "u": task()}
    play = Play(steps, [1, 2]).fail("b").done("m--0", "x")
    assert play.done("m--1", "y").given("u--0u") == {"step": "m", "input": [1, 2], "output": ["x", "y"]}
    play = Play(steps, [1, 2]).fail("b").done("m--0", "x").recalled("m--1")
    assert (play.state("m"), play.failed()["code"]) == (["cancelled"], "agent.failed")


# -- planners ------------------------------------------------------------------------------------------------------------


def plan(made, **more):
    return Play({"p": task(kind="planner", **more)}, {"n": 1}).done("p--plan", made)


def test_a_plan_is_run_and_gives_the_output_of_the_step():
    play = plan({"steps": {"a": {"capability": "work"}}, "output": "steps.a.output"})
    (child,) = play.called
    assert isinstance(child, StartChild)
    assert (child.token, child.made["name"], child.input) == ("p", "w-p", b'{"n": 1}')
    assert play.done("p", [1]).completed() == [1]
    assert plan({"steps": {"a": {"capability": "work"}}}).fail("p").failed()["detail"] == {"step": "p"}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("text", "no table with steps"),
        ({}, "no table with steps"),
        ({"steps": []}, "no table with steps"),
        ({"steps": {}}, "steps"),
        ({"steps": {"a": {"capability": "work"}}, "timeout": "1s"}, "say nothing of 'timeout'"),
        ({"steps": {"a": {"capability": "other"}}}, "the capability 'other'"),
        ({"steps": {"a": {"agent": "someone"}}}, "the agent 'someone'"),
        ({"steps": {"a": {"kind": "workflow", "workflow": "x"}}}, "a workflow"),
        ({"steps": {"a": {"kind": "planner", "capability": "work"}}}, "a planner"),
        ({"steps": {"a": {"kind": "signal", "signal": "x", "run": "'w9'"}}}, "a signal"),
        ({"steps": {"a": {"capability": "work", "boundary": "corporate"}}}, "the boundary 'corporate'"),
        ({"steps": {"a": {"capability": "work", "children": {"workflows": ["x"]}}}}, "`children`"),
        ({"steps": {"a": {"capability": "work", "depends_on": ["b"]}}}, "no step 'b'"),
        ({"steps": {"a": {"capability": "work", "depends_on": ["a"]}}}, "a → a"),
        ({"steps": {"A": {"capability": "work"}}}, "makes no sense"),
        ({"steps": {f"s{one}": {"capability": "work"} for one in range(4)}}, "4 steps, 3 at most"),
    ],
)
def test_what_a_plan_may_not_be(made, told):
    error = plan(made, max_steps=3).failed()
    assert (error["code"], told in error["message"]) == ("flow.bad_plan", True), error


def test_a_plan_may_use_what_its_planner_names_and_stays_in_its_boundary():
    made = {"steps": {"a": {"capability": "x"}, "s": {"kind": "sleep", "duration": 1}}}
    (child,) = plan(made, capabilities=["x"], boundary="personal").called
    assert child.made["steps"] == {
        "a": {"capability": "x", "boundary": "personal"},
        "s": {"kind": "sleep", "duration": 1},
    }
    assert plan({"steps": {"a": {"capability": "work"}}}, capabilities=["x"]).failed()["code"] == "flow.bad_plan"
    own = {"p": {"kind": "planner", "agent": "me"}}
    assert Play(own).done("p--plan", {"steps": {"a": {"agent": "me"}}}).open == {"child.p"}
    assert Play(own).done("p--plan", {"steps": {"a": {"agent": "you"}}}).failed()["code"] == "flow.bad_plan"


def test_the_name_of_a_plan_is_one_whatever_its_parts_are():
    name = "a-very-long-name-of-a-flow"
    play = Play({"a-long-step-name": task(kind="planner")})
    object.__setattr__(play.graph.workflow, "name", name)
    play.done("a-long-step-name--plan", {"steps": {"a": {"capability": "work"}}})
    assert play.called[0].made["name"] == "a-very-long-name-of-a-long-step"


def test_a_plan_that_comes_too_late_is_not_run():
    play = Play({"p": task(kind="planner", compensate="u"), "b": task(), "u": task()}).fail("b")
    play.done("p--plan", {"steps": {"a": {"capability": "work"}}})
    assert (play.state("p"), play.failed()["code"]) == (["cancelled"], "agent.failed")


def test_a_planner_that_fails_fails():
    assert Play({"p": task(kind="planner")}).fail("p--plan").failed()["message"] == "Step p: no"
