"""Definitions that make no sense: each has its own error, at its place, and none is a crash."""

from __future__ import annotations

import math
import time
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from knotwork.flow import checks, graph, source
from knotwork.flow.model import Workflow
from knotwork.sdk.errors import Invalid

WORK = {"capability": "work"}


def deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


def on(steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "w", "steps": steps, **more}


def one(**more: Any) -> dict[str, Any]:
    return on({"a": {**WORK, **more}})


def kind(name: str, **more: Any) -> dict[str, Any]:
    return on({"a": {"kind": name, **more}})


SHAPES: list[tuple[Any, str, str]] = [
    # what the model refuses: the definition, where, what is told
    (None, "", "valid dictionary"),
    ([], "", "valid dictionary"),
    ({}, "name", "required"),
    ({"name": "w"}, "steps", "required"),
    (on({}), "steps", "at least 1"),
    (on([]), "steps", "valid dictionary"),
    (on({"a": None}), "steps.a", "dict"),
    (on({"a": 5}), "steps.a", "dict"),
    (on({"A": WORK}), "steps.A.[key]", "match pattern"),
    (on({"a--b": WORK}), "steps.a--b.[key]", "match pattern"),
    (on({"a" * 33: WORK}), f"steps.{'a' * 33}.[key]", "at most 32"),
    (on({"a b": WORK}), "steps.a b.[key]", "match pattern"),
    (on({"a": WORK}, name="W"), "name", "match pattern"),
    (on({"a": WORK}, name="w\n"), "name", "match pattern"),
    (on({"a": WORK}, nmae="w"), "nmae", "not permitted"),
    (on({"a": WORK}, priority=11), "priority", "less than or equal to 10"),
    (on({"a": WORK}, max_parallel=-1), "max_parallel", "greater than or equal to 0"),
    (on({"a": WORK}, timeout="soon"), "timeout", "write a duration as"),
    (on({"a": WORK}, timeout=0), "timeout", "greater than 0"),
    (on({"a": WORK}, timeout=True), "timeout", "write a duration as"),
    (on({"a": WORK}, timeout=math.nan), "timeout", "finite number"),
    (on({"a": WORK}, timeout="9999d"), "timeout", "less than or equal"),
    (on({"a": WORK}, retry={"max_attempts": 0}), "retry.max_attempts", "greater than or equal to 1"),
    (on({"a": WORK}, retry={"backoff": "never"}), "retry.backoff", "'fixed', 'linear' or 'exponential'"),
    (kind("nonsense"), "steps.a", "does not match any of the expected tags"),
    (kind([]), "steps.a", "tag"),
    (on({"a": {}}), "steps.a.task", "name a capability or an agent"),
    (one(agent="x"), "steps.a.task", "one of the two"),
    (on({"a": {"capability": "Bad Name"}}), "steps.a.task.capability", "match pattern"),
    (on({"a": {"agent": "a/b/c"}}), "steps.a.task.agent", "match pattern"),
    (one(depends="b"), "steps.a.task.depends", "not permitted"),
    (one(depends_on="b"), "steps.a.task.depends_on", "valid tuple"),
    (one(when=""), "steps.a.task.when", "at least 1"),
    (one(when="a" * 4097), "steps.a.task.when", "at most 4096"),
    (one(retry={"max_attempts": 1001}), "steps.a.task.retry.max_attempts", "less than or equal to 1000"),
    (
        one(kind="map", allowed_failures=-1),
        "steps.a.map.allowed_failures.constrained-int",
        "greater than or equal to 0",
    ),
    (one(kind="map", allowed_failures="101%"), "steps.a.map.allowed_failures.constrained-str", "match pattern"),
    (one(kind="map", parallelism=0), "steps.a.map.parallelism", "greater than or equal to 1"),
    (one(kind="map", max_items=10_001), "steps.a.map.max_items", "less than or equal to 10000"),
    (one(kind="agent_loop", max_iterations=0), "steps.a.agent_loop.max_iterations", "greater than or equal to 1"),
    (one(kind="agent_loop", budget={"x": math.inf}), "steps.a.agent_loop.budget.x", "finite"),
    (one(kind="agent_loop", budget={"tokens": -5}), "steps.a.agent_loop.budget.tokens", "greater than or equal to 0"),
    (one(kind="agent"), "steps.a.agent.prompt", "required"),
    (kind("workflow"), "steps.a.workflow.workflow", "required"),
    (kind("sleep"), "steps.a.sleep", "name one of duration, until and cron"),
    (kind("sleep", duration=1, cron="* * * * *"), "steps.a.sleep", "name one of duration, until and cron"),
    (kind("wait_for_event", event="Not An Event"), "steps.a.wait_for_event.event", "match pattern"),
    (kind("wait_for_event", event="a.*"), "steps.a.wait_for_event.event", "match pattern"),
    (kind("approval", on_timeout="shrug"), "steps.a.approval.on_timeout", "'fail' or 'value'"),
    (kind("respond", status=99), "steps.a.respond.status", "greater than or equal to 200"),
    (kind("choice", cases=[]), "steps.a.choice.cases", "at least 1"),
    (kind("join", need=0), "steps.a.join.need.constrained-int", "greater than or equal to 1"),
    (one(kind="planner", max_steps=1001), "steps.a.planner.max_steps", "less than or equal to 1000"),
]
PROBLEMS: list[tuple[dict[str, Any], str, str]] = [
    # what makes no sense: the definition, where, what is told
    (on({"task": WORK}), "steps.task", "no step can be called 'task'"),
    (one(depends_on=["b"]), "steps.a.depends_on.0", "there is no step 'b'"),
    (on({"build": WORK, "b": {**WORK, "depends_on": ["biuld"]}}), "steps.b.depends_on.0", "did you mean 'build'?"),
    (one(depends_on=["a"]), "steps.a.depends_on", "steps wait for each other: a → a"),
    (on({"a": {**WORK, "depends_on": ["c"]}, "b": {**WORK, "depends_on": ["a"]}, "c": {**WORK, "depends_on": ["b"]}}),
     "steps.a.depends_on", "steps wait for each other: a → c → b → a"),
    (one(on_failure="h"), "steps.a.on_failure", "there is no step 'h'"),
    (one(compensate="h"), "steps.a.compensate", "there is no step 'h'"),
    (on({"a": WORK}, on_failure="h"), "on_failure", "there is no step 'h'"),
    (kind("choice", cases=[{"then": ["b"]}]), "steps.a.cases.0.then.0", "there is no step 'b'"),
    (one(on_failure="a"), "steps", "no step begins"),
    (on({"a": {**WORK, "on_failure": "h"}, "h": {"kind": "sleep", "duration": 1}}), "steps.h.kind", "a step of the kind sleep cannot handle a failure"),
    (on({"a": {**WORK, "on_failure": "h"}, "h": {**WORK, "depends_on": ["a"]}}), "steps.h.depends_on", "stands alone"),
    (on({"a": {**WORK, "on_failure": "h"}, "h": {**WORK, "when": "input"}}), "steps.h.when", "stands alone"),
    (on({"a": {**WORK, "on_failure": "h"}, "h": {**WORK, "on_failure": "k"}, "k": WORK}), "steps.h.on_failure", "stands alone"),
    (on({"a": {**WORK, "on_failure": "h"}, "h": {**WORK, "compensate": "k"}, "k": WORK}), "steps.h.compensate", "stands alone"),
    (on({"a": {**WORK, "compensate": "h"}, "h": {**WORK, "allow_failure": True}}), "steps.h.allow_failure", "stands alone"),
    (on({"a": {**WORK, "compensate": "h"}, "h": {"kind": "workflow", "workflow": "x", "detach": True}}), "steps.h.detach",
     "must be waited for"),
    (on({"a": {**WORK, "compensate": "h"}, "h": WORK, "b": {**WORK, "depends_on": ["h"]}}), "steps.b.depends_on.0",
     "'h' only runs when something failed"),
    (one(when="a.b"), "steps.a.when", "'a' is not there to be looked at"),
    (one(when="a..b"), "steps.a.when", "is no expression"),
    (one(when="(" * 2000), "steps.a.when", "nested too deeply"),
    (one(when="a|" * 2000 + "a"), "steps.a.when", "nested too deeply"),
    (one(input="[@,@]|" * 30 + "@"), "steps.a.input", "repeats what it looks at too often"),
    (one(when="`true`"), "steps.a.when", "it is always the same"),
    (one(when="@.input"), "steps.a.when", "'@' is not there to be looked at"),
    (one(when="nofunc(input.x)"), "steps.a.when", "there is no function nofunc()"),
    (one(when="input.x && lenght(input.x)"), "steps.a.when", "did you mean length()?"),
    (one(input={"x": "input[?contains(@)]"}), "steps.a.input.x", "contains() takes 2, and is given 1"),
    (one(when="not_null()"), "steps.a.when", "not_null() takes 1 or more, and is given 0"),
    (one(when="steps.b.output"), "steps.a.when", "there is no step 'b'"),
    (on({"build": WORK, "a": {**WORK, "when": "steps.biuld.output"}}), "steps.a.when", "did you mean 'build'?"),
    (one(sticky={"step": "b"}), "steps.a.sticky.step", "there is no step 'b'"),
    (on({"a": WORK, "b": {**WORK, "when": "steps.a.output"}}), "steps.b.when", "the step 'a' may not have ended"),
    (one(input="steps"), "steps.a.input", "it must name the step that it looks at"),
    (one(input={"x": ["hello"]}), "steps.a.input.x.0", "'hello' is not there to be looked at"),
    (one(input="item"), "steps.a.input", "'item' is not there to be looked at"),
    (one(input="error.code"), "steps.a.input", "'error' is not there to be looked at"),
    (one(input=""), "steps.a.input", "is no expression"),
    (one(input=date(2026, 1, 1)), "steps.a.input", "is no JSON value"),
    (one(input={"x": math.nan}), "steps.a.input.x", "is no JSON value"),
    (one(input={"x": b"x"}), "steps.a.input.x", "is no JSON value"),
    (one(input={1: "input"}), "steps.a.input", "the key 1 is no text"),
    (one(input="\ud800"), "steps.a.input", "is no JSON value"),
    (one(input=deep(200)), "steps.a.input.0.0.0.0.0", "nested too deeply"),
    (one(kind="agent", prompt="{{ nope }}"), "steps.a.prompt", "'nope' is not there to be looked at"),
    (one(kind="agent", prompt="{{}}"), "steps.a.prompt", "is no expression"),
    (one(kind="map", items="steps.b.output"), "steps.a.items", "there is no step 'b'"),
    (kind("sleep", until="tomorrow"), "steps.a.until", "'tomorrow' is not there to be looked at"),
    (kind("sleep", cron="* * *"), "steps.a.cron", "is no time"),
    (kind("sleep", cron="0 0 30 2 *"), "steps.a.cron", "is no time"),
    (kind("sleep", cron="* * * * *", timezone="Mars/Base"), "steps.a.timezone", "'Mars/Base'"),
    (kind("wait_for_event", event="x", match="evnt.id"), "steps.a.match", "'evnt' is not there to be looked at"),
    (kind("wait_for_event", event="x", on_timeout="value"), "steps.a.on_timeout", "it never times out"),
    (kind("approval", timeout=1, timeout_value=5), "steps.a.timeout_value", "it is never used"),
    (kind("signal", signal="x", run="w123"), "steps.a.run", "'w123' is not there to be looked at"),
    (kind("join"), "steps.a.depends_on", "a join needs steps to wait for"),
    (on({"a": WORK, "j": {"kind": "join", "depends_on": ["a", "a"], "need": 2}}), "steps.j.need", "it can never have 2 of 1 steps"),
    (on({"c": {"kind": "choice", "cases": [{"then": ["a"]}]}, "a": WORK}), "steps.c.cases.0.then.0", "does not depend on this choice"),
    (kind("choice", cases=[{}, {"when": "input"}]), "steps.a.cases.1", "it can never be reached"),
    (kind("choice", cases=[{"when": "`1`"}]), "steps.a.cases.0.when", "it is always the same"),
    (one(output_schema={"type": "nonsense"}), "steps.a.output_schema", "it is no JSON Schema"),
    (one(output_schema={"pattern": "("}), "steps.a.output_schema", "the pattern '('"),
    (one(output_schema={"properties": {"x": {"$ref": "#/$defs/y"}}}), "steps.a.output_schema", "it refers to '#/$defs/y'"),
    (one(output_schema={"$ref": "http://127.0.0.1:1/x"}), "steps.a.output_schema", "it refers to 'http://127.0.0.1:1/x'"),
    (one(output_schema={"const": date(2026, 1, 1)}), "steps.a.output_schema.const", "is no JSON value"),
    (on({"a": WORK}, input_schema={"required": 5}), "input_schema", "it is no JSON Schema"),
    (on({"a": WORK}, output_schema={"patternProperties": {"[": {}}}), "output_schema", "the pattern '['"),
    (on({"a": WORK}, output={"x": "steps.b.output"}), "output.x", "there is no step 'b'"),
    (on({"a": {**WORK, "on_failure": "h"}, "h": WORK}, output="steps.h.output"), "output", "the step 'h' may not have ended"),
    (on({"a": WORK}, output="error"), "output", "'error' is not there to be looked at"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "where", "told"), SHAPES)
