"""What does an expression give? JMESPath (https://jmespath.org), which can look at data and nothing else (pure).

An expression sees `input` (of the run), `steps.<id>.output`, `.state` and `.error` of steps that ended before, `run.id`
and `run.workflow`; in a map also `item` and `index`, in a match also `event`. Ids with a dash are quoted: `steps."a-b"`.
Whoever writes one may mean harm: how deep it is, and by how much it can multiply what it looks at, is bounded.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.parser import ParsedResult

from knotwork.sdk.errors import Invalid

DEPTH_MAX = 100
CALLS_TOLD_MAX = 5
COPIES_MAX = 256
"""How often an expression may repeat what it looks at."""
SIZE_MAX_BYTES = 64 * 1024 * 1024
"""The same as for a value that is kept."""
HINT = "Expressions are JMESPath, e.g. steps.build.output.count > `3`."
_ON_DATA = (JMESPathError, RecursionError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
_FUNCTIONS: dict[str, Any] = Functions.FUNCTION_TABLE
_NAME_MAX = 80
_OPEN, _CLOSE = "{{", "}}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression that can be searched with; `grows`: it may give more than it looked at."""

    parsed: ParsedResult
    grows: bool


@lru_cache(maxsize=4096)
def compiled(text: str) -> Compiled:
    """Return an expression that can be searched with; raises `Invalid` (`flow.bad_expression`) with all that is wrong."""
    parsed = _read(text)
    if wrong := _wrong_calls(parsed.parsed):
        raise _bad(text, "; ".join(wrong[:CALLS_TOLD_MAX]))
    copies = _copies(parsed.parsed)
    if copies > COPIES_MAX:
        raise _bad(text, "it repeats what it looks at too often")
    return Compiled(parsed, copies > 1 or "`" in text or "'" in text or "{" in text)


def _read(text: str) -> ParsedResult:
    try:
        parsed = jmespath.compile(text)
    except RecursionError as error:
        raise _bad(text, "it is nested too deeply") from error
    except (JMESPathError, ValueError) as error:
        raise _bad(text, _told(error)) from error
    if _depth(parsed.parsed) > DEPTH_MAX:
        raise _bad(text, "it is nested too deeply")
    return parsed


def _bad(text: str, told: str) -> Invalid:
    return Invalid(f"{text[:200]!r} is no expression: {told}", code="flow.bad_expression", hint=HINT)


def _told(error: BaseException) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def evaluate(text: str, context: dict[str, Any]) -> Any:
    """Return what an expression gives in a context; raises `Invalid` (`flow.expression_failed`, `flow.too_large`)."""
    expression = compiled(text)
    try:
        value = expression.parsed.search(context)
    except _ON_DATA as error:
        raise Invalid(f"{text[:200]!r} cannot be worked out: {_told(error)}", code="flow.expression_failed") from error
    if expression.grows:
        _must_be_small(text, value)
    return value


def is_true(value: Any) -> bool:
    """Return whether a value counts as true: JMESPath's own rule, by which 0 does and "", [] and {} do not."""
    return not (value is None or value is False or value in ("", [], {}))


def filled(template: str, context: dict[str, Any]) -> str:
    """Return a text with each `{{ expression }}` replaced by what that gives; texts as they are, else JSON."""
    parts: list[str] = []
    size = 0
    for place, part in enumerate(_split(template)):
        told = part
        if place % 2:
            value = evaluate(part.strip(), context)
            told = value if isinstance(value, str) else as_json(value).decode()
        parts.append(told)
        size += len(told)
        if size > SIZE_MAX_BYTES:
            raise Invalid("A text that is filled in becomes too large.", code="flow.too_large")
    return "".join(parts)


def as_key(value: Any) -> bytes:
    """Return a value as JSON that is the same in whatever order the keys of its objects come; raises as `as_json` does."""
    return as_json(value, _sorted)


def as_json(value: Any, encode: Callable[[Any], bytes] | None = None) -> bytes:
    """Return a value as JSON; raises `Invalid` (`flow.not_json`)."""
    try:
        return (encode or _encode)(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Invalid(f"It gives what is no JSON: {_told(error)}", code="flow.not_json") from error


_encode = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="sorted").encode


