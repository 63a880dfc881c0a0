"""What trigger does a text mean? TOML, YAML or JSON, told apart by looking; all that is wrong is told at once, with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from knotwork.config.parse import too_deep
from knotwork.flow.texts import Path, Unreadable, read
from knotwork.sdk.errors import Invalid
from knotwork.trigger import judging
from knotwork.trigger.model import ADAPTER, Definition
from knotwork.trigger.store import SIZE_MAX_BYTES

PROBLEMS_MAX = 50
Place = Callable[[Path], tuple[int, int]]
NOWHERE = (0, 0)
"""Line and column of what stands in no text."""


def table(definition: Any) -> tuple[dict[str, Any], Place]:
    """Return the table that a text means, and what gives line and column of a key in it (`NOWHERE` without a text).

    Raises `Invalid` (`trigger.bad_definition`).
    """
    found, place = _read(definition) if isinstance(definition, str) else (definition, lambda _: NOWHERE)
    if not isinstance(found, dict):
        raise _bad("A trigger is a table with an id, a workflow and a kind.")
    if too_deep(found):
        raise _bad("It is nested too deeply.")
    return found, place


def _read(text: str) -> tuple[Any, Place]:
    try:
        return read(text, SIZE_MAX_BYTES)
    except Unreadable as error:
        path = ".".join(str(part) for part in error.path)
        told = {"path": path, "line": error.line, "column": error.column, "message": error.message}
        raise _bad(f"This is no trigger:\n{_line(told)}", problems=[told]) from error


def trigger(definition: Any, **fields: Any) -> Definition:
    """Return the trigger that a text, or fields, or both mean; a field counts more.

    Raises `Invalid` (`trigger.bad_definition`) that names everything wrong.
    """
    written, place = table(definition) if definition is not None else ({}, lambda _: NOWHERE)
    given = _given(fields)
    found = judging.kind_of({**written, **given})
    try:
        return ADAPTER.validate_python(found)
    except ValidationError as error:
        wrong = judging.problems(found)[:PROBLEMS_MAX]
        problems = [
            _shown(one, place if not one.path or one.path[0] not in given else lambda _: NOWHERE) for one in wrong
        ]
        problems.sort(key=lambda one: (one["line"], one["column"]))
        told = "\n".join(_line(one) for one in problems)
        raise _bad(f"This is no trigger:\n{told}", problems=problems) from error


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None and (value != "" or key == "input")}


def _line(problem: dict[str, Any]) -> str:
    where = f"line {problem['line']}, column {problem['column']}" if problem["line"] else ""
    return ": ".join(part for part in (where, problem["path"], problem["message"]) if part)


def _shown(problem: judging.Problem, place: Place) -> dict[str, Any]:
    line, column = place(problem.path)
    path = ".".join(str(part) for part in problem.path)
    return {"path": path, "line": line, "column": column, "message": problem.message}


def _bad(message: str, problems: list[dict[str, Any]] | None = None) -> Invalid:
    return Invalid(
        message, code="trigger.bad_definition", hint="See docs/triggers.md.",
        detail={"problems": problems} if problems else None,
    )  # fmt: skip