def test_what_is_no_workflow(made, where, told):
    with pytest.raises(ValidationError) as caught:
        Workflow.model_validate(made)
    found = {".".join(map(str, one["loc"])): one["msg"] for one in caught.value.errors()}
    assert where in found, found
    assert told in found[where]


@pytest.mark.parametrize(("made", "where", "told"), PROBLEMS)
def test_what_makes_no_sense(made, where, told):
    workflow = Workflow.model_validate(made)
    found: dict[str, str] = {}
    for problem in graph.check(workflow):
        place = ".".join(map(str, problem.path))
        found[place] = f"{found.get(place, '')} {problem.message}"
    assert where in found, found
    assert told in found[where]
    with pytest.raises(Invalid) as caught:
        graph.graph(workflow)
    assert caught.value.code == "flow.bad_workflow"


def test_there_are_many_and_each_has_its_own_error():
    assert len(SHAPES) + len(PROBLEMS) >= 100


def test_everything_is_told_at_once():
    made = on({"a": {**WORK, "when": "x"}, "b": {"kind": "join"}, "c": {"kind": "sleep", "cron": "x"}}, output="y")
    assert len(graph.check(Workflow.model_validate(made))) == 4


def test_what_makes_sense_has_no_problems():
    steps = {
        "a": {**WORK, "compensate": "h", "input": {"x": "input", "y": 5}},
        "b": {**WORK, "depends_on": ["a"], "when": 'steps."a".output.x', "on_failure": "h"},
        "m": {
            **WORK,
            "kind": "map",
            "items": "steps.a.output",
            "depends_on": ["b"],
            "input": ["item", "index", "steps.b.output"],
        },
        "h": {
            "kind": "agent",
            "agent": "n/x",
            "prompt": "{{ error.code }} {{ output }} {{ step }} {{ steps.b.output }}",
        },
    }
    made = graph.graph(
        Workflow.model_validate(
            on(steps, output="steps.m.output", output_schema={"$ref": "#/$defs/x", "$defs": {"x": {}}})
        )
    )
    assert (made.roots, made.ends, made.handlers) == (("a",), ("m",), {"h"})


