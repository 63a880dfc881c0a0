"""What can be read, and was hardly meant? Told to whoever writes a workflow; one that was kept before still runs (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.flow import expressions, opening
from knotwork.flow.checks import titles
from knotwork.flow.order import Problem
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knotwork.flow.model import Workflow

_TEMPLATES = {"agent": "prompt", "approval": "title"}
"""Kinds of steps with a text that is filled in."""


def slips(workflow: Workflow) -> Iterator[Problem]:
    """Yield what is surely a mistake in a workflow, though its steps make sense together."""
    yield from titles(workflow)
    for name, spec in workflow.steps.items():
        key = _TEMPLATES.get(spec.kind, "")
        if key and expressions.unclosed(getattr(spec, key)):
            hint = "Close it with }}. Braces that are meant as they are come from an expression: {{ '{{' }}."
            yield Problem(("steps", name, key), "a {{ is never closed: nothing would be put in its place", hint)
        if spec.kind == "sleep" and spec.until is not None and (told := _never(spec.until)):
            hint = "Give an RFC 3339 time with its zone, or seconds since 1970."
            yield Problem(("steps", name, "until"), told, hint)


def started_by(workflow: Workflow) -> Iterator[tuple[str, str]]:
    """Yield which step starts which workflow, or may have its worker start it."""
    for name, spec in workflow.steps.items():
        if spec.kind == "workflow":
            yield name, spec.workflow
        children = getattr(spec, "children", None)
        for one in children.workflows if children is not None else ():
            yield name, one


def boundaries(workflow: Workflow) -> Iterator[tuple[str, str]]:
    """Yield where a workflow names which boundary."""
    if workflow.boundary:
        yield "boundary", workflow.boundary
    for name, spec in workflow.steps.items():
        if boundary := getattr(spec, "boundary", None):
            yield f"steps.{name}", boundary


def _never(until: str) -> str:
    """Return why an expression that looks at nothing gives no time; an empty text when it may give one."""
    try:
        if expressions.names(until)[0]:
            return ""
        moment = expressions.evaluate(until, {})
    except Invalid:
        return ""  # told elsewhere
    return "" if opening.time_ns(moment) is not None else f"it always gives {str(moment)[:80]!r}, which is no time"
