"""What trigger does a text mean? TOML, YAML or JSON, told apart by looking; all that is wrong is told at once."""

from __future__ import annotations

import difflib
import json
import tomllib
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from knotwork.config.parse import too_deep
from knotwork.flow.durations import seconds
from knotwork.flow.source import Loader
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
    if len(text.encode("utf-8", "replace")) > SIZE_MAX_BYTES:
        raise _bad(f"It is larger than {SIZE_MAX_BYTES} bytes.")
    try:
        if text.lstrip()[:1] == "{":
            return json.loads(text)
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = yaml.load(text, Loader)  # noqa: S506  a safe loader, made safer
            if isinstance(found, dict):
                return found
            raise _bad(f"It is neither TOML nor YAML nor JSON: {error}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise _bad(f"It cannot be read: {str(error)[:300]}") from error


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
        near = difflib.get_close_matches(path[-1], model.model_fields, n=1) if model is not None else []
        message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    return {"path": ".".join(path), "message": message}


def _bad(message: str, problems: list[dict[str, Any]] | None = None) -> Invalid:
    return Invalid(
        message, code="trigger.bad_definition", hint="See docs/triggers.md.",
        detail={"problems": problems} if problems else None,
    )  # fmt: skip


def away_s(text: str) -> float:
    """Return how many seconds a duration means; raises `Invalid` (`trigger.bad_definition`)."""
    try:
        return float(seconds(text))
    except ValueError as error:
        raise _bad(f"{text!r}: {error}") from error
