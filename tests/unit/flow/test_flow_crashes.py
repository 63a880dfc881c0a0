"""An owner that crashes at any effect of a workflow with every kind of step changes nothing; no step costs more than the first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from tests.unit.flow.oracle import Oracle
from tests.unit.flow.programs import NEVER, Program
from tests.unit.flow.simulator import Owner, World

from knotwork.flow import decide, facts
from knotwork.flow.graph import graph
from knotwork.flow.model import AnyStep, Workflow
from knotwork.flow.run import begin

WORK = {"kind": "task", "capability": "work"}
EVERYTHING: dict[str, Any] = {
    "a": {**WORK, "compensate": "undo"},
    "told": {"kind": "agent", "agent": "n/someone", "prompt": "{{ input.word }}", "tools": ["t"], "depends_on": ["a"], "compensate": "undo"},
    "loop": {**WORK, "kind": "agent_loop", "depends_on": ["a"]},
    "each": {**WORK, "kind": "map", "items": "input.list", "parallelism": 2, "max_items": 3, "allowed_failures": 0,
             "depends_on": ["a"]},
    "inner": {"kind": "workflow", "workflow": "child", "depends_on": ["a"], "compensate": "undo"},
    "aside": {"kind": "workflow", "workflow": "child", "detach": True, "depends_on": ["a"]},
    "nap": {"kind": "sleep", "duration": "1h", "depends_on": ["loop"]},
    "event": {"kind": "wait_for_event", "event": "some.thing", "match": "event.n == input.n", "timeout": NEVER},
    "heard": {"kind": "wait_for_signal", "signal": "n-heard", "depends_on": ["a"]},
    "late": {"kind": "wait_for_signal", "signal": "late", "timeout": "1m", "on_timeout": "value", "timeout_value": 1},
    "told-it": {"kind": "signal", "signal": "ping", "run": "'wother'", "depends_on": ["heard"]},
    "agreed": {"kind": "approval", "depends_on": ["heard"]},
    "plan": {**WORK, "kind": "planner", "depends_on": ["event"]},
    "answer": {"kind": "respond", "depends_on": ["event"]},
    "which": {"kind": "choice", "depends_on": ["event"], "cases": [{"when": "input.flag", "then": ["yes"]}, {"then": ["no"]}]},
    "yes": {**WORK, "depends_on": ["which"]},
    "no": {**WORK, "depends_on": ["which"]},
    "slow": {**WORK, "depends_on": ["a"]},
    "first": {"kind": "join", "need": "any", "cancel_rest": True, "depends_on": ["yes", "slow"]},
    "broken": {**WORK, "depends_on": ["first"], "on_failure": "mend"},
    "anew": {"kind": "continue_as_new", "when": "input.again", "depends_on": ["event"],
             "input": {"word": "input.word", "n": "input.n", "flag": "input.flag", "list": "input.list"}},
    "mend": {**WORK, "input": {"step": "step"}},
    "undo": WORK,
    "all": {
        "kind": "join",
        "depends_on": ["told", "each", "inner", "aside", "nap", "late", "told-it", "agreed", "plan", "answer", "no", "broken"],
    },
}  # fmt: skip
CHILD = {"name": "child", "steps": {"one": WORK, "two": {**WORK, "depends_on": ["one"]}}}


def everything(*, fails: bool) -> Program:
    steps = {**EVERYTHING, "end": {**WORK, "depends_on": ["all"]}}
    made = Program(1, {"word": "w", "n": 1, "flag": True, "list": [1, 2, 3], "again": True})
    made.workflows = {"main": {"name": "main", "steps": steps, "on_failure": "mend"}, "child": CHILD}
    made.plans["", "plan--plan"] = {"steps": {"p1": WORK}}
    made.fates = {
        ("", "event"): "come", ("", "heard"): "come", ("", "agreed"): "come", ("", "slow"): "hang", ("", "broken"): "fail",
        ("", "late"): "never", ("", "end"): "fail" if fails else "ok",
    }  # fmt: skip
    return made


class Crashing(World):
    """A world in which one owner crashes at one effect."""

    at, after, count = -1, False, 0

    def do_one(self, owner: Owner) -> None:
        self.count += 1
        if self.count != self.at:
            super().do_one(owner)
        elif self.after:
            super().do_one(owner)
            owner.crash()
        else:
            owner.crash()


def ended(made: Program, at: int, *, after: bool) -> tuple[facts.Finish, int]:
    world = Crashing(made, 5, owners=1, faults=0)
    world.at, world.after = at, after
    world.run()
    finish = world.runs["wroot"].ended
    assert finish is not None
    if finish.next:
        assert (finish.next, list(world.runs).count(finish.next)) == (facts.chained("wroot", 1), 1)
        finish = world.runs[finish.next].ended
        assert finish is not None
        assert not finish.next
    for stored in world.runs.values():
        told = [(fact.what, fact.about) for fact in stored.facts if fact.what == "outcome"]
        assert len(told) == len(set(told))
    return finish, world.count


def test_it_has_every_kind_of_step():
    union = get_args(AnyStep)[0]
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(union)}
    assert {spec["kind"] for spec in EVERYTHING.values()} == kinds


@pytest.mark.parametrize("fails", [False, True])
def test_a_crash_at_any_effect_changes_nothing(fails):
    made = everything(fails=fails)
    verdict = Oracle(made, made.workflows["main"], made.input, "", "wroot").judge()
    if not fails:
        assert verdict.next == [{key: value for key, value in made.input.items() if key != "again"}]
        verdict = Oracle(made, made.workflows["main"], verdict.next[0], "", facts.chained("wroot", 1)).judge()
    calm, count = ended(made, -1, after=False)
    assert (calm.state, count > 30) == (verdict.state, True)
    assert msgspec.json.decode(bytes(calm.output)) == verdict.output
    for at in range(1, count + 1):
        for after in (False, True):
            finish, _ = ended(made, at, after=after)
            assert (finish.state, bytes(finish.output), finish.error) == (calm.state, bytes(calm.output), calm.error), (
                at
            )


def operations(work: Callable[[], None]) -> int:
    """Return how many operations of the interpreter some work takes: the same on any machine."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("shape", ["chain", "fan", "map"])
