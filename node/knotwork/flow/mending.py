"""What would a workflow say if what does not fit the model were mended? So that the rest of it can be checked, too (pure).

The model refuses a text as a whole, and looks at nothing behind the first kind of error. Here each step is read by itself,
and whatever is wrong in it is replaced by something harmless until the rest can be read. Names stay as they were written,
since others speak of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from knotwork.config.problems import nearest, standing
from knotwork.flow.model import (
    AGENT,
    EVENT,
    KINDS,
    NAME,
    WORD,
    AnyStep,
    Step,
    TaskStep,
    Work,
    Workflow,
    with_kind,
)
from knotwork.flow.model import STEPS_MAX as STEPS_MOST

Path = tuple[str | int, ...]
ROUNDS_MAX = 12
STEPS_MAX = 200
"""Steps that are mended; with more of them wrong, there is enough to be told."""
STEP = 2
"""Parts of the path of a step: steps.<id>."""
_GONE = object()
_HARMLESS: tuple[Any, ...] = ("x", 1, _GONE, ["x"], [{}], {}, [], True)
"""What stands in for a value that does not fit, one after another; `_GONE`: nothing, so that its default counts."""
_NAMES = ("on_failure", "compensate")
_STAND_IN = {"capability": "x"}
_WORD = "small letters, digits, - and _, a letter or digit first, 64 characters at most"
_WORDS = {
    f"^{NAME}$": "a name has small letters, digits, _ and single dashes inside, a letter or digit first",
    WORD: f"it has {_WORD}",
    AGENT: f"write agent or node/agent: each has {_WORD}",
    EVENT: "an event has one to eight words with dots between them, of small letters, digits, - and _",
}
"""What the patterns of the model ask for."""
_PLAIN = {
    "too_short": "it has {actual_length} items, and needs at least {min_length}",
    "dict_type": "it should be a table",
    "model_type": "it should be a table",
    "model_attributes_type": "it should be a table",
    "tuple_type": "it should be a list",
}
"""What the model says in words of Python."""
_KIND_ERRORS = ("union_tag_invalid", "union_tag_not_found")


@dataclass(frozen=True, slots=True)
class Misfit:
    """What the model says against a part of a workflow, and where in the text that stands."""

    path: Path
    type: str
    message: str
    given: Any = None


@dataclass(slots=True)
class Mended:
    """A workflow as far as it can be read, and what does not fit."""

    workflow: Workflow
    misfits: list[Misfit] = field(default_factory=list)


def mended(data: dict[str, Any]) -> Mended:
    """Return a workflow that is as near as can be to what was written, and all that had to be mended."""
    whole, misfits = _whole(data)
    steps: dict[str, AnyStep] = {}
    wrong = 0
    written = data.get("steps")
    for name, raw in written.items() if isinstance(written, dict) else ():
        if not isinstance(name, str):
            continue
        before = len(misfits)
        steps[name] = _step(raw, ("steps", name), misfits, mends=wrong < STEPS_MAX)
        wrong += len(misfits) > before
    update: dict[str, Any] = {"steps": steps}
    for key in ("on_failure",):
        if isinstance(data.get(key), str):
            update[key] = data[key]
    if not steps:
        update |= {"output": None, "on_failure": None}  # they speak of steps that nobody knows
    return Mended(whole.model_copy(update=update), misfits)


def _whole(data: dict[str, Any]) -> tuple[Workflow, list[Misfit]]:
    """Return what holds for all steps, and what is wrong with that and with the names of steps."""
    misfits: list[Misfit] = []
    try:
        Workflow.model_validate(data)
    except ValidationError as error:
        for one in _misfits(error, data, ()):
            named = one.path[:1] == ("steps",) and (len(one.path) == 1 or one.type.startswith("string"))
            if one.path[:1] != ("steps",) or (named and len(one.path) <= 2):  # noqa: PLR2004  the name of a step
                misfits.append(one)
    rest: dict[str, Any] = {key: value for key, value in data.items() if isinstance(key, str)}
    steps = {"steps": {"x": dict(_STAND_IN)}}
    found = _mend({**rest, **steps}, Workflow.model_validate, (), [*misfits])
    return found if found is not None else Workflow.model_validate({"name": "x", **steps}), misfits


def _step(raw: Any, at: Path, misfits: list[Misfit], *, mends: bool) -> AnyStep:
    """Return a step as far as it can be read; adds what is wrong with it."""
    try:
        fits: AnyStep = _adapter().validate_python(raw)
    except ValidationError as error:
        first = list(_misfits(error, raw, at))
    else:
        return fits
    if not isinstance(raw, dict) or not mends:
        misfits += first
        return TaskStep(**_STAND_IN)
    data: dict[str, Any] = {key: value for key, value in raw.items() if isinstance(key, str)}
    before = len(misfits)
    if any(one.type in _KIND_ERRORS for one in first):
        near = nearest(str(data.get("kind")), KINDS)
        misfits.append(_no_kind(at, data.get("kind"), near))
        data = {**data, "kind": near} if near else _only_common(data)
    found = _mend(data, _adapter().validate_python, at, misfits)
    if len(misfits) == before:  # such as a key that is no text
        misfits += first
    if found is None:
        return TaskStep(**_STAND_IN)
    update: dict[str, Any] = {key: raw[key] for key in _NAMES if isinstance(raw.get(key), str)}
    parents = raw.get("depends_on")
    if isinstance(parents, list) and all(isinstance(one, str) for one in parents):
        update["depends_on"] = tuple(parents)
    made: AnyStep = found.model_copy(update=update)
    return made


def _no_kind(at: Path, kind: Any, near: str) -> Misfit:
    meant = f"; did you mean {near!r}?" if near else f": there are {', '.join(KINDS)}"
    return Misfit((*at, "kind"), "no_kind", f"there is no kind of step {str(kind)[:80]!r}{meant}")


def _only_common(data: dict[str, Any]) -> dict[str, Any]:
    """Return what all kinds of steps have, of one whose kind nobody knows."""
    return {key: value for key, value in data.items() if key in Step.model_fields} | _STAND_IN


def _mend(data: dict[str, Any], read: Any, at: Path, misfits: list[Misfit]) -> Any:
    """Return what `read` makes of data, with what does not fit replaced; None when that never fits. Adds what is wrong."""
    data = copy.deepcopy(data)
    tried: dict[Path, int] = {}
    seen = {one.path for one in misfits}
    ours: set[Path] = set()  # where something stands that nobody wrote: what is wrong with that is not told
    for _ in range(ROUNDS_MAX):
        try:
            return read(data)
        except ValidationError as error:
            found = {one.path: one for one in reversed(list(_misfits(error, data, at)))}
        for path, one in reversed(found.items()):
            if path not in seen and not any(path[:end] in ours for end in range(len(at), len(path) + 1)):
                misfits.append(one)
            seen.add(path)
            ours |= {(*at, *put) for put in _replace(data, path[len(at) :], tried.get(path, 0), one)}
            tried[path] = tried.get(path, 0) + 1
    return None


def _replace(data: dict[str, Any], path: Path, times: int, misfit: Misfit) -> Iterator[Path]:
    """Put something harmless in the place of what does not fit; `times`: how often that was done before.

    Yields where it was put.
    """
    if not path:  # it is the step as a whole: it says two things of which it may say one, or none of them
        _choose(data)
        return
    where = _around(data, path)
    if where is None:
        return
    if path[-1] == "limit" and misfit.type == "value_error" and isinstance(where["limit"], dict):
        where["limit"]["concurrency"] = 1  # what else it says is still looked at
        return
    value = _HARMLESS[times % len(_HARMLESS)]
    if misfit.type == "extra_forbidden":
        value = _GONE
        meant = nearest(str(path[0]), _fields(data)) if len(path) == 1 else ""
        if meant and meant not in data and not meant.endswith("_schema"):  # those are never missing
            data[meant] = where[path[0]]  # so that what it stands for is not told to be missing
            yield (meant,)
    if value is not _GONE:
        where[path[-1]] = copy.deepcopy(value)
        yield path
    elif isinstance(where, dict):
        where.pop(path[-1], None)


def _around(data: dict[str, Any], path: Path) -> Any:
    """Return the table or list that something stands in; None when that was replaced in this round, or is mended here."""
    where: Any = data
    try:
        for part in path[:-1]:
            where = where[part]
    except (LookupError, TypeError):
        return None
    if isinstance(where, list):
        return where if isinstance(path[-1], int) else None
    if isinstance(where, dict) and not isinstance(path[-1], str):
        where.pop(path[-1], None)  # a key that is no text
        return None
    return where if isinstance(where, dict) else None


def _fields(data: dict[str, Any]) -> list[str]:
    model = Workflow if "steps" in data else KINDS.get(str(data.get("kind", "task")), Step)
    return list(model.model_fields)


def _choose(data: dict[str, Any]) -> None:
    model = KINDS.get(str(data.get("kind", "task")))
    if model is not None and issubclass(model, Work):
        data.pop("agent", None)
        data |= _STAND_IN
    else:
        for key in ("until", "cron"):
            data.pop(key, None)
        data["duration"] = 1


def _misfits(error: ValidationError, data: Any, at: Path) -> Iterator[Misfit]:
    for one in error.errors(include_url=False):
        if one["type"] == "too_short" and len(one["input"]) >= one["ctx"]["min_length"]:
            continue  # of what is there nothing fits, which is told of each
        path = (*at, *_real(one["loc"], data, len(at)))
        yield Misfit(path, one["type"], _told(path, one), one.get("input"))


def _told(path: Path, error: Any) -> str:
    """Return what is wrong in words: nobody should have to read a pattern, or which of two types was tried first."""
    if path and path[-1] == "allowed_failures" and error["type"] in ("int_parsing", "string_pattern_mismatch"):
        return 'it should be a number of items, or a share of them from "0%" to "100%"'
    if path and path[-1] == "need" and error["type"] != "extra_forbidden":
        return f'it should be "all", "any", or how many of its steps, from 1 to {STEPS_MOST}'
    if error["type"] in _PLAIN:
        return _PLAIN[error["type"]].format(**error.get("ctx", {}))
    pattern = str(error.get("ctx", {}).get("pattern", ""))
    message: str = _WORDS.get(pattern) or error["msg"].removeprefix("Value error, ")
    return message


def _real(loc: Path, data: Any, within: int) -> Iterator[str | int]:
    """Yield the part of a place that stands in the text (`standing`).

    `within` is how far inside of a workflow the place begins.
    """
    kind = STEP - within
    if 0 <= kind < len(loc) and loc[kind] in KINDS and (within or loc[0] == "steps"):
        loc = (*loc[:kind], *loc[kind + 1 :])  # the kind of the step
    return standing(loc, data)


_made: list[TypeAdapter[Any]] = []


def _adapter() -> TypeAdapter[Any]:
    if not _made:  # built at its first use: most nodes read no workflow that is wrong
        _made.append(TypeAdapter(Annotated[AnyStep, BeforeValidator(with_kind)]))
    return _made[0]
