"""Do the names in a workflow mean steps, and in which order can these begin? What cannot be known is left open (pure)."""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.flow import model

if TYPE_CHECKING:
    from knotwork.flow.model import AnyStep, Workflow

Path = tuple[str | int, ...]
CYCLES_MAX = 20
"""With more of them in one workflow the order of its steps is left open."""
ANY = -1
"""Every step may have ended: of a step that names one which is not there, or waits for itself, nothing is known."""
_SUGGEST_MAX = 500
"""Names among which one is looked for that is alike; with more it would take too long."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a workflow: where it stands in it, and what it is."""

    path: Path
    message: str
    hint: str = ""


def names(workflow: Workflow) -> Iterator[Problem]:
    """Yield what is wrong with names: those of steps, and those that steps call others by."""
    known = workflow.steps.keys()
    for name, spec in workflow.steps.items():
        at: Path = ("steps", name)
        if name in model.RESERVED:
            yield Problem(at, f"no step can be called {name!r}", "Choose another name.")
        for place, parent in enumerate(spec.depends_on):
            if parent not in known:
                yield unknown((*at, "depends_on", place), parent, known)
        for path, target in _targets(spec):
            if target not in known:
                yield unknown((*at, *path), target, known)
    if workflow.on_failure is not None and workflow.on_failure not in known:
        yield unknown(("on_failure",), workflow.on_failure, known)


def _targets(spec: AnyStep) -> Iterator[tuple[Path, str]]:
    """Return the steps that a step names beside those it depends on, and where."""
    for key in ("on_failure", "compensate"):
        if (target := getattr(spec, key)) is not None:
            yield (key,), target
    if spec.kind == "choice":
        for place, case in enumerate(spec.cases):
            yield from ((("cases", place, "then", inner), target) for inner, target in enumerate(case.then))


def unknown(path: Path, name: str, known: Iterable[str]) -> Problem:
    """Return the problem of a name that no step has, with the one that may have been meant."""
    others = list(known)
    near = difflib.get_close_matches(name, others, n=1) if len(others) <= _SUGGEST_MAX else []
    return Problem(path, f"there is no step {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def above(workflow: Workflow) -> tuple[dict[str, int], list[Problem]]:
    """Return, for each step, all that have ended when it begins, as bits by their places, and the cycles there are."""
    steps = workflow.steps
    parents = {name: [one for one in dict.fromkeys(spec.depends_on) if one in steps] for name, spec in steps.items()}
    unsure = {name for name, spec in steps.items() if any(one not in steps for one in spec.depends_on)}
    found: list[Problem] = []
    while True:
        try:
            order = list(graphlib.TopologicalSorter(parents).static_order())
            break
        except graphlib.CycleError as error:
            path = [str(one) for one in error.args[1]][::-1]  # each waits for the next
        found.append(Problem(("steps", path[0], "depends_on"), f"steps wait for each other: {' → '.join(path)}"))
        if len(found) >= CYCLES_MAX:
            return dict.fromkeys(steps, ANY), found
        parents[path[0]].remove(path[1])
        unsure |= set(path)
    place = {name: number for number, name in enumerate(steps)}
    masks: dict[str, int] = {}
    for name in order:
        mask = ANY if name in unsure else 0
        for parent in parents[name]:
            mask |= masks[parent] | 1 << place[parent]
        masks[name] = mask
    return masks, found