def test_no_step_costs_more_as_a_run_grows(shape):
    size = 2000
    steps: dict[str, Any] = {}
    for number in range(size):
        steps[f"s{number}"] = {**WORK, "depends_on": [f"s{number - 1}"] if number and shape == "chain" else []}
        if shape == "chain" and number:
            steps[f"s{number}"]["when"] = f"steps.s{number - 1}.output == input"
    if shape == "fan":
        steps["all"] = {"kind": "join", "need": size - 1, "depends_on": list(steps)}
    tokens = [f"s{number}" for number in range(size)]
    if shape == "map":
        steps = {"m": {**WORK, "kind": "map", "max_items": size, "parallelism": 50}}
        tokens = [f"m--{number}" for number in range(size)]
    made = graph(Workflow.model_validate({"name": "long", "steps": steps}))
    given = b"[%b]" % b",".join([b"1"] * size) if shape == "map" else b"1"
    run = begin("w1", made, facts.Start("long", "d", msgspec.Raw(given)), 1)
    decide.started(run)

    def take(first: int, last: int) -> None:
        for number in range(first, last):
            end = facts.StepEnd("completed", msgspec.Raw(b"1"))
            decide.advance(run, facts.Fact("outcome", tokens[number], end, number, number))

    early = operations(lambda: take(50, 150)) if take(0, 50) is None else 0
    take(150, size - 150)
    late = operations(lambda: take(size - 150, size - 50))
    take(size - 50, size)
    assert run.phase == "over"
    assert 10_000 < late <= 1.3 * early
