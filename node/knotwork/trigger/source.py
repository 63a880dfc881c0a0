"""What trigger does a text mean? TOML, YAML or JSON, told apart by looking; all that is wrong is told at once, with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from knotwork.config.parse import too_deep
from knotwork.config.problems import nearest
from knotwork.flow.source import Path, Unreadable, read
from knotwork.sdk.errors import Invalid
from knotwork.trigger.model import ADAPTER, Cron, Definition, Files, Http, Once, Plugin, Subject, Webhook
from knotwork.trigger.store import SIZE_MAX_BYTES

_KINDS: dict[str, type[BaseModel]] = {
    "cron": Cron,
    "once": Once,
    "subject": Subject,
    "webhook": Webhook,
    "http": Http,
    "file": Files,
    "plugin": Plugin,
}
PROBLEMS_MAX = 50
_TELLS = {"cron": "cron", "at": "once", "subject": "subject", "folder": "file", "source": "plugin"}
"""Fields that only one kind has."""


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
        flaw = error.flaw
        told = {"path": "", "line": flaw.line, "column": flaw.column, "message": flaw.message}
        raise _bad(f"line {flaw.line}, column {flaw.column}: {error}", problems=[told]) from error


def trigger(definition: Any, **fields: Any) -> Definition:
    """Return the trigger that a text, or fields, or both mean; a field counts more.

    Raises `Invalid` (`trigger.bad_definition`) that names everything wrong.
    """
    written, place = table(definition) if definition is not None else ({}, lambda _: NOWHERE)
    given = _given(fields)
    found = {**written, **given}
    if "kind" not in found:
        kinds = {kind for field, kind in _TELLS.items() if field in found}
        if len(kinds) == 1:
            found["kind"] = kinds.pop()
    try:
        return ADAPTER.validate_python(found)
    except ValidationError as error:
        errors = error.errors(include_url=False)[:PROBLEMS_MAX]
        problems = [
            _problem(one, found, place if _first(one, found) not in given else lambda _: NOWHERE) for one in errors
        ]
        told = "\n".join(_line(one) for one in problems)
        raise _bad(f"This is no trigger:\n{told}", problems=problems) from error


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None and (value != "" or key == "input")}


def _first(error: Any, found: dict[str, Any]) -> Any:
    return next(iter(_path(error, found)), "")


def _path(error: Any, found: dict[str, Any]) -> Path:
    """Return where an error stands; pydantic puts the kind before it."""
    path: Path = error["loc"]
    return path[1:] if path and path[0] == found.get("kind") else path


def _line(problem: dict[str, Any]) -> str:
    where = f"line {problem['line']}, column {problem['column']}" if problem["line"] else ""
    return ": ".join(part for part in (where, problem["path"], problem["message"]) if part)


def _problem(error: Any, found: dict[str, Any], place: Place) -> dict[str, Any]:
    path = _path(error, found)
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        model = _KINDS.get(str(found.get("kind")))
        near = nearest(str(path[-1]), model.model_fields) if model is not None else ""
        message = "unknown key" + (f"; did you mean {near!r}?" if near else "")
    line, column = place(path)
    return {"path": ".".join(str(part) for part in path), "line": line, "column": column, "message": message}


def _bad(message: str, problems: list[dict[str, Any]] | None = None) -> Invalid:
    return Invalid(
        message, code="trigger.bad_definition", hint="See docs/triggers.md.",
        detail={"problems": problems} if problems else None,
    )  # fmt: skip
