"""Whatever facts there are, in whatever order: nothing raises, the books balance, and the same facts give the same run."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.test_flow_crashes import EVERYTHING

from knotwork.flow import decide, facts
from knotwork.flow.effects import is_awaited
from knotwork.flow.graph import graph
from knotwork.flow.model import Workflow
from knotwork.flow.run import OVER, Run, begin

STEPS = EVERYTHING
GRAPHS = [
    graph(Workflow.model_validate({"name": "main", "steps": STEPS, "on_failure": "mend", "timeout": "1h", **more}))
    for more in ({}, {"max_parallel": 2}, {"output": {"x": "steps.a.output"}, "output_schema": {"type": "object"}})
]
OUTPUTS = [b"null", b"1", b'"x"', b"[]", b"[1,2,3]", b"{}", b'{"n":1}', b'{"steps":{"p":{"capability":"work"}}}', b'{"steps":{"p":[]}}',
           b"[" * 900 + b"]" * 900, b'{"steps":{"p":{"capability":"work","input":' + b"[" * 300 + b"]" * 300 + b"}}}"]  # fmt: skip
ERRORS: list[Any] = [None, {}, {"message": 5}, {"detail": "x", "message": None}, {"code": [], "detail": {"step": {}}}]
SUFFIXES = ["", "--0", "--1", "--2", "--plan", "--0u", "--1u", "--4u", "--17", "--23"]
TOKENS = [f"{step}{suffix}" for step in STEPS for suffix in SUFFIXES]
ENDS = st.builds(
    lambda state, output, error: facts.StepEnd(state, msgspec.Raw(output), error=error),
    st.sampled_from(["completed", "completed", "completed", "failed", "cancelled", "timed-out", "dead"]),
    st.sampled_from(OUTPUTS),
    st.sampled_from(ERRORS),
)
FACT = st.one_of(
    st.tuples(st.just("outcome"), st.sampled_from(TOKENS), ENDS),
    st.tuples(st.just("awaited"), st.integers(0, 50), ENDS),  # of what is open, so that runs come far
    st.tuples(st.just("awaited"), st.integers(0, 50), ENDS),
    st.tuples(st.just("awaited"), st.integers(0, 50), ENDS),
    st.tuples(st.just("fired"), st.sampled_from(["run", "sleep-nap", "wait-late", "wait-event", "x"]), st.none()),
    st.tuples(st.just("signal"), st.sampled_from(["n-heard", "late", "x"]), st.just(facts.Signal())),
    st.tuples(st.sampled_from(["pause", "resume", "resume", "cancel", "odd"]), st.just(""), st.just(facts.Wish())),
)


def must_balance(run: Run) -> None:
    plain = [step for name, step in run.steps.items() if name not in run.graph.handlers]
    assert run.awaited == sum(is_awaited(effect) for effect in run.open.values())
    assert run.left == sum(step.state not in OVER for step in plain)
    assert run.working == sum(step.state == "open" for step in plain)
    assert not run.new
    if run.phase == "over":
        assert set(run.open) == {"end"}
    elif not run.open:
        assert run.paused, "it would hang"


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FACT, max_size=60), st.sampled_from(GRAPHS), st.sampled_from(OUTPUTS))
def test_any_facts_in_any_order(found, made, given_input):
    start = facts.Start("main", "d", msgspec.Raw(given_input))
    run = begin("w1", made, start, 1)
    decide.started(run)
    taken = []
    for number, (what, about, body) in enumerate(found):
        if what == "awaited":
            awaited = [effect.token for effect in run.open.values() if hasattr(effect, "token")]
            what, about = "outcome", awaited[about % len(awaited)] if awaited else "x"  # noqa: PLW2901
        taken.append(facts.Fact(what, about, body, number * 10**9, number))
        for effect in decide.advance(run, taken[-1]):
            assert run.open[effect.name] is effect
        must_balance(run)
    anew = begin("w1", made, start, 1)
    decide.started(anew)
    for fact in taken:
        decide.advance(anew, fact)
    assert anew == run
