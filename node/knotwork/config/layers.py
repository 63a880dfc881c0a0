"""What do several layers of configuration say together, and which layer said what?

Later layers win, key by key; arrays are replaced whole. Among the files of a folder nothing may be said twice.
Text out of an environment variable has no TOML type: where "8080" could be a number or a name, the value carries its
other reading in `readings`, and validation takes the one that fits.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knotwork.config import positions
from knotwork.config.keys import Path, dotted
from knotwork.config.parse import too_deep
from knotwork.config.problems import Problem
from knotwork.config.substitute import Refused, substitute

PREFIX = "KNOTWORK__"
_DEEP = "tables or arrays are nested too deeply"
UNITS = ("executors", "routers", "memories", "targets", "telemetry", "triggers", "projects", "boundaries")
_OTHER_READING = re.compile(r"true|false|[+-]?\d[\d_]*|[+-]?\d[\d_]*(\.\d+)?([eE][+-]?\d+)?")


@dataclass(slots=True)
class Layer:
    """One source: its tables, and the text they came from (None: there is no text to point into).

    `name` is a file, `env NAME` or `--set key=`; `shared` marks files of one folder.
    """

    name: str
    data: dict[str, Any]
    text: str | None = None
    shared: bool = False
    _places: dict[Path, positions.Place] | None = None

    def place(self, path: Path, *, value: bool = False) -> tuple[int, int]:
        """Return line and column of `path` (of its value when `value`), both from 1; (0, 0) when there is no text."""
        if self.text is None:
            return 0, 0
        if self._places is None:
            self._places = positions.positions(self.text)
        return positions.locate(self._places, path, value=value)


@dataclass(slots=True)
class Merged:
    """All layers as one tree, which layer each path came from, and second readings of untyped text.

    `clashes` are keys that two files of one folder write: (path, first file, second file).
    """

    data: dict[str, Any] = field(default_factory=dict)
    owner: dict[Path, Layer] = field(default_factory=dict)
    readings: dict[Path, Any] = field(default_factory=dict)
    clashes: list[tuple[Path, Layer, Layer]] = field(default_factory=list)
    _in_folder: dict[Path, Layer] = field(default_factory=dict)

    def add(self, layer: Layer) -> None:
        """Lay one more layer over what is there."""
        self._overlay(self.data, layer.data, layer, ())

    def _overlay(self, base: dict[str, Any], over: Mapping[str, Any], layer: Layer, path: Path) -> None:
        for key, value in over.items():
            here = (*path, key)
            table = isinstance(value, dict)
            if layer.shared and (not table or _is_unit(here)):
                first = self._in_folder.setdefault(here, layer)
                if first is not layer:
                    self.clashes.append((here, first, layer))
                    continue
            if table and isinstance(base.get(key), dict):
                self._overlay(base[key], value, layer, here)
                continue
            self.owner[here] = layer
            self.readings = {there: other for there, other in self.readings.items() if there[: len(here)] != here}
            if table:
                base[key] = {}
                self._overlay(base[key], value, layer, here)
            else:
                base[key] = value

    def where(self, path: Path, *, value: bool = False) -> tuple[str, int, int]:
        """Return file (or other source), line and column of `path`; of the nearest table around it if need be."""
        layer = self.owner_of(path)
        return (layer.name, *layer.place(path, value=value)) if layer else ("configuration", 0, 0)

    def owner_of(self, path: Path) -> Layer | None:
        """Return the layer that wrote `path`, or the nearest table around it that was written."""
        for length in range(len(path), 0, -1):
            if layer := self.owner.get(path[:length]):
                return layer
        return None


def fill_in(layer: Layer, env: Mapping[str, str]) -> tuple[dict[Path, Any], list[tuple[Path, Refused]]]:
    """Fill the `${VAR}` in every text of a layer, in place; return the second readings and what was refused."""
    readings: dict[Path, Any] = {}
    refused: list[tuple[Path, Refused]] = []

    def filled(value: Any, path: Path) -> Any:
        if isinstance(value, str) and "$" in value:
            try:
                value, used = substitute(value, env)
            except Refused as problem:
                refused.append((path, problem))
                return value
            if used and _OTHER_READING.fullmatch(value):
                readings[path] = _typed(value)
            return value
        if isinstance(value, dict):
            return {key: filled(part, (*path, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [filled(part, (*path, index)) for index, part in enumerate(value)]
        return value

    layer.data = filled(layer.data, ())
    return readings, refused


def from_env(
    env: Mapping[str, str], below: Mapping[str, Any], model_keys: Mapping[str, Any]
) -> tuple[list[Layer], dict[Path, str], list[Problem]]:
    """Return one layer per `KNOTWORK__SECTION__KEY`, their raw texts by path, and what is wrong with them.

    A part of the name stands for the key it equals without regard to case, `-` and `_`, among the keys written in
    the layers below and those of the model; else for itself in lower case.
    """
    layers: list[Layer] = []
    raw: dict[Path, str] = {}
    problems: list[Problem] = []
    for name in sorted(env):
        if not name.upper().startswith(PREFIX):
            continue
        parts = name[len(PREFIX) :].split("__")
        if not all(parts):
            hint = "Write KNOTWORK__SECTION__KEY, for example KNOTWORK__WEB__PORT."
            problems.append(Problem(f"env {name}", 0, 0, "", "this name leads to no key", hint, "config.unknown_key"))
            continue
        if any(mark in env[name] for mark in "\n\r"):
            problems.append(
                Problem(f"env {name}", 0, 0, "", "the value holds a line break", "", "config.newline_in_value")
            )
            continue
        path = _path_of(parts, below, model_keys)
        layer = Layer(f"env {name}", _nested(path, _typed(env[name])))
        if too_deep(layer.data):
            problems.append(Problem(layer.name, 0, 0, "", _DEEP, "", "config.too_deep"))
            continue
        layers.append(layer)
        raw[path] = env[name]
    return layers, raw, problems


def from_set(written: str) -> tuple[Layer, Path, str] | Problem:
    """Return the layer of one `--set key=value`, its path and its raw text, or what is wrong with it."""
    key, equals, value = written.partition("=")
    name = f"--set {key.strip()[:200]}"
    hint = "Write --set section.key=value."
    if not equals or "\n" in written or "\r" in written:
        return Problem(name, 0, 0, "", "this is no key=value on one line", hint, "config.bad_set")
    try:
        data = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return Problem(name, 0, 0, "", "this is no key", hint, "config.bad_set")
    path: Path = ()
    while isinstance(data, dict):
        part = next(iter(data), None)
        if part is None:
            return Problem(name, 0, 0, "", "this is no key", hint, "config.bad_set")
        path, data = (*path, part), data[part]
    layer = Layer(name, _nested(path, _typed(value.strip())))
    if too_deep(layer.data):
        return Problem(name, 0, 0, "", _DEEP, "", "config.too_deep")
    return layer, path, value.strip()


def clash_message(path: Path, first: str) -> tuple[str, str]:
    """Return message and hint for a key that two files of one folder write."""
    what = "id" if _is_unit(path) else "key"
    return f"duplicate {what}: {dotted(path)} is already in {first}", "Keep it in one of the two files."


def _is_unit(path: Path) -> bool:
    """Tell whether the path is kind and id: a table that is declared in one place or nowhere."""
    return len(path) == 2 and path[0] in UNITS  # noqa: PLR2004 - kind and id


def _path_of(parts: list[str], below: Mapping[str, Any], model_keys: Mapping[str, Any]) -> Path:
    path: Path = ()
    tables: list[Any] = [below, model_keys]
    for part in parts:
        plain = part.lower().replace("-", "_")
        known = {
            key.lower().replace("-", "_"): key
            for table in reversed(tables)
            if isinstance(table, Mapping)
            for key in table
        }
        key = known.get(plain, part.lower())
        path = (*path, key)
        tables = [table.get(key, table.get("*")) if isinstance(table, Mapping) else None for table in tables]
    return path


def _typed(text: str) -> Any:
    """Return the TOML value the text is, else the text itself."""
    try:
        data = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return data["value"] if len(data) == 1 else text


def _nested(path: Path, value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested
