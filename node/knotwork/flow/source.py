"""What does the text of a workflow say, and where in it does each thing stand? TOML, YAML or JSON, told apart by looking.

Whoever writes a workflow is told everything that is wrong with it at once, with line and column.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from knotwork.config import positions
from knotwork.config.parse import too_deep
from knotwork.config.problems import nearest
from knotwork.flow import graph, mending
from knotwork.flow.definitions import SIZE_MAX_BYTES
from knotwork.flow.model import KINDS, Workflow
from knotwork.flow.slips import slips

Path = tuple[str | int, ...]
PROBLEMS_MAX = 200
_LIKE_TOML = re.compile(r"^\s*(\[|[\w.\"'-]+\s*=)", re.MULTILINE)
_SHOWN_MAX = 80


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong in a text: what, where (path, and line and column from 1), and what to do."""

    path: str
    line: int
    column: int
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a text says: a workflow, or what is wrong with it."""

    workflow: Workflow | None
    flaws: tuple[Flaw, ...] = ()


class Twice(yaml.composer.ComposerError):
    """A key that stands in one table twice."""


class Loader(yaml.SafeLoader):
    """YAML without aliases: ten lines of them can mean a billion."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; raises `ComposerError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not taken", mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Return the next table; raises `Twice` for a key that stands in it twice: one would be lost in silence."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            place: Any = key.start_mark
            before = first.setdefault((key.tag, key.value), place)
            if before is not place:
                told = f"{key.value[:_SHOWN_MAX]!r} is in line {before.line + 1} already"
                raise Twice(None, None, told, key.start_mark)
        return node


class Unreadable(Exception):
    """A text that is no TOML, YAML or JSON; `flaw` says where and why."""

    def __init__(self, line: int, column: int, message: str) -> None:
        """Say what is wrong at a place."""
        super().__init__(message)
        self.flaw = Flaw("", line, column, message)


Locate = Callable[[Path], tuple[int, int]]


def check(definition: Any) -> Checked:
    """Return what a text (or what was read from one) says; never raises for what is in it."""
    try:
        if isinstance(definition, str):
            return _judged(*read(definition, SIZE_MAX_BYTES))
        return _judged(definition, lambda _: (1, 1))
    except Unreadable as error:
        return Checked(None, (error.flaw,))


def read(text: str, size_max: int) -> tuple[Any, Locate]:
    """Return what a text says, and what gives the line and column of a path in it; raises `Unreadable`."""
    if len(text.encode("utf-8", "replace")) > size_max:
        raise Unreadable(1, 1, f"It is larger than {size_max} bytes.")
    if text.lstrip()[:1] == "{":
        return _json(text)
    try:
        data: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if _LIKE_TOML.search(text) and not _is_yaml(text):
            raise _toml_error(error) from error
        return _yaml(text)
    except RecursionError as error:
        raise Unreadable(1, 1, "It is nested too deeply.") from error
    places: list[Any] = []  # once, when the first place is asked for

    def locate(path: Path) -> tuple[int, int]:
        if not places:
            places.append(positions.positions(text))
        return positions.locate(places[0], path)

    return data, locate


def _json(text: str) -> tuple[Any, Locate]:
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise Unreadable(1, 1, "It is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise Unreadable(error.lineno, error.colno, f"It begins like JSON and is none: {error.msg}.") from error
    except _Again as error:
        raise _again(text, error.key) from error
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
    except (yaml.YAMLError, RecursionError, ValueError) as error:
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


# -- what is wrong with it -----------------------------------------------------------------------------------------------


def _judged(data: Any, locate: Locate) -> Checked:
    if not isinstance(data, dict):
        raise Unreadable(1, 1, "A workflow is a table with a name and steps.")
    if too_deep(data):
        raise Unreadable(1, 1, "It is nested too deeply.")
    try:
        workflow = Workflow.model_validate(data)
    except ValidationError:
        return Checked(None, _flaws(data, locate))
    problems = [*graph.check(workflow), *slips(workflow)]
    flaws = tuple(_flaw(one, locate) for one in problems[:PROBLEMS_MAX])
    return Checked(None if flaws else workflow, _sorted(flaws))


def _flaws(data: dict[Any, Any], locate: Locate) -> tuple[Flaw, ...]:
    """Return what the model says against a definition, and what is wrong with the rest of it."""
    found = mending.mended(data)
    # a table that says too little as a whole may still be wrong inside
    told = {one.path for one in found.misfits if not (one.type == "value_error" and isinstance(one.given, dict))}
    misfits = [_misfit(one, data, locate) for one in found.misfits[:PROBLEMS_MAX]]
    problems = (*graph.check(found.workflow), *slips(found.workflow))
    more = [one for one in problems if not any(one.path[:end] in told for end in _ends(one.path))]
    return _sorted((*misfits, *(_flaw(one, locate) for one in more[: PROBLEMS_MAX - len(misfits)])))


def _ends(path: Path) -> range:
    """Return how long the places are that a place lies in, but for steps as a whole: what is in those may be sound."""
    return range(1 if path[0] != "steps" else STEP_KEY, len(path) + 1)


def _sorted(flaws: tuple[Flaw, ...]) -> tuple[Flaw, ...]:
    return tuple(sorted(flaws, key=lambda one: (one.line, one.column)))


def _flaw(problem: graph.Problem, locate: Locate) -> Flaw:
    return Flaw(dotted(problem.path), *locate(problem.path), problem.message, problem.hint)


def _misfit(one: mending.Misfit, data: Any, locate: Locate) -> Flaw:
    message = one.message
    if one.type == "extra_forbidden":
        message = f"unknown key{_near(one.path, data)}"
    elif isinstance(one.given, str | int | float):
        message += f" (it is {str(one.given)[:_SHOWN_MAX]!r})"
    return Flaw(dotted(one.path), *locate(one.path), message)


def _near(path: Path, data: Any) -> str:
    """Return what an unknown key may have been meant to be."""
    at = data
    for part in path[:-1]:
        at = at[part]
    kind = at.get("kind", "task") if path[0] == "steps" and len(path) == STEP_KEY else ""
    model: Any = Workflow if len(path) == 1 else KINDS.get(str(kind))
    near = nearest(str(path[-1]), model.model_fields) if model is not None else ""
    return f"; did you mean {near!r}?" if near else ""


STEP_KEY = 3
"""Parts of the path of a key of a step: steps.<id>.<key>."""


def dotted(path: Path) -> str:
    """Return a path as people write it."""
    return ".".join(str(part) for part in path)
