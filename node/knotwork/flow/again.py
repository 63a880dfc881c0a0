"""How is a run done again? From one of its steps on, as a new run; or its facts alone, to see whether the rules still agree (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from knotwork.flow import decide
from knotwork.flow.effects import NULL
from knotwork.flow.expressions import SIZE_MAX_BYTES
from knotwork.flow.facts import Finish, Left, Start, StepEnd, child_run
from knotwork.flow.outputs import listed
from knotwork.flow.run import begin
from knotwork.sdk.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from knotwork.flow.facts import Fact, Handed
    from knotwork.flow.graph import Graph
    from knotwork.flow.run import Progress, Run

_DECIDED = ("choice", "join", "continue_as_new")
"""Kinds of steps that need nobody: they are decided anew."""
_NUMBER_BYTES = 8
"""What the number of an item needs, with all around it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first fact of a run that today's rules would not have led to: its number, what it is, and what they say."""

    number: int
    fact: str
    expected: str


def taken_over(run: Run, step: str = "") -> tuple[dict[str, StepEnd], dict[str, Left]]:
    """Return the ends of steps that a new run takes over, and how far others were: of all but `step` and what follows it.

    What was undone when the run failed has to be done again, and what follows that as well. How far a step was counts only
    where all before it ends in the new run as it did here: else it might be about something else. Raises `NotFound`
    (`flow.no_step`), `Conflict` (`flow.not_begun`) for a step that was never begun.
    """
    if step and step not in run.steps:
        raise NotFound(
            f"There is no step {step!r} in {run.start.workflow}.", code="flow.no_step",
            hint="`knotwork run show` lists the steps; those of a plan are done again with its planner.",
        )  # fmt: skip
    if step and run.steps[step].state == "blocked":
        raise Conflict(f"The step {step!r} was never begun.", code="flow.not_begun", hint="Name one that was.")
    anew = {name for name, one in run.steps.items() if one.undone} | ({step} if step else set())
    anew |= _reached(run, anew, "children")
    given: dict[str, StepEnd] = {}
    for name, one in run.steps.items():
        if name in anew or one.box.spec.kind in _DECIDED:
            continue
        if one.state == "completed" and len(one.output) <= SIZE_MAX_BYTES:
            given[name] = StepEnd("completed", msgspec.Raw(one.output), one.blob, node=one.node, agent=one.agent)
        elif not one.begun_ns and name in run.start.given:  # it was to be taken over, and it did not come to that
            given[name] = run.start.given[name]
    left, same = {}, {name for name, one in run.steps.items() if name not in anew and _ends_the_same(one, given)}
    for name, one in run.steps.items():
        if name in anew or name in given:
            continue
        found = _left(run, one)
        if found is not None and _reached(run, [name], "parents") <= same:
            left[name] = found
    return given, left


def _ends_the_same(step: Progress, given: Mapping[str, StepEnd]) -> bool:
    return step.box.id in given or step.box.spec.kind in _DECIDED or step.state == "skipped"


def _left(run: Run, step: Progress) -> Left | None:
    """Return how far a step was whose end cannot be taken over; None when there is nothing of it."""
    if not step.begun_ns:
        return run.start.left.get(step.box.id)
    spec = step.box.spec
    if spec.kind == "workflow" and not spec.detach:
        return Left(run=child_run(run.id, step.box.id))
    kept = step.items.done() if step.items is not None else step.kept
    if spec.kind == "map" and step.state == "completed":  # its output is larger than what can be kept
        kept = {index: output for index, output in enumerate(listed(step.output, spec.max_items)) if output != NULL}
    parts, size = [], 2
    for index, output in kept.items():
        size += len(output) + _NUMBER_BYTES
        if size > SIZE_MAX_BYTES:  # no message and no blob holds more: the others are done again
            break
        parts.append(b'"%d":%b' % (index, output))
    return Left(msgspec.Raw(b"{" + b",".join(parts) + b"}")) if parts else None


def handed(run: Run, step: str, value: Handed | None) -> dict[str, Handed]:
    """Return the inputs that a new run hands its steps: those of `run`, and `value` to `step` when that is given.

    What follows `step` is given what that makes of it then. Raises `Conflict` (`flow.not_begun`) for a handler.
    """
    if value is None:
        return run.start.handed
    if step in run.graph.handlers:
        told = f"{step!r} begins when another step fails, with what that leaves."
        raise Conflict(told, code="flow.not_begun", hint="Name that step.")
    behind = _reached(run, [step], "children")
    return {name: one for name, one in run.start.handed.items() if name not in behind} | {step: value}


def _reached(run: Run, names: Iterable[str], side: Literal["children", "parents"]) -> set[str]:
    """Return all steps that follow some, or go before them (`parents`), directly or not."""
    found: set[str] = set()
    left = list(names)
    while left:
        new = set(getattr(run.steps[left.pop()].box, side)) - found
        found |= new
        left += new
    return found


def difference(run: str, graph: Graph, read: Sequence[Fact]) -> Difference | None:
    """Return where the recorded history of a run and today's rules part, None when they agree to the end."""
    made: Run | None = None
    early: list[Fact] = []
    asked: set[str] = set()
    for number, fact in enumerate(read, start=1):
        if made is None and not isinstance(fact.body, Start):
            early.append(fact)
        elif made is None:
            assert isinstance(fact.body, Start)
            made = begin(run, graph, fact.body, fact.at_ns)
            asked.update(effect.name for effect in decide.started(made))
            for one in early:
                asked.update(effect.name for effect in decide.advance(made, one))
        else:
            wanted = _expected(made, fact, asked)
            if wanted:
                return Difference(number, f"{fact.what} {fact.about}".strip(), wanted)
            asked.update(effect.name for effect in decide.advance(made, fact))
    return None


def _expected(run: Run, fact: Fact, asked: set[str]) -> str:
    """Return what today's rules expect instead of a fact, "" when it is what they expect, or an answer that came too late.

    `asked` are the effects there ever were.
    """
    waits = ", ".join(sorted(run.open)) or "nothing"
    if fact.what == "outcome":
        kinds = ("do", "child", "event", "ask", "send", "respond")
        fits = any(f"{kind}.{fact.about}" in asked for kind in kinds)
        return "" if fits else f"it waits for {waits}"
    if isinstance(fact.body, Finish):
        end = run.open.get("end")
        if end is None:
            return f"it goes on: it waits for {waits}"
        state = getattr(end, "state", "")
        if state != fact.body.state:
            return f"it ends {state}"
        anew = getattr(end, "anew", None) is not None
        return "" if anew == bool(fact.body.next) else f"it {'goes' if anew else 'does not go'} on as another run"
    return ""
