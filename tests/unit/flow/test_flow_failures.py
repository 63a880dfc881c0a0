"""What follows when a step fails, when a run is cancelled, and when handlers fail themselves."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.flow.play import ERROR, Play, task

from knotwork.flow import again, facts

SAGA = {
    "a": task(compensate="u"), "b": task("a", compensate="u"), "c": task("b"), "d": task(compensate="v"), "u": task(), "v": task(),
}  # fmt: skip


def test_a_failure_stops_the_others_and_names_its_step():
    play = Play({"a": task(), "b": task(), "c": task("a"), "e": {"kind": "approval", "timeout": "1m"}}).fail("a")
    assert play.open == {"do.b", "withdraw.b"}
    assert play.state("a", "b", "c", "e") == ["failed", "open", "cancelled", "cancelled"]
    error = play.recalled("b").failed()
    assert error == {"kind": "failed", "code": "agent.failed", "message": "Step a: no", "detail": {"step": "a"}}
    assert play.state("b") == ["cancelled"]


@pytest.mark.parametrize("state", ["failed", "dead", "timed-out", "cancelled"])
def test_however_an_attempt_ended_badly_the_step_failed(state):
    assert Play({"a": task()}).fail("a", None, state).failed()["code"] == "flow.step_cancelled"


@pytest.mark.parametrize("detail", ["text", [1], 5, None, {"x": 1}])
def test_what_a_worker_wrote_as_its_error_may_be_anything(detail):
    error = Play({"a": task()}).fail("a", {"message": 5, "detail": detail, "code": None}).failed()
    assert (error["message"], error["detail"]["step"]) == ("Step a: 5", "a")


def test_a_failure_deep_inside_names_the_way_to_it_once():
    error = Play({"a": task()}).fail("a").failed()
    for _ in range(7):
        play = Play({"a": {"kind": "workflow", "workflow": "w"}}).fail("a", error)
        error = play.failed()
    assert error["message"] == f"Step {' → '.join('a' * 8)}: no"
    spoken = {"kind": "failed", "code": "agent.failed", "message": "Step 1: look", "detail": {"step": 1}}
    assert Play({"a": task()}).fail("a", spoken).failed()["message"] == "Step a: Step 1: look"


def test_the_error_of_a_run_fits_into_its_end_however_much_was_said():
    much = {"kind": "failed", "code": "x", "message": "m" * 3_000_000, "detail": {"trace": "t" * 3_000_000}}
    play = Play(SAGA, on_failure="v").done("a").done("b").done("d").fail("c", much)
    play.fail("v--3u", much).fail("u--1u", much).fail("u--0u", much).fail("v--6", much)
    error = play.failed()
    assert len(msgspec.json.encode(error)) < 200_000
    assert error["message"].startswith("Step c: mmm")
    assert error["message"].endswith("m…")
    assert error["detail"]["step"] == "c"
    assert [one["step"] for one in error["detail"]["not_undone"]] == ["d", "b", "a"]
    assert {one["error"]["code"] for one in error["detail"]["not_undone"]} == {"x"}
    assert error["detail"]["handler_error"]["code"] == "x"


@pytest.mark.parametrize("odd", ["t" * 2_000_000, {"not_undone": [[], {}, {"step": 5, "error": "t" * 2_000_000}]}])
def test_what_is_too_large_of_a_workers_error_may_be_anything(odd):
    error = Play({"a": task()}).fail("a", {"message": "no", "code": 5, "detail": odd}).failed()
    assert (error["message"], error["detail"]["step"]) == ("Step a: no", "a")
    assert len(msgspec.json.encode(error)) < 1000


def test_only_the_first_failure_counts():
    assert Play({"a": task(), "b": task()}).fail("b").fail("a").failed()["detail"] == {"step": "b"}


def test_an_allowed_failure_gives_null():
    play = Play({"a": task(allow_failure=True), "b": task("a")}).fail("a")
    assert (play.state("a"), play.given("b")) == (["failed"], None)
    assert play.done("b", 1).completed() == 1


# -- handlers ------------------------------------------------------------------------------------------------------------


def test_a_handler_takes_the_place_of_the_step():
    play = Play({"a": task(on_failure="h"), "b": task("a"), "h": task()}, {"n": 1}).fail("a")
    assert play.state("a") == ["open"]
    assert play.given("h--0") == {"step": "a", "input": {"n": 1}, "error": ERROR}
    play.done("h--0", "mended")
    assert (play.state("a"), play.given("b")) == (["completed"], "mended")


def test_a_handler_that_fails_leaves_the_failure():
    play = Play({"a": task(on_failure="h"), "h": task()}).fail("a").fail("h--0", {"message": "worse"})
    assert play.failed()["detail"] == {"handler_error": {"message": "worse"}, "step": "a"}
    play = Play({"a": task(on_failure="h", allow_failure=True), "b": task("a"), "h": task()}).fail("a").fail("h--0")
    assert play.open == {"do.b"}


def test_one_handler_may_handle_several_steps():
    steps = {
        "a": task(on_failure="h"),
        "b": task(on_failure="h"),
        "h": task(kind="agent", prompt="see to {{ step }}: {{ error.code }}"),
    }
    play = Play(steps).fail("b").fail("a")
    assert play.given("h--0")["prompt"] == "see to a: agent.failed"
    assert play.done("h--1", "B").done("h--0", "A").completed() == {"a": "A", "b": "B"}


def test_a_handler_may_be_a_workflow_and_map_what_it_is_given():
    shape = ["step", "error.message", "input.n", "run.id", "steps.z.output"]
    steps = {"a": task("z", on_failure="h"), "z": task(), "h": {"kind": "workflow", "workflow": "x", "input": shape}}
    play = Play(steps, {"n": 1}).done("z", {"n": 2}).fail("a")
    assert play.given("h--0") == ["a", "no", 2, "w1", {"n": 2}], "`input` is that of the step"
    assert play.done("h--0", 5).completed() == 5


def test_a_handler_whose_input_cannot_be_worked_out_counts_as_failed():
    steps = {"a": task(on_failure="h", compensate="h"), "b": task("a"), "h": task(input="abs(step)")}
    assert Play(steps).fail("a").failed()["detail"]["handler_error"]["code"] == "flow.expression_failed"
    assert Play(steps).done("a").fail("b").failed()["detail"]["not_undone"][0]["step"] == "a"
    run = Play({"a": task(), "h": task(input="abs(run.id)")}, on_failure="h").fail("a")
    assert run.failed()["detail"]["handler_error"]["code"] == "flow.expression_failed"


def test_a_handler_must_fit_its_own_schema():
    steps = {"a": task(on_failure="h"), "h": task(output_schema={"type": "string"})}
    assert Play(steps).fail("a").done("h--0", "x").completed() == "x"
    assert Play(steps).fail("a").done("h--0", 5).failed()["detail"]["handler_error"]["code"] == "flow.schema"


def test_a_handler_is_recalled_when_the_run_fails_elsewhere():
    play = Play({"a": task(on_failure="h"), "b": task(), "h": task()}).fail("a").fail("b")
    assert play.open == {"do.h--0", "withdraw.h--0"}
    assert (play.recalled("h--0").failed()["detail"], play.state("a")) == ({"step": "b"}, ["failed"])


def test_the_handler_of_the_run_is_last_and_a_failing_one_is_told():
    play = Play({**SAGA, "h": task()}, on_failure="h").done("a").fail("b").recalled("d")
    assert play.open == {"do.u--0u"}
    play.done("u--0u")
    told = play.given("h--7")
    assert (told["run"], told["error"]["detail"]) == ("w1", {"step": "b"})
    assert play.fail("h--7", {"code": "x"}).failed()["detail"] == {"step": "b", "handler_error": {"code": "x"}}


# -- compensation --------------------------------------------------------------------------------------------------------


def test_what_was_completed_is_undone_in_the_reverse_order_one_at_a_time():
    play = Play(SAGA, "in").done("a", "A").done("d", "D").done("b", "B").fail("c")
    assert play.open == {"do.u--1u"}
    assert play.given("u--1u") == {"step": "b", "input": "A", "output": "B"}
    assert play.done("u--1u").open == {"do.v--3u"}
    assert play.fail("v--3u", {"code": "v"}).open == {"do.u--0u"}, "one that fails does not keep the others"
    assert play.done("u--0u").failed()["detail"] == {"step": "c", "not_undone": [{"step": "d", "error": {"code": "v"}}]}


def test_what_completes_while_the_run_stops_is_undone_too():
    play = Play(SAGA).done("a").fail("b").done("d")
    assert play.open == {"do.v--3u"}


def test_what_a_handler_completed_is_undone_too():
    steps = {"a": task(on_failure="h", compensate="u"), "b": task("a"), "h": task(), "u": task()}
    play = Play(steps).fail("a").done("h--0", "H").fail("b")
    assert play.given("u--0u")["output"] == "H"


@pytest.mark.parametrize(
    ("spec", "token"),
    [
        (task("a", kind="agent_loop"), "x"),
        ({"kind": "workflow", "workflow": "x", "depends_on": ["a"]}, "x"),
        ({"kind": "approval", "depends_on": ["a"]}, "x"),
        (task("a", kind="map"), "x--0"),
        (task("a", kind="planner"), "x--plan"),
    ],
)
def test_failures_of_all_kinds_undo(spec, token):
    play = Play({"a": task(compensate="u"), "x": spec, "u": task()}).done("a", [1]).fail(token)
    assert play.open == {"do.u--0u"}
    assert play.done("u--0u").failed()["detail"]["step"] == "x"


def test_a_run_that_is_done_again_takes_over_what_was_done_and_not_undone():
    steps = {
        "a": task(),
        "b": task("a", compensate="u"),
        "c": task("b"),
        "x": task("a"),
        "d": task("c", "x"),
        "u": task(),
    }
    play = Play(steps, 1).done("a", "A").done("b", "B").done("c", "C").done("x", "X").fail("d").done("u--1u")
    assert play.failed()
    given, left = again.taken_over(play.run)
    assert left == {}
    assert {name: bytes(end.output) for name, end in given.items()} == {"a": b'"A"', "x": b'"X"'}
    assert set(again.taken_over(play.run, "x")[0]) == {"a"}
    anew = Play(steps, 1, start={"given": given})
    assert anew.open == {"do.b"}
    anew.done("b", "B2").done("c", "C2")
    assert anew.given("d") == {"c": "C2", "x": "X"}
    kept = Play(steps, 1, start={"given": {**given, "b": facts.StepEnd("completed", msgspec.Raw(b"2"))}})
    assert kept.fail("c").given("u--1u") == {"step": "b", "input": "A", "output": 2}, (
        "what was taken over is undone, too"
    )


# -- cancelling ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_run_recalls_everything_and_undoes_nothing():
    steps = {
        **SAGA, "m": task(kind="map", parallelism=1), "w": {"kind": "workflow", "workflow": "x"}, "s": {"kind": "sleep", "duration": 5},
        "e": {"kind": "wait_for_event", "event": "x"}, "q": {"kind": "approval"}, "n": {"kind": "wait_for_signal", "signal": "x"},
        "k": {"kind": "workflow", "workflow": "x", "detach": True}, "r": {"kind": "respond"}, "p": task(kind="planner"),
    }  # fmt: skip
    play = Play(steps, [1, 2], on_failure="v", timeout="1h").done("a").cancel()
    tokens = ("b", "d", "m--0", "p--plan")
    assert play.open == {f"{what}.{token}" for token in tokens for what in ("do", "withdraw")} | {
        "child.w",
        "cancel-child.w",
    }
    assert play.recalled(*tokens, "w").failed("cancelled")["message"] == "It was cancelled by me: enough"
    assert play.state("a", "b", "m", "w", "s", "k") == ["completed", *["cancelled"] * 5]


def test_cancelling_while_the_run_is_undone_ends_it_at_once_as_it_would_have():
    play = Play({**SAGA, "h": task()}, on_failure="h").done("a").done("d").done("b").fail("c").cancel()
    assert play.open == {"do.u--1u", "withdraw.u--1u"}
    error = play.recalled("u--1u").failed()
    assert error["code"] == "agent.failed"
    assert [one["step"] for one in error["detail"]["not_undone"]] == ["b", "d", "a"]


def test_cancelling_while_a_failed_run_stops_undoes_nothing():
    play = Play(SAGA).done("a").fail("b").cancel()
    assert play.open == {"do.d", "withdraw.d"}
    assert [one["step"] for one in play.done("d").failed()["detail"]["not_undone"]] == ["d", "a"]


def test_cancelling_while_the_handler_of_the_run_works_recalls_it():
    play = Play({"a": task(), "h": task()}, on_failure="h").fail("a").cancel()
    assert play.open == {"do.h--2", "withdraw.h--2"}
    assert play.recalled("h--2").failed()["detail"]["step"] == "a"


def test_cancelling_while_a_failure_is_handled():
    play = Play({"a": task(on_failure="h"), "h": task()}).fail("a").cancel().recalled("h--0")
    assert (play.failed("cancelled")["code"], play.state("a")) == ("flow.cancelled", ["failed"])


def test_cancelling_before_the_start_is_seen_at_the_start():
    play = Play({"a": task()}).cancel()
    assert play.open == {"do.a", "withdraw.a"}


def test_a_paused_run_can_be_cancelled_and_failures_are_seen_to():
    assert Play({"a": task(), "b": task("a")}).fact("pause").done("a").cancel().failed("cancelled")
    play = Play({"a": task(compensate="u"), "b": task("a"), "u": task()}).done("a").fact("pause").fail("b")
    assert play.open == {"do.u--0u"}


# -- facts that change nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "about", "body"),
    [
        ("outcome", "a", facts.StepEnd("completed")),  # once more
        ("outcome", "zz", facts.StepEnd("completed")),
        ("outcome", "", facts.StepEnd("completed")),
        ("outcome", "b--0", facts.StepEnd("completed")),
        ("outcome", "b--²", facts.StepEnd("completed")),
        ("outcome", "b--plan", facts.StepEnd("completed")),
        ("outcome", "u--0u", facts.StepEnd("completed")),
        ("outcome", "b", None),
        ("outcome", "b", facts.Wish()),
        ("fired", "", None),
        ("fired", "run", None),
        ("fired", "sleep-b", None),
        ("signal", "x", None),
        ("start", "", facts.Start("w", "d")),
        ("resume", "", None),
        ("strange", "b", None),
        ("ended", "", None),
    ],
)
def test_facts_that_nobody_waits_for_change_nothing(what, about, body):
    play = Play(SAGA).done("a", 1)
    before = play.open
    assert play.fact(what, about, body).called == []
    assert play.open == before == {"do.b", "do.d"}


def test_after_its_end_nothing_changes_a_run_any_more():
    play = Play({"a": task()}).done("a", 1)
    assert play.open == {"end"}
    for _ in range(2):
        assert play.fail("a").cancel().fact("pause").called == []
    assert play.completed() == 1
    assert play.fact("ended", "", facts.Finish("completed")).open == set()
