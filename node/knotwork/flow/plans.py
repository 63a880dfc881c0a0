"""What may a planner have run? The steps that its agent returned, when there are few enough and all of them are allowed (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from knotwork.flow import calls, ending
from knotwork.flow.effects import StartChild
from knotwork.flow.facts import StepEnd
from knotwork.flow.run import decoded
from knotwork.sdk.errors import Failed, Invalid

if TYPE_CHECKING:
    from knotwork.flow.model import AnyStep, PlannerStep
    from knotwork.flow.run import Progress, Run

PLAN = "plan"
FORBIDDEN = frozenset({"workflow", "planner", "signal", "continue_as_new"})
"""Kinds of steps that reach beyond the plan."""


def token_of(step: Progress) -> str:
    """Return the name on the wire of the planning."""
    return f"{step.box.id}--{PLAN}"


def ask(run: Run, step: Progress) -> None:
    """Have an agent plan."""
    calls.dispatch(run, step, token_of(step), step.input, step.input_blob, limit=calls.limit_of(run, step))


def ended(run: Run, step: Progress, plan: bytes) -> None:
    """Run the steps that a planner returned, when they may be run."""
    spec = step.box.spec
    assert spec.kind == "planner"
    if run.phase != "running":
        error = Failed("It was stopped.", code="flow.step_cancelled").to_wire()
        ending.finish(run, step, StepEnd("cancelled", error=error))
        return
    try:
        made = _made(run, spec, decoded(plan), step.box.id)
    except Invalid as error:
        ending.finish(run, step, ending.failure(error))
    else:
        run.emit(StartChild(step.box.id, made["name"], step.input, step.input_blob, paused=run.paused, made=made))


def _made(run: Run, spec: PlannerStep, plan: Any, name: str) -> dict[str, Any]:
    """Return a plan as the text of a workflow; raises `Invalid` (`flow.bad_plan`) for one that may not be run."""
    from knotwork.flow import graph, model  # loaded already by whoever has a planner

    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), dict):
        raise Invalid("The plan is no table with steps.", code="flow.bad_plan")
    if unknown := sorted(plan.keys() - {"steps", "output"}):
        raise Invalid(f"The plan may say nothing of {unknown[0][:80]!r}.", code="flow.bad_plan")
    if len(plan["steps"]) > spec.max_steps:
        raise Invalid(f"The plan has {len(plan['steps'])} steps, {spec.max_steps} at most.", code="flow.bad_plan")
    whose = f"{run.graph.workflow.name[:20].rstrip('-')}-{name[:11].rstrip('-')}"
    made = {"steps": plan["steps"], "output": plan.get("output"), "name": whose}
    try:
        workflow = model.Workflow.model_validate(made)
        graph.graph(workflow)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
        raise Invalid(f"The plan makes no sense: {told[:2000]}", code="flow.bad_plan") from error
    except Invalid as error:
        raise Invalid(f"The plan makes no sense: {error.message}", code="flow.bad_plan") from error
    boundary = spec.boundary or run.start.boundary or run.graph.workflow.boundary
    for inner, one in workflow.steps.items():
        if told := _overstep(spec, one, boundary):
            raise Invalid(f"The plan may not use {told} (step {inner}).", code="flow.bad_plan")
        if isinstance(one, model.Work) and boundary is not None:
            made["steps"] = {**made["steps"], inner: {**made["steps"][inner], "boundary": boundary}}
    return made


def _overstep(spec: PlannerStep, one: AnyStep, boundary: str | None) -> str:
    """Return what a step of a plan may not have; nothing when it may have all that it wants."""
    from knotwork.flow import model  # likewise

    if one.kind in FORBIDDEN:
        return f"a {one.kind}"
    if not isinstance(one, model.Work):
        return ""
    if one.children is not None:
        return "`children`, which lets workers start what no plan may name"
    if one.boundary not in (None, boundary):
        return f"the boundary {one.boundary!r}"
    if one.agent is not None and (spec.capabilities or one.agent != spec.agent):
        return f"the agent {one.agent!r}"
    allowed = (None, *(spec.capabilities or (spec.capability,)))
    return "" if one.capability in allowed else f"the capability {one.capability!r}"
