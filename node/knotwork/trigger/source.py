"""What trigger does a text mean? TOML, YAML or JSON, told apart by looking; all that is wrong is told at once, with its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from knotwork.config.parse import too_deep
from knotwork.flow.texts import Path, Unreadable, read
from knotwork.sdk.errors import Invalid, KnotworkError
from knotwork.trigger import judging
from knotwork.trigger.model import ADAPTER, Definition
from knotwork.trigger.store import SIZE_MAX_BYTES

PROBLEMS_MAX = 50
Place = Callable[[Path], tuple[int, int]]
NOWHERE = (0, 0)
"""Line and column of what stands in no text."""
_NAMES = {"subject": ("subject", "stream"), "plugin": ("source",)}
"""Keys by which a trigger of a kind names what must be there, beside its workflow."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was written: the trigger, None when something is wrong with it; then `problems` are everything that is."""

    trigger: Definition | None
    table: dict[str, Any]
    place: Place
    problems: tuple[judging.Problem, ...] = ()

    def named(self) -> dict[str, str]:
        """Return what it names that must be there, by key: only what makes sense as it stands."""
        wrong = {one.path[0] for one in self.problems if one.path}
        of_kind = _NAMES.get(str(self.table.get("kind")), ())
        keys = ("workflow", *(of_kind if wrong.isdisjoint(of_kind) else ()))
        return {key: self.table[key] for key in keys if key not in wrong and isinstance(self.table.get(key), str)}

    def checked(self, missing: Sequence[tuple[str, KnotworkError]]) -> Definition:
        """Return the trigger; raises what is wrong with it, with what it names and is not there (`missing`, by key).

        One thing alone that is missing is raised as itself, anything more as `Invalid` (`trigger.bad_definition`).
        """
        wrong = [*self.problems, *(judging.Problem((key,), _said(error)) for key, error in missing)]
        shown = [_shown(one, self.place) for one in wrong[:PROBLEMS_MAX]]
        shown.sort(key=lambda one: (one["line"], one["column"]))
        if self.trigger is None or len(missing) > 1:
            first = "This is no trigger" if self.trigger is None else "What this trigger names is not there"
            raise _bad(f"{first}:\n" + "\n".join(map(_line, shown)), problems=shown)
        for _, error in missing:
            raise error.with_detail(problems=shown)
        return self.trigger


def _said(error: KnotworkError) -> str:
    return error.message.rstrip(".")


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
    return reading(definition, **fields).checked(())


def reading(definition: Any, **fields: Any) -> Reading:
    """Return what a text, or fields, or both mean, with everything that is wrong; raises `Invalid` for what is no table."""
    written, place = table(definition) if definition is not None else ({}, lambda _: NOWHERE)
    given = _given(fields)
    found = judging.kind_of({**written, **given})

    def where(path: Path) -> tuple[int, int]:
        return NOWHERE if path and path[0] in given else place(path)

    try:
        return Reading(ADAPTER.validate_python(found), found, where)
    except ValidationError:
        return Reading(None, found, where, tuple(judging.problems(found)))


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
