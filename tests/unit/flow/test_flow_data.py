"""What goes into a step, which steps are skipped, and what comes out of a run."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.unit.flow.play import Play, task

from knotwork.flow import anew, facts
from knotwork.flow.effects import Dispatch, HoldChild, Respond, SendSignal, StartChild
from knotwork.flow.facts import Start, StepEnd
from knotwork.flow.run import begin


def test_by_default_the_runs_input_the_parents_output_or_those_of_all_by_their_ids():
    play = Play({"a": task(), "b": task("a"), "c": task("a"), "d": task("b", "c")}, {"n": 1})
    assert play.open == {"do.a"}
    assert play.given("a") == {"n": 1}
    play.done("a", [1])
    assert (play.given("b"), play.given("c")) == ([1], [1])
    play.done("c", "C").done("b", "B")
    assert play.given("d") == {"b": "B", "c": "C"}
    assert play.done("d", 5).completed() == 5


def test_a_mapping_may_be_nested_and_hold_what_is_no_text():
    shape = {"x": ["input.n", {"y": "steps.a.output.z"}], "c": 1.5, "no": None, "t": True, "e": {}, "l": [], "s": "'s'"}
    play = Play({"a": task(), "b": task("a", input=shape)}, {"n": 7}).done("a", {"z": "Z"})
    assert play.given("b") == {"x": [7, {"y": "Z"}], "c": 1.5, "no": None, "t": True, "e": {}, "l": [], "s": "s"}


def test_expressions_see_the_run_and_how_steps_ended():
    play = Play(
        {
            "a": task(allow_failure=True),
            "b": task("a", input=["run.id", "run.workflow", "steps.a.state", "steps.a.error.code"]),
        }
    )
    assert play.fail("a").given("b") == ["w1", "w", "failed", "agent.failed"]


def test_outputs_of_several_ends_are_an_object_and_a_skipped_one_is_null():
    play = Play({"a": task(), "b": task(), "c": task(when="input.x")}, {})
    assert play.done("a", 1).done("b", 2).completed() == {"a": 1, "b": 2, "c": None}


def test_an_output_mapping_and_schema():
    steps = {"a": task(), "b": task()}
    play = Play(steps, {"n": 1}, output={"sum": ["steps.a.output", "input.n"]}, output_schema={"required": ["sum"]})
    assert play.done("a", 5).done("b").completed() == {"sum": [5, 1]}
    error = Play({"a": task()}, output_schema={"type": "string"}).done("a", 5).failed()
    assert (error["code"], "5 is not of type" in error["message"]) == ("flow.schema", True)
    assert (
        Play({"a": task()}, output="length(steps.a.output)").done("a", 5).failed()["code"] == "flow.expression_failed"
    )


def test_an_input_that_does_not_fit_fails_the_run_whoever_started_it():
    play = Play(
        {"a": task(), "h": task()}, {"n": "x"}, input_schema={"properties": {"n": {"type": "number"}}}, on_failure="h"
    )
    assert play.open == {"do.h--2"}
    assert play.done("h--2").failed()["code"] == "flow.schema"
    assert Play({"a": task()}, {"n": 1}, input_schema={"required": ["n"]}, timeout="1m").open == {"timer.run", "do.a"}


def test_an_output_that_does_not_fit_fails_the_step():
    play = Play({"a": task(output_schema={"type": "object"}, on_failure="h"), "h": task()})
    play.done("a", 3)
    assert play.given("h--0")["error"]["code"] == "flow.schema"
    assert play.done("h--0", 4).failed()["code"] == "flow.schema", "in its place means: it must fit as well"


def test_a_run_that_can_only_fail_at_its_output_is_undone():
    play = Play({"a": task(compensate="u"), "u": task()}, output_schema={"type": "string"})
    assert play.done("a", 5).open == {"do.u--0u"}
    assert play.done("u--0u").failed()["code"] == "flow.schema"


# -- which steps go on ---------------------------------------------------------------------------------------------------


def test_skips_pass_on_until_a_step_that_has_another_parent():
    steps = {"a": task(when="input.go"), "b": task("a"), "c": task("b"), "d": task(), "e": task("c", "d")}
    play = Play(steps, {"go": False})
    assert play.state("a", "b", "c", "e") == ["skipped", "skipped", "skipped", "blocked"]
    assert play.done("d", 1).given("e") == {"c": None, "d": 1}
    play.done("e", 2)
    assert play.completed() == 2


@pytest.mark.parametrize(
    ("value", "goes"),
    [
        (0, True),
        ("x", True),
        ([0], True),
        (True, True),
        (False, False),
        ("", False),
        ([], False),
        ({}, False),
        (None, False),
    ],
)
def test_what_counts_as_true(value, goes):
    assert Play({"a": task(when="input.x")}, {"x": value}).open == ({"do.a"} if goes else {"end"})


def test_a_condition_that_cannot_be_worked_out_fails_the_step():
    assert Play({"a": task(when="abs(input)")}, "x").failed()["detail"] == {"step": "a"}
    play = Play({"a": task(when="abs(input)", allow_failure=True), "b": task("a")}, "x")
    assert (play.state("a"), play.given("b")) == (["failed"], None)


CHOICE = {
    "which": {
        "kind": "choice",
        "cases": [
            {"when": "input.n > `5`", "then": ["big"]},
            {"when": "input.n > `2`", "then": ["mid", "both"]},
            {"then": ["low"]},
        ],
    },
    "big": task("which"),
    "mid": task("which"),
    "low": task("which"),
    "both": task("which"),
    "always": task("which"),
    "end": task("big", "mid", "low"),
}


@pytest.mark.parametrize(("n", "goes"), [(9, {"big"}), (3, {"mid", "both"}), (1, {"low"})])
def test_a_choice_goes_on_with_the_first_case_that_is_true(n, goes):
    play = Play(CHOICE, {"n": n})
    assert play.open == {f"do.{one}" for one in (*goes, "always")}
    assert play.given("always") == {"n": n}
    for one in goes:
        play.done(one, one)
    assert set(play.given("end")) == {"big", "mid", "low"}


def test_a_choice_without_a_case_that_is_true_goes_on_with_none_of_them():
    steps = {
        **CHOICE,
        "which": {"kind": "choice", "cases": [{"when": "input.n > `5`", "then": ["big", "mid", "low", "both"]}]},
    }
    play = Play(steps, {"n": 1})
    assert play.open == {"do.always"}
    assert play.state("end") == ["skipped"]


@pytest.mark.parametrize("how", [{"when": "input.no"}, {"allow_failure": True, "input": "abs(input.s)"}])
def test_a_choice_that_was_skipped_or_failed_chose_nothing(how):
    steps = {
        "which": {"kind": "choice", "cases": [{"when": "input.s", "then": ["a"]}], **how},
        "other": task(),
        "a": task("which", "other"),
        "b": task("which", "other"),
    }
    play = Play(steps, {"s": "x"}).done("other")
    assert (play.state("a"), play.open) == (["skipped"], {"do.b"})


# -- kinds ---------------------------------------------------------------------------------------------------------------


def test_an_agent_is_told_what_its_prompt_says():
    prompt = "{{ input.a }} and {{input.b}} of {{ steps.x.output }}; {{ {not: closed"
    play = Play(
        {"x": task(), "a": task("x", kind="agent", prompt=prompt, tools=["t"])}, {"a": "A", "b": [1, {"c": None}]}
    )
    play.done("x", "é")
    assert play.given("a") == {"prompt": 'A and [1,{"c":null}] of é; {{ {not: closed', "tools": ["t"], "input": "é"}


def test_a_prompt_that_cannot_be_filled_in_fails_the_step():
    assert Play({"a": task(kind="agent", prompt="{{ abs(input) }}")}, "x").failed()["code"] == "flow.expression_failed"


def test_an_answer_and_a_signal_carry_their_input_and_give_it_on():
    play = Play({"r": {"kind": "respond", "status": 201}, "s": {"kind": "signal", "signal": "go", "run": "input.to", "depends_on": ["r"]}},
                {"to": "w2"})  # fmt: skip
    assert play.called == [Respond("r", 201, b'{"to": "w2"}')]
    play.done("r", {"to": "w2"})
    assert play.called == [SendSignal("s", "w2", "go", b'{"to": "w2"}')]
    assert play.done("s", 1).completed() == 1
    bad = Play({"s": {"kind": "signal", "signal": "go", "run": "input.to"}}, {"to": 5})
    assert bad.failed()["code"] == "flow.expression_failed"


def test_a_run_of_another_workflow_is_awaited_unless_it_is_detached():
    play = Play(
        {"a": {"kind": "workflow", "workflow": "x"}, "b": {"kind": "workflow", "workflow": "x", "detach": True}}, 5
    )
    assert play.called == [StartChild("a", "x", b"5"), StartChild("b", "x", b"5", detach=True)]
    assert play.run.awaited == 1
    play.done("b", {"run": "w9"}).done("a", 6)
    assert play.completed() == {"a": 6, "b": {"run": "w9"}}


def test_large_values_pass_by_reference_where_nobody_looks_and_are_known_to_be_needed_where_somebody_does():
    steps = {
        "a": task(), "b": task("a"), "c": task("b", input="steps.b.output"), "d": task("c"),
        "e": task("d", kind="agent", prompt="p"), "f": task("e", compensate="u"), "u": task(),
        "g": task("f", output_schema={}), "h": {"kind": "join", "depends_on": ["g"]}, "i": task("h"), "j": task("i", "h"),
    }  # fmt: skip
    play = Play(steps)
    assert play.graph.looked_at == {"b", "d", "e", "f", "g", "i", "h"}
    pause = {"kind": "sleep", "duration": 1}
    passed = {
        "a": task(),
        "s": {**pause, "depends_on": ["a"]},
        "t": {**pause, "depends_on": ["s"]},
        "b": task("t", when="steps.t.output"),
    }
    assert Play(passed).graph.looked_at == {"a", "s", "t"}
    run = begin("w2", play.graph, Start("w", "d", msgspec.Raw(b"null")), 1)
    assert run.left == len(steps) - 1
    play.fact("outcome", "a", StepEnd("completed", blob="digest"))
    effect = play.run.open["do.b"]
    assert isinstance(effect, Dispatch)
    assert (effect.blob, json.loads(effect.input)) == ("digest", None)


# -- how many at a time --------------------------------------------------------------------------------------------------


def test_no_more_steps_run_than_may():
    play = Play({one: task() for one in "abcd"}, max_parallel=2)
    assert play.open == {"do.a", "do.b"}
    assert play.done("a").open == {"do.b", "do.c"}
    play.done("b").done("c")
    assert play.open == {"do.d"}


def test_choices_and_joins_need_no_place():
    steps = {
        "a": task(),
        "hang": {"kind": "wait_for_signal", "signal": "s"},
        "rest": task(),
        "j": {"kind": "join", "need": "any", "cancel_rest": True, "depends_on": ["a", "hang"]},
    }
    play = Play(steps, max_parallel=2).done("a", 1)
    assert play.state("hang", "j") == ["cancelled", "completed"]


def test_a_pause_begins_nothing_new_and_ends_with_resume():
    play = Play({"a": task(), "b": task("a"), "m": task(kind="map", parallelism=1)}, [1, 2])
    play.fact("pause").done("a", [3]).done("m--0", 1)
    assert play.open == set()
    assert play.fact("pause").fact("resume").open == {"do.b", "do.m--1"}
    play.fact("pause").done("m--1", 2).done("b", 3)
    assert play.completed() == {"b": 3, "m": [1, 2]}, "what has begun comes to its end"


def test_attached_runs_are_held_and_let_go_with_the_run_that_started_them():
    inner = {"kind": "workflow", "workflow": "x"}
    steps = {
        "a": inner,
        "p": task(kind="planner"),
        "d": {**inner, "detach": True},
        "f": task(on_failure="h"),
        "h": inner,
    }
    play = Play(steps).fail("f").fact("pause")
    handler = next(name for name in play.open if name.startswith("child.h--"))
    assert play.called == [HoldChild("a", True, play.run.place)], "a detached one goes on, and so do handlers"
    plan = play.done("p--plan", {"steps": {"one": {"capability": "work"}}}).run.open["child.p"]
    assert isinstance(plan, StartChild)
    assert plan.paused
    place = play.fact("resume").run.place
    assert play.called == [HoldChild("a", False, place), HoldChild("p", False, place)]
    play.done("a").done("p").done("d").done(handler.removeprefix("child."))
    assert play.completed() == {"a": None, "p": None, "d": None, "f": None}


def test_a_cancelled_run_holds_nothing():
    play = Play({"a": {"kind": "workflow", "workflow": "x"}}).cancel().fact("pause").fact("resume")
    assert play.open == {"child.a", "cancel-child.a"}


def test_what_a_parent_wished_before_its_last_wish_is_past():
    play = Play({"a": task(), "b": task("a")})
    play.fact("resume", "", facts.Wish(order=9)).fact("pause", "", facts.Wish(order=5)).done("a")
    assert play.open == {"do.b"}, "it came late"
    play.fact("pause", "", facts.Wish()).fact("resume", "", facts.Wish(order=9))
    assert play.run.paused, "people are heard whenever they speak, and one wish counts once"
    assert not play.fact("resume", "", facts.Wish(order=10)).run.paused


def test_a_run_that_goes_on_for_another_knows_what_that_heard():
    steps = {"a": task(), "again": {"kind": "continue_as_new", "depends_on": ["a"]}}
    play = Play(steps, start={"paused": True})
    assert play.open == set()
    play.fact("resume", "", facts.Wish(order=9)).done("a")
    _, start = anew.started("w1", play.start, play.end.anew, "d")
    assert (start.paused, start.heard) == (False, 9)
    assert Play(steps, start={"heard": 9}).fact("pause", "", facts.Wish(order=9)).open == {"do.a"}
