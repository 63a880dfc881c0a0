"""What is wrong with what is meant to be a trigger? All of it at once: each key by itself, and what they say together (pure)."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from knotwork.config.problems import nearest, standing
from knotwork.flow.texts import Path
from knotwork.trigger.model import (
    LOOSE,
    Batch,
    Cron,
    Debounce,
    Files,
    Http,
    Once,
    Plugin,
    Subject,
    Trigger,
    Webhook,
)

MODELS: dict[str, type[Trigger]] = {
    "cron": Cron,
    "once": Once,
    "subject": Subject,
    "webhook": Webhook,
    "http": Http,
    "file": Files,
    "plugin": Plugin,
}
TELLS = {"cron": "cron", "at": "once", "subject": "subject", "folder": "file", "source": "plugin"}
"""Keys that only one kind has."""
_PARTS: dict[str, type[BaseModel]] = {"batch": Batch, "debounce": Debounce}
_STAND_INS = {
    "id": "x", "workflow": "x", "cron": "@daily", "at": "2030-01-01", "subject": "event.x", "path": "x",
    "folder": "x", "source": "x",
}  # fmt: skip
"""What stands in for what is missing or does not fit, so that the rest can be read."""
_SHOWN_MAX = 80
_WORD = "small letters, digits, - and _, a letter or digit first, 64 characters at most"
_WORDS = {
    "id": f"a name has {_WORD}",
    "workflow": f"a name has {_WORD}",
    "boundary": f"it has {_WORD}",
    "source": f"it has {_WORD}",
    "node": f"it has {_WORD}",
    "labels": "the name of a label has letters, digits and _ . / -, a letter or digit first, 64 characters at most",
    "subject": "a subject has one to sixteen words with dots between them, and no spaces",
    "stream": "a stream's name has letters, digits, - and _, 64 at most",
    "path": "it has one to eight words of letters, digits and _ . -, with / between them and none in front",
    "idempotency_header": "the name of a header has letters, digits and -, 64 at most",
}
"""What the patterns of the model ask for."""


class Problem(NamedTuple):
    """Something wrong: where in the table it is, and what."""

    path: Path
    message: str


def kind_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return a table with its kind, when it does not say it and its keys do."""
    if "kind" in found:
        return found
    kinds = {kind for key, kind in TELLS.items() if key in found}
    return {**found, "kind": kinds.pop()} if len(kinds) == 1 else found


def problems(found: dict[str, Any]) -> list[Problem]:
    """Return everything that is wrong with a table, at most one thing for each place."""
    kinds, told = _kinds(found)
    seen: dict[Path, Problem] = {one.path: one for one in told}
    for kind in kinds:
        _judge(MODELS[kind], {**found, "kind": kind}, seen)
    if not kinds:
        _judge(Trigger, {key: value for key, value in found.items() if key in Trigger.model_fields}, seen)
    return list(seen.values())


def _kinds(found: dict[str, Any]) -> tuple[list[str], list[Problem]]:
    """Return which kinds of trigger it may be, or is most like; and what is wrong with how it says so."""
    if "kind" not in found:
        kinds = sorted({kind for key, kind in TELLS.items() if key in found})
        return kinds, [Problem((), f"it does not say what makes it fire: kind is one of {', '.join(kinds or MODELS)}")]
    kind = str(found["kind"])[:_SHOWN_MAX]
    if kind in MODELS:
        return [kind], []
    near = nearest(kind, MODELS)
    meant = f"; did you mean {near!r}?" if near else f": there are {', '.join(MODELS)}"
    return [near] if near else [], [Problem(("kind",), f"there is no kind {kind!r}{meant}")]


def _judge(model: type[Trigger], found: dict[str, Any], seen: dict[Path, Problem]) -> None:
    """Add what is wrong with a table, of one kind; of several that it may be, each is asked for its own keys."""
    several = any(one.path == () for one in seen.values())
    if several:
        found = {key: value for key, value in found.items() if key in model.model_fields}
    wrong = _wrong(model, found)
    for one in wrong:
        seen.setdefault(one.path, one)
    told_of = {one.path[0] for one in seen.values() if one.path}
    try:
        whole = model.model_validate(_mended(model, found, wrong), context=LOOSE)
    except ValidationError:  # what stands in does not fit, either: what was told is enough
        return
    for keys, message in whole.broken():
        if told_of.isdisjoint(keys):
            place = next(((key,) for key in keys if key in found), ())
            seen.setdefault(place, Problem(place, message))


def _wrong(model: type[Trigger], found: dict[str, Any]) -> list[Problem]:
    """Return what is wrong with each key."""
    try:
        model.model_validate(found, context=LOOSE)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    else:
        return []
    unknown = {
        str(one["loc"][0]): _near(one, model)
        for one in errors
        if one["type"] == "extra_forbidden" and len(one["loc"]) == 1
    }
    inside = {one["loc"][0] for one in errors if len(one["loc"]) > 1}
    return [
        Problem(tuple(standing(one["loc"], found)), _told(one, model))
        for one in errors
        if not (one["type"] == "missing" and one["loc"][0] in unknown.values())  # it is there, misspelt
        and not (one["type"] == "too_short" and one["loc"][0] in inside)  # it is so because of what is wrong inside
    ]


def _near(error: Any, model: type[Trigger]) -> str:
    """Return what an unknown key may have been meant to be."""
    loc: Path = error["loc"]
    within: type[BaseModel] | None = model if len(loc) == 1 else _PARTS.get(str(loc[0]))
    return nearest(str(loc[-1]), within.model_fields) if within is not None else ""


def _told(error: Any, model: type[Trigger]) -> str:
    """Return what is wrong in words: nobody should have to read a pattern."""
    first, given = str(error["loc"][0]) if error["loc"] else "", error.get("input")
    if error["type"] == "extra_forbidden":
        near = _near(error, model)
        return "unknown key" + (f"; did you mean {near!r}?" if near else "")
    if error["type"] == "missing":
        return "it is required"
    if error["type"] == "string_pattern_mismatch" and first in _WORDS:
        return f"{_WORDS[first]} (it is {str(given)[:_SHOWN_MAX]!r})"
    if error["type"] == "string_type" and isinstance(given, bool | int | float):
        return f'it is a text: write it in quotes, "{str(given).lower()[:_SHOWN_MAX]}"'
    if first == "secret" and error["type"] == "model_type":
        return 'it is a reference: write {env = "NAME"} or {file = "path"}'
    message = str(error["msg"]).removeprefix("Value error, ")
    if isinstance(given, str | int | float) and error["type"] != "value_error":
        message += f" (it is {str(given)[:_SHOWN_MAX]!r})"
    return message


def _mended(model: type[Trigger], found: dict[str, Any], wrong: list[Problem]) -> dict[str, Any]:
    """Return a table without what does not fit: something harmless stands in where something must."""
    bad = {one.path[0] for one in wrong if one.path}
    kept = {key: value for key, value in found.items() if key not in bad}
    return {key: text for key, text in _STAND_INS.items() if key in model.model_fields} | kept