def test_thousands_of_steps_are_checked_in_no_time():
    steps = {f"s{n}": {**WORK, "depends_on": [f"s{p}" for p in range(max(0, n - 20), n)], "when": f"steps.s{n // 2}.output" if n else None}
             for n in range(4000)}  # fmt: skip
    began_s = time.process_time()
    assert graph.check(Workflow.model_validate(on(steps))) == []
    wrong = {f"s{n}": {**WORK, "depends_on": [f"t{n}"]} for n in range(4000)}
    assert len(graph.check(Workflow.model_validate(on(wrong)))) == 4000
    assert time.process_time() - began_s < 20


# -- fuzz ----------------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "h", "A", "", "task", "a--b", "x" * 40])
TEXTS = st.sampled_from(
    [
        "input.x",
        "steps.a.output",
        "steps",
        "@",
        "((",
        "a..b",
        "",
        "'t'",
        "item",
        "{{ x }}",
        "30s",
        "* * * * *",
        "\ud800",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | NAMES | st.dates() | st.binary(max_size=3)
ANY = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.integers(), inner, max_size=3),
    max_leaves=6,
)
KINDS = [spec["kind"] for made, *_ in SHAPES + PROBLEMS if isinstance(made, dict) and isinstance(made.get("steps"), dict)
         for spec in made["steps"].values() if isinstance(spec, dict) and isinstance(spec.get("kind"), str)]  # fmt: skip
