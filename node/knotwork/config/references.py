"""Can every secret be had that the configuration refers to? Asked before anything is started, so that all is told at once.

Variables and files are looked at. A command is not run for that: it may ask a person, or take its time.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from knotwork.config import secrets
from knotwork.config.keys import Path, dotted, known_part
from knotwork.config.layers import Merged
from knotwork.config.problems import Problem
from knotwork.sdk import KnotworkError, SecretRef

Reference = tuple[Path, SecretRef]
_CORE = ("password", "token", "nkey_seed")


def inside(value: Any, path: Path = ()) -> Iterator[Reference]:
    """Yield every secret reference in a checked configuration and its place below `path`."""
    if isinstance(value, SecretRef):
        yield path, value
    elif isinstance(value, BaseModel):
        fields = type(value).model_fields
        for name, part in value:
            yield from inside(part, (*path, (fields[name].alias or name) if name in fields else name))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from inside(part, (*path, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, part in enumerate(value):
            yield from inside(part, (*path, index))


def as_written(model: type[BaseModel], table: Mapping[str, Any], path: Path) -> Iterator[Reference]:
    """Yield the references of a table that does not fit its model, as far as they stand where the model wants some."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield from _written(field.annotation, table.get(key), (*path, key))


def _written(wanted: Any, value: Any, path: Path) -> Iterator[Reference]:
    kind, inner = get_origin(wanted), get_args(wanted)
    if wanted is SecretRef:
        with contextlib.suppress(ValidationError):
            yield path, SecretRef.model_validate(value)
    elif isinstance(wanted, type) and issubclass(wanted, BaseModel) and isinstance(value, Mapping):
        yield from as_written(wanted, value, path)
    elif kind is dict and isinstance(value, Mapping):
        for key, part in value.items():
            yield from _written(inner[1], part, (*path, str(key)))
    elif kind in (list, tuple) and isinstance(value, list):
        for index, part in enumerate(value):
            yield from _written(inner[0], part, (*path, index))
    elif kind in (Union, UnionType, Annotated):
        for one in inner if kind is not Annotated else inner[:1]:
            yield from _written(one, value, path)


def of_the_node(data: Mapping[str, Any]) -> Iterator[Reference]:
    """Yield the references in `[nats]` and `[projects.*]` as they are written; what is none is judged elsewhere."""
    projects = data.get("projects")
    tables: list[tuple[Path, Any]] = [(("nats",), data.get("nats"))]
    tables += [(("projects", name), table) for name, table in projects.items()] if isinstance(projects, Mapping) else []
    for path, table in tables:
        for key in _CORE if isinstance(table, Mapping) else ():
            try:
                yield (*path, key), SecretRef.model_validate(table.get(key))
            except ValidationError:
                continue


def out_of_reach(
    references: Iterable[Reference], merged: Merged, env: Mapping[str, str], folder: pathlib.Path
) -> list[Problem]:
    """Return one problem per reference whose variable or file holds no secret now, with its place. Reads files."""
    problems = []
    for path, reference in references:
        if reference.cmd is not None:
            continue
        try:
            secrets.resolve(reference, env=env, folder=folder)
        except KnotworkError as error:
            where = merged.where(known_part(merged.data, path), value=True)
            message = f"{dotted(path)}: {error.message.rstrip('.')}"
            problems.append(Problem(*where, dotted(path), message, error.hint, "config.missing_secret"))
    return problems