def texts(shape: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Return every expression in a table or list, with where it stands."""
    match shape:
        case str():
            yield path, shape
        case dict():
            for key, value in shape.items():
                yield from texts(value, (*path, key))
        case list() | tuple():
            for place, value in enumerate(shape):
                yield from texts(value, (*path, place))


def holes(template: str) -> list[str]:
    """Return the expressions in a template."""
    return [part.strip() for part in _split(template)[1::2]]


def unclosed(template: str) -> bool:
    """Return whether a template begins an expression that never ends."""
    return _OPEN in _split(template)[-1]


def _split(template: str) -> list[str]:
    """Return what stands outside and inside of the braces, in turns, in one pass."""
    parts: list[str] = []
    place = 0
    while (begin := template.find(_OPEN, place)) >= 0 and (end := template.find(_CLOSE, begin + 2)) >= 0:
        parts += [template[place:begin], template[begin + 2 : end]]
        place = end + 2
    return [*parts, template[place:]]


# -- what an expression looks at -----------------------------------------------------------------------------------------


def names(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the words that an expression begins with, and the steps that it speaks of; "*" for all of them.

    "@" stands for an expression that begins with everything there is. Raises `Invalid` (`flow.bad_expression`).
    """
    compiled(text)
    return spoken_of(text)


def spoken_of(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the same of an expression that can be read, though it may call what cannot be called."""
    roots: set[str] = set()
    steps: set[str] = set()
    _walk(_read(text).parsed, roots, steps)
    return frozenset(roots), frozenset(steps)


_PASSES_ON = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "pipe"}
)
"""Nodes whose first part sees what the whole sees, while the others see what that gives."""


def _walk(node: Any, roots: set[str], steps: set[str]) -> None:
    """Note what a node begins with that sees everything."""
    kind = node["type"]
    match kind:
        case "field":
            roots.add(node["value"])
            steps.update({"*"} if node["value"] == "steps" else ())
        case "current" | "identity":
            roots.add("@")
        case "subexpression" if _begins_with_step(node["children"]):
            roots.add("steps")
            steps.add(node["children"][1]["value"])
        case "expref":
            return
        case _:
            for child in _parts(node)[: 1 if kind in _PASSES_ON else None]:
                _walk(child, roots, steps)


def _begins_with_step(children: list[Any]) -> bool:
    first, second = children[:2]
    return bool(first["type"] == second["type"] == "field" and first["value"] == "steps")


# -- how much an expression may cost -------------------------------------------------------------------------------------


def _parts(node: Any) -> list[Any]:
    return [child for child in node["children"] if isinstance(child, dict) and "type" in child]


def _depth(node: Any) -> int:
    deepest, left = 0, [(node, 1)]
    while left:
        one, depth = left.pop()
        deepest = max(deepest, depth)
        left += [(child, depth + 1) for child in _parts(one)]
    return deepest


def _wrong_calls(node: Any) -> list[str]:
    """Return what is wrong with the functions that are called, such as that there is none of a name."""
    left, found = [node], list[str]()
    while left:
        one = left.pop()
        left += _parts(one)
        if one["type"] != "function_expression":
            continue
        name, given = one["value"], len(one["children"])
        if name not in _FUNCTIONS:
            near = difflib.get_close_matches(name[:_NAME_MAX], _FUNCTIONS, n=1)
            meant = f"; did you mean {near[0]}()?" if near else ""
            found.append(f"there is no function {name[:_NAME_MAX]}(){meant}")
            continue
        takes = _FUNCTIONS[name]["signature"]
        more = bool(takes) and bool(takes[-1].get("variadic"))
        if given < len(takes) or (given > len(takes) and not more):
            found.append(f"{name}() takes {len(takes)}{' or more' if more else ''}, and is given {given}")
    return found


def _copies(node: Any) -> int:
    """Return how many times what a node looks at may stand in what it gives, at most."""
    kind, parts = node["type"], _parts(node)
    inner = [_copies(part) for part in parts]
    match kind:
        case "multi_select_list" | "multi_select_dict":
            return max(1, sum(inner))
        case "function_expression":
            maps = any(part["type"] == "expref" for part in parts)
            found = prod(inner) if maps else sum(inner)
            return max(1, found) * (2 if node["value"] == "to_string" else 1)  # quotes are quoted again
        case "or_expression" | "and_expression" | "comparator":
            return max(inner, default=1)
        case _:
            return prod(inner)


def _must_be_small(text: str, value: Any) -> None:
    size, left = 0, [value]
    while left:
        one = left.pop()
        size += 2
        match one:
            case str():
                size += len(one)
            case dict():
                size += sum(map(len, one)) + 3 * len(one)
                left.extend(one.values())
            case list():
                left.extend(one)
        if size > SIZE_MAX_BYTES:
            raise Invalid(f"{text[:200]!r} gives too much.", code="flow.too_large")
