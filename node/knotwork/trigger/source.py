"""What trigger does a text mean? TOML, YAML or JSON, told apart by looking; all that is wrong is told at once."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from knotwork.config.parse import too_deep
from knotwork.config.problems import nearest
from knotwork.flow.source import Unreadable, read
from knotwork.sdk.errors import Invalid
from knotwork.trigger.model import ADAPTER, Cron, Definition, Files, Http, Once, Subject, Webhook
from knotwork.trigger.store import SIZE_MAX_BYTES

_KINDS: dict[str, type[BaseModel]] = {
    "cron": Cron,
    "once": Once,
    "subject": Subject,
    "webhook": Webhook,
    "http": Http,
    "file": Files,
}
_TELLS = {"cron": "cron", "at": "once", "subject": "subject", "folder": "file"}
"""Fields that only one kind has."""


def table(definition: Any) -> dict[str, Any]:
    """Return the table that a text means; raises `Invalid` (`trigger.bad_definition`)."""
    found = _read(definition) if isinstance(definition, str) else definition
    if not isinstance(found, dict):
        raise _bad("A trigger is a table with an id, a workflow and a kind.")
    if too_deep(found):
        raise _bad("It is nested too deeply.")
    return found


def _read(text: str) -> Any:
    try:
        found, _ = read(text, SIZE_MAX_BYTES)
    except Unreadable as error:
        raise _bad(f"line {error.flaw.line}, column {error.flaw.column}: {error}") from error
    return found


def trigger(definition: Any, **fields: Any) -> Definition:
    """Return the trigger that a text, or fields, or both mean; a field counts more.

    Raises `Invalid` (`trigger.bad_definition`) that names everything wrong.
    """
    found = {**(table(definition) if definition is not None else {}), **_given(fields)}
    if "kind" not in found:
        kinds = {kind for field, kind in _TELLS.items() if field in found}
        if len(kinds) == 1:
            found["kind"] = kinds.pop()
    try:
        return ADAPTER.validate_python(found)
    except ValidationError as error:
        problems = [_problem(one, found) for one in error.errors(include_url=False)[:50]]
        told = "\n".join(f"{one['path']}: {one['message']}" if one["path"] else one["message"] for one in problems)
        raise _bad(f"This is no trigger:\n{told}", problems=problems) from error


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None and (value != "" or key == "input")}


def _problem(error: Any, found: dict[str, Any]) -> dict[str, Any]:
    path = [str(part) for part in error["loc"]]
    if path and path[0] == found.get("kind"):
        path = path[1:]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        model = _KINDS.get(str(found.get("kind")))
        near = nearest(path[-1], model.model_fields) if model is not None else ""
        message = "unknown key" + (f"; did you mean {near!r}?" if near else "")
    return {"path": ".".join(path), "message": message}


def _bad(message: str, problems: list[dict[str, Any]] | None = None) -> Invalid:
    return Invalid(
        message, code="trigger.bad_definition", hint="See docs/triggers.md.",
        detail={"problems": problems} if problems else None,
    )  # fmt: skip