KEYS = sorted(
    {field for union in (Workflow, *checks.model.AnyStep.__origin__.__args__) for field in union.model_fields}
)
FIT = st.fixed_dictionaries(
    {}, optional={"kind": st.sampled_from(sorted(set(KINDS))), "capability": st.just("work"), "depends_on": st.lists(NAMES, max_size=2),
                  "when": TEXTS, "input": ANY, "on_failure": NAMES, "compensate": NAMES, "cases": st.lists(st.fixed_dictionaries(
                      {}, optional={"when": TEXTS, "then": st.lists(NAMES, max_size=2)}), max_size=2), "prompt": TEXTS, "cron": TEXTS,
                  "until": TEXTS, "event": st.just("x"), "signal": st.just("x"), "run": TEXTS, "output_schema": ANY, "items": TEXTS,
                  "workflow": NAMES, "match": TEXTS, "timeout": LEAVES, "timeout_value": ANY})  # fmt: skip
STEPS = FIT | st.dictionaries(st.sampled_from(KEYS), ANY, max_size=4) | ANY
WORKFLOWS = st.builds(
    lambda steps, more: {"name": "w", "steps": steps, **more},
    st.dictionaries(NAMES, STEPS, max_size=4) | ANY,
    st.dictionaries(st.sampled_from(KEYS), ANY, max_size=2),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(WORKFLOWS | ANY)
def test_anything_is_a_workflow_or_refused(made):
    try:
        workflow = Workflow.model_validate(made)
    except ValidationError:
        return
    problems = graph.check(workflow)
    assert all(one.message and isinstance(one.path, tuple) for one in problems)
    if not problems:
        graph.graph(workflow)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(WORKFLOWS | ANY)
def test_whatever_it_is_there_is_a_workflow_or_something_is_told(made):
    checked = source.check(made)
    assert (checked.workflow is None) == bool(checked.flaws)
    assert all(flaw.message for flaw in checked.flaws)
