"""What workflow does a text mean, or what is wrong with it? TOML, YAML or JSON, told apart by looking.

Whoever writes a workflow is told everything that is wrong with it at once, with line and column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from knotwork.config.parse import too_deep
from knotwork.config.problems import nearest
from knotwork.flow import graph, mending
from knotwork.flow.definitions import SIZE_MAX_BYTES
from knotwork.flow.model import KINDS, Workflow
from knotwork.flow.slips import slips
from knotwork.flow.texts import Locate, Path, Unreadable, read

PROBLEMS_MAX = 200
_SHOWN_MAX = 80


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong in a text: what, where (path, and line and column from 1), and what to do."""

    path: str
    line: int
    column: int
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a text says: a workflow, or what is wrong with it."""

    workflow: Workflow | None
    flaws: tuple[Flaw, ...] = ()


def check(definition: Any) -> Checked:
    """Return what a text (or what was read from one) says; never raises for what is in it."""
    try:
        if isinstance(definition, str):
            return _judged(*read(definition, SIZE_MAX_BYTES))
        return _judged(definition, lambda _: (1, 1))
    except Unreadable as error:
        return Checked(None, (Flaw(dotted(error.path), error.line, error.column, error.message),))


# -- what is wrong with it -----------------------------------------------------------------------------------------------


def _judged(data: Any, locate: Locate) -> Checked:
    if not isinstance(data, dict):
        raise Unreadable(1, 1, "A workflow is a table with a name and steps.")
    if too_deep(data):
        raise Unreadable(1, 1, "It is nested too deeply.")
    try:
        workflow = Workflow.model_validate(data)
    except ValidationError:
        return Checked(None, _flaws(data, locate))
    problems = [*graph.check(workflow), *slips(workflow)]
    flaws = tuple(_flaw(one, locate) for one in problems[:PROBLEMS_MAX])
    return Checked(None if flaws else workflow, _sorted(flaws))


def _flaws(data: dict[Any, Any], locate: Locate) -> tuple[Flaw, ...]:
    """Return what the model says against a definition, and what is wrong with the rest of it."""
    found = mending.mended(data)
    # a table that says too little as a whole may still be wrong inside
    told = {one.path for one in found.misfits if not (one.type == "value_error" and isinstance(one.given, dict))}
    misfits = [_misfit(one, data, locate) for one in found.misfits[:PROBLEMS_MAX]]
    problems = (*graph.check(found.workflow), *slips(found.workflow))
    more = [one for one in problems if not any(one.path[:end] in told for end in _ends(one.path))]
    return _sorted((*misfits, *(_flaw(one, locate) for one in more[: PROBLEMS_MAX - len(misfits)])))


def _ends(path: Path) -> range:
    """Return how long the places are that a place lies in, but for steps as a whole: what is in those may be sound."""
    return range(1 if path[0] != "steps" else STEP_KEY, len(path) + 1)


def _sorted(flaws: tuple[Flaw, ...]) -> tuple[Flaw, ...]:
    return tuple(sorted(flaws, key=lambda one: (one.line, one.column)))


def _flaw(problem: graph.Problem, locate: Locate) -> Flaw:
    return Flaw(dotted(problem.path), *locate(problem.path), problem.message, problem.hint)


def _misfit(one: mending.Misfit, data: Any, locate: Locate) -> Flaw:
    message = one.message
    if one.type == "extra_forbidden":
        message = f"unknown key{_near(one.path, data)}"
    elif one.type == "string_type" and isinstance(one.given, bool | int | float):
        message = f'it is a text: write it in quotes, "{str(one.given).lower()[:_SHOWN_MAX]}"'
    elif isinstance(one.given, str | int | float):
        message += f" (it is {str(one.given)[:_SHOWN_MAX]!r})"
    return Flaw(dotted(one.path), *locate(one.path), message)


def _near(path: Path, data: Any) -> str:
    """Return what an unknown key may have been meant to be."""
    at = data
    for part in path[:-1]:
        at = at[part]
    kind = at.get("kind", "task") if path[0] == "steps" and len(path) == STEP_KEY else ""
    model: Any = Workflow if len(path) == 1 else KINDS.get(str(kind))
    near = nearest(str(path[-1]), model.model_fields, cutoff=_ALIKE) if model is not None else ""
    return f"; did you mean {near!r}?" if near else ""


_ALIKE = 0.65
"""How alike a key must be to what may have been meant: `order` is not `retry`."""
STEP_KEY = 3
"""Parts of the path of a key of a step: steps.<id>.<key>."""


def dotted(path: Path) -> str:
    """Return a path as people write it."""
    return ".".join(str(part) for part in path)
