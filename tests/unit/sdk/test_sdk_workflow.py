"""A workflow written in Python is the same as one written in TOML."""

import pytest

from knotwork.flow import source
from knotwork.sdk.workflow import Workflow


def test_what_it_writes_is_a_workflow():
    flow = Workflow("release", timeout="1h", output="steps.tests.output")
    build = flow.task("build", capability="build")
    tests = flow.map("tests", after=build, capability="test", items="steps.build.output.suites")
    nap = flow.sleep("nap", "5m", after=build)  # a step, not a pause
    other = flow.workflow("other", "cleanup", after=[tests, nap])
    flow.approval("ask", after=other, title="Ship it?")
    checked = source.check(flow.text())
    assert checked.flaws == ()
    assert [step.kind for step in checked.workflow.steps.values()] == ["task", "map", "sleep", "workflow", "approval"]
    assert checked.workflow.steps["other"].depends_on == ("tests", "nap")
    assert source.check(flow.definition()).workflow == checked.workflow


def test_one_id_is_one_step_and_values_are_json():
    flow = Workflow("w")
    flow.task("a", capability="x")
    with pytest.raises(ValueError, match="already"):
        flow.task("a", capability="x")
    flow.task("b", capability="x", input=object())
    with pytest.raises(TypeError):
        flow.text()


def test_nothing_that_was_said_is_left_out_without_a_word():
    with pytest.raises(ValueError, match="one by one"):
        Workflow("w", steps={"a": {"capability": "x"}})
    flow = Workflow("w")
    flow.task("a", capability="x")
    with pytest.raises(ValueError, match="both"):
        flow.task("b", after="a", depends_on=["c"], capability="x")
    flow.task("b", depends_on=["a"], capability="x", input=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        flow.text()
