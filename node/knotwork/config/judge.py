"""Do the merged tables fit the model? If not: every problem, each with its place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from knotwork.config import bones, contradictions, wording
from knotwork.config.keys import Path, dotted, known_part, lookup
from knotwork.config.layers import Merged
from knotwork.config.model import Config
from knotwork.config.problems import Problem, did_you_mean

ModelT = TypeVar("ModelT", bound=BaseModel)
_JUDGED_MAX = 10_000  # mistakes of one sort that are looked at; more come from no honest file
_ROUNDS_MAX = 3  # a union may complain about another member after the first correction


def judge(merged: Merged, *, partly: bool = False) -> tuple[Config | None, list[Problem]]:
    """Return the configuration, or None and all problems.

    `partly` says that broken lines are missing from the tables: then nothing is said about what is not there.
    """
    config, errors = fit(Config, merged, ())
    found = [
        problem_of(error, path, merged, known_keys)
        for error, path in errors
        if not (partly and error["type"] == "missing")
    ]
    told = {problem.key for problem in found}
    for rule in () if partly else itertools.islice(contradictions.contradictions(merged.data), _JUDGED_MAX):
        if dotted(rule.path) in told:
            continue
        where = merged.where(known_part(merged.data, rule.path), value=True)
        found.append(Problem(*where, dotted(rule.path), rule.message, rule.hint, rule.code))
    return (config if not found else None), found


def fit(
    model: type[ModelT], merged: Merged, base: Path, data: Any = None
) -> tuple[ModelT | None, list[tuple[ErrorDetails, Path]]]:
    """Return the tables at `base` (or `data`, which stands there) as the model, or errors with their whole paths.

    Text from the environment whose type does not fit is tried in its other reading.
    """
    table = lookup(merged.data, base) if data is None else data
    tried: set[Path] = set()
    for _ in range(_ROUNDS_MAX):
        try:
            return model.model_validate(table), []
        except ValidationError as error:
            errors = [
                (detail, base + wording.path_of(detail, table))
                for detail in error.errors(include_url=False)[:_JUDGED_MAX]
            ]
        if not _reread(merged, base, table, {path for detail, path in errors if _of_type(detail)} - tried):
            break
        tried.update(path for _, path in errors)
    return None, errors


def problem_of(
    error: ErrorDetails, path: Path, merged: Merged, known: Callable[[Path], Sequence[str]], where: Path | None = None
) -> Problem:
    """Return one error as a problem; `known` tells the keys of a table, `where` a better place than `path`."""
    message, code = wording.say(error, path)
    hint = ""
    if error["type"] == "extra_forbidden":
        hint = (
            did_you_mean(str(path[-1]), known(path[:-1]))
            if not (home := _home_of(path))
            else f"It belongs in [{home}]."
        )
    elif error["type"] == "literal_error" and isinstance(error.get("input"), str):
        options = str(error.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(", ")
        near = did_you_mean(str(error["input"]), [option.strip("'") for option in options])
        hint = near if near.startswith("Did") else ""
    elif error["type"] == "model_type" and str(error.get("ctx", {}).get("class_name")) == "SecretRef":
        hint = 'Write a secret as a reference: {env = "NAME"}, {file = "path"} or {cmd = ["program"]}.'
        code = "config.plain_secret"
    there = known_part(merged.data, where or path)
    return Problem(*merged.where(there, value=not wording.about_key(error)), dotted(path), message, hint, code)


def known_keys(path: Path) -> Sequence[str]:
    """Return the keys that may stand in the table at `path` of the configuration."""
    return bones.keys_in(SKELETON, path)


SKELETON = bones.skeleton(Config)


def _home_of(path: Path) -> str:
    """Return the one table that knows this key, when it stands at top level by mistake."""
    if len(path) != 1:
        return ""
    homes = [name for name, table in SKELETON.items() if isinstance(table, dict) and path[0] in table]
    return homes[0] if len(homes) == 1 else ""


def _of_type(error: ErrorDetails) -> bool:
    return error["type"] in wording.READING_TYPES or error["type"].endswith("_parsing")


def _reread(merged: Merged, base: Path, table: Any, paths: set[Path]) -> bool:
    changed = False
    for path in paths:
        if path in merged.readings and len(path) > len(base):
            lookup(table, path[len(base) : -1])[path[-1]] = merged.readings[path]
            changed = True
    return changed
