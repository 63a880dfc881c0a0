"""How do the steps of a workflow hang together? What was checked (`checks`), as the rules of runs need it (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.flow import expressions
from knotwork.flow.checks import HANDLERS, check, expressions_of, handlers_of, reads_of, titled_by
from knotwork.flow.durations import next_due
from knotwork.flow.order import Problem
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from knotwork.flow.model import AnyStep, Workflow

__all__ = ["HANDLERS", "Box", "Graph", "Problem", "check", "graph", "next_due"]
TOLD_MAX = 20
_LOOKS_INTO_ITS_INPUT = frozenset({"agent", "approval", "join", "map", "respond", "signal"})
"""Kinds whose input is needed itself, and not only by reference when it is large."""
_PASSES_ON = frozenset({"choice", "continue_as_new", "sleep"})
"""Kinds whose output is their input, and of whose end no fact tells."""


@dataclass(frozen=True, slots=True)
class Box:
    """One step and its neighbours. `place` is its number; `reads` are the steps that its expressions look at."""

    id: str
    place: int
    spec: AnyStep
    parents: tuple[str, ...]
    children: tuple[str, ...]
    reads: frozenset[str]
    looks: bool
    """Whether its `input`, `when` or the like are expressions, so that what it reads must be at hand."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A workflow that was checked. `ends` are the steps that nobody depends on, `handlers` those that only failures start."""

    workflow: Workflow
    boxes: dict[str, Box]
    roots: tuple[str, ...]
    ends: tuple[str, ...]
    handlers: frozenset[str]
    output_reads: frozenset[str]
    """Steps that the output of the run looks at."""
    looked_at: frozenset[str]
    """Steps whose output somebody looks into: an expression, a schema, a step with several parents, one that undoes."""
    timed: bool = False
    """Whether timers of its tasks may be left when a run is over."""


def graph(workflow: Workflow) -> Graph:
    """Return how the steps hang together; raises `Invalid` (`flow.bad_workflow`) naming all problems."""
    problems = check(workflow)
    if problems:
        told = "; ".join(f"{'.'.join(map(str, one.path))}: {one.message}" for one in problems[:TOLD_MAX])
        raise Invalid(f"The workflow {workflow.name!r} makes no sense: {told}", code="flow.bad_workflow")
    handlers = frozenset(handlers_of(workflow))
    children: dict[str, list[str]] = {name: [] for name in workflow.steps}
    for name, spec in workflow.steps.items():
        for parent in dict.fromkeys(spec.depends_on):
            children[parent].append(name)
    asked = {name: titled_by(spec) & workflow.steps.keys() for name, spec in workflow.steps.items()}
    boxes = {
        name: Box(
            name, place, spec, tuple(dict.fromkeys(spec.depends_on)), tuple(children[name]), reads_of(spec) | asked[name],
            next(expressions_of(spec), None) is not None or bool(asked[name]),
        )
        for place, (name, spec) in enumerate(workflow.steps.items())
    }  # fmt: skip
    plain = [box for box in boxes.values() if box.id not in handlers]
    ends = tuple(box.id for box in plain if not box.children)
    output_reads = frozenset(
        one for _, text in expressions.texts(workflow.output) for one in expressions.names(text)[1]
    )
    looked_at = set(output_reads).union(*(_looked_at(box) for box in boxes.values()))
    if workflow.output is None and (len(ends) > 1 or workflow.output_schema is not None):
        looked_at |= set(ends)
    left = list(looked_at)
    while left:  # who looks into what was only passed on looks into what it was passed on from
        box = boxes[left.pop()]
        if box.spec.kind in _PASSES_ON:
            left += [one for one in box.parents if one not in looked_at]
            looked_at.update(box.parents)
    roots = tuple(box.id for box in plain if not box.parents)
    timed = any(getattr(spec, "schedule_to_start", None) is not None for spec in workflow.steps.values())
    return Graph(workflow, boxes, roots, ends, handlers, output_reads, frozenset(looked_at), timed)


def _looked_at(box: Box) -> set[str]:
    """Return the steps that a step makes somebody look into."""
    spec, found = box.spec, set(box.reads)
    into_input = spec.kind in _LOOKS_INTO_ITS_INPUT or spec.on_failure is not None or spec.compensate is not None
    if into_input or len(box.parents) > 1:
        found |= set(box.parents)
    if spec.compensate is not None or getattr(spec, "output_schema", None) is not None:
        found.add(box.id)
    return found
