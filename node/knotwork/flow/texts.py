"""What does a text in TOML, YAML or JSON say, and where in it does each thing stand? The language is told by looking (pure)."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import tomllib
from collections.abc import Callable
from typing import Any

import yaml

from knotwork.config import positions
from knotwork.flow.yaml_text import Loader, Twice

Path = tuple[str | int, ...]
Locate = Callable[[Path], tuple[int, int]]
DEPTH_MAX = 400
"""Tables and lists in each other that are looked through; how many may be meant is less, and the caller's to say."""
_LIKE_TOML = re.compile(r"^\s*(\[|[\w.\"'-]+\s*=)", re.MULTILINE)
_SHOWN_MAX = 80
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Whole numbers that are stored as they are."""
_DEEP = "It is nested too deeply."


class Unreadable(Exception):
    """A text that is no TOML, YAML or JSON; `line` and `column` (from 1) and `path` say where."""

    def __init__(self, line: int, column: int, message: str, path: Path = ()) -> None:
        """Say what is wrong at a place."""
        super().__init__(message)
        self.line, self.column, self.message, self.path = line, column, message, path


def read(text: str, size_max: int) -> tuple[Any, Locate]:
    """Return what a text says, and what gives the line and column of a path in it; raises `Unreadable`."""
    if len(text.encode("utf-8", "replace")) > size_max:
        raise Unreadable(1, 1, f"It is larger than {size_max} bytes.")
    data, locate = _json(text) if text.lstrip("\ufeff \t\r\n")[:1] == "{" else _toml_or_yaml(text)
    try:
        return _plain(data, ()), locate
    except _Odd as odd:
        raise Unreadable(*locate(odd.path), odd.message, odd.path) from None


class _Odd(Exception):
    """A value that cannot be written as JSON, and where it is."""

    def __init__(self, path: Path, message: str) -> None:
        """Name it."""
        super().__init__(message)
        self.path, self.message = path, message


def _plain(value: Any, path: Path) -> Any:
    """Return a value as JSON has it: TOML's dates and times as texts; raises `_Odd` for what JSON has not."""
    if len(path) > DEPTH_MAX:
        raise _Odd((), _DEEP)
    match value:
        case dict():
            return {_plain(key, path): _plain(one, (*path, key)) for key, one in value.items()}
        case list():
            return [_plain(one, (*path, number)) for number, one in enumerate(value)]
        case str() if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _Odd(path, "Half a letter (a lone surrogate) stands in it, which is no text.")
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat().replace("+00:00", "Z")
        case int() if not _LEAST <= value <= _MOST:
            raise _Odd(path, "The number is too large: whole numbers have 64 bits.")
        case float() if not math.isfinite(value):
            raise _Odd(path, f"{value} is no number that can be kept.")
    return value


def _toml_or_yaml(text: str) -> tuple[Any, Locate]:
    try:
        data: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if _LIKE_TOML.search(text) and not _is_yaml(text):
            raise _toml_error(error) from error
        return _yaml(text)
    except RecursionError as error:
        raise Unreadable(1, 1, _DEEP) from error
    except ValueError as error:  # int() refuses numbers of thousands of digits
        raise Unreadable(1, 1, f"It is no TOML: {error}."[:300]) from error
    places: list[Any] = []  # once, when the first place is asked for

    def locate(path: Path) -> tuple[int, int]:
        if not places:
            places.append(positions.positions(text))
        return positions.locate(places[0], path)

    return data, locate


def _json(text: str) -> tuple[Any, Locate]:
    try:
        data = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_once)
    except RecursionError as error:
        raise Unreadable(1, 1, _DEEP) from error
    except json.JSONDecodeError as error:
        raise Unreadable(error.lineno, error.colno, f"It begins like JSON and is none: {error.msg}.") from error
    except _Again as error:
        raise _again(text, error.key) from error
    except ValueError as error:  # likewise
        raise Unreadable(1, 1, f"It is no JSON: {error}."[:300]) from error
    return data, _in_yaml(_spaced(text))


class _Again(Exception):
    """A key that stands in one object twice."""

    def __init__(self, key: str) -> None:
        """Name it."""
        super().__init__(key)
        self.key = key


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        words = [key for key, _ in pairs]
        raise _Again(next(key for place, key in enumerate(words) if key in words[:place]))
    return found


def _again(text: str, key: str) -> Unreadable:
    """Return where in JSON a key stands for the second time."""
    try:
        yaml.compose(_spaced(text), Loader)
    except Twice as error:
        mark = error.problem_mark
        if mark is not None:
            return Unreadable(mark.line + 1, mark.column + 1, f"A key stands twice: {error.problem}.")
    except (yaml.YAMLError, RecursionError):
        pass
    return Unreadable(1, 1, f"A key stands twice: {key[:_SHOWN_MAX]!r}.")


def _spaced(text: str) -> str:
    """Return JSON as YAML, as far as places go: that takes no tabs between words."""
    return text.replace("\t", " ")


def _yaml(text: str) -> tuple[Any, Locate]:
    try:
        data = yaml.load(text, Loader)  # noqa: S506  a safe loader, made safer
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        if isinstance(error, Twice):
            raise Unreadable(line, column, f"A key stands twice: {error.problem}.") from error
        raise Unreadable(line, column, f"It is no YAML: {error.problem or error.context}.") from error
    except RecursionError as error:
        raise Unreadable(1, 1, _DEEP) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        raise Unreadable(
            line, column, f"It is no YAML: the letter #x{ord(text[error.position]):04x} cannot stand in it."
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(1, 1, f"It is no YAML: {error}."[:300]) from error
    return data, _in_yaml(text)


def _is_yaml(text: str) -> bool:
    try:
        return isinstance(yaml.load(text, Loader), dict)  # noqa: S506  likewise
    except Twice:
        return True
    except (yaml.YAMLError, RecursionError, ValueError):
        return False


def _toml_error(error: tomllib.TOMLDecodeError) -> Unreadable:
    found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    line, column = (int(found[1]), int(found[2])) if found else (1, 1)
    return Unreadable(line, column, f"It is no TOML: {str(error).partition(' (at ')[0]}.")


def _in_yaml(text: str) -> Locate:
    read: list[Any] = []  # once, when the first place is asked for

    def locate(path: Path) -> tuple[int, int]:
        try:
            if not read:
                read.append(yaml.compose(text, Loader))
        except (yaml.YAMLError, RecursionError):
            return 1, 1
        node = read[0]
        mark = node.start_mark if node is not None else None
        for part in path:
            found = _inside(node, part)
            if found is None:
                break
            mark, node = found
        return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)

    return locate


def _inside(node: Any, part: str | int) -> tuple[Any, Any] | None:
    """Return where a key, or an item, stands, and its value."""
    if isinstance(node, yaml.MappingNode):
        return next(((key.start_mark, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark, node.value[part]
    return None
