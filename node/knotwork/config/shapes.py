"""Does a value fit a JSON Schema that anybody may have written? Told in bounded time; nothing is fetched (pure).

The keywords are jsonschema's own; every use of one is counted, and a check that takes too many steps ends with an error:
references can make a short schema a long work. Patterns are matched in linear time, by the engine that pydantic-core
brings (Rust's regex); what that cannot read, such as look-around, is refused. `uniqueItems` compares no item twice.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema

STEPS_MAX = 100_000
"""How many uses of keywords a check may take: about a second at the very worst."""
SCHEMA_STEPS_MAX = 200_000
"""The same for the check whether a schema is one."""
_TRIAL_STEPS_MAX = 20_000
PATTERNS_MAX = 100
WEIGHT_MAX = 100_000
"""How heavy the patterns of a schema may be together: about the size of the machines that they become."""
_WEIGHT_PER_STEP = 10_000
_LETTERS = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]|\{(?P<least>\d{1,9})(?:,(?P<most>\d{0,9}))?\}|.", re.DOTALL
)
_WIDE = re.compile(r"\\[wWdDsSpP]")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_VALUES = frozenset({"const", "enum", "default", "examples"})
"""Keys under which no schemas stand."""
_STEPS = dict.fromkeys(("type", "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength", "format"), 1)
_STEPS |= dict.fromkeys(_REFERENCES, 3)
_ODD = (RecursionError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
_left: ContextVar[list[int]] = ContextVar("steps left of this check")


class Unanswerable(ValueError):
    """Whether a value fits cannot be told."""


class TooLong(Unanswerable):
    """It would take more steps than it may."""


class Misfit(NamedTuple):
    """One place where a value does not fit."""

    path: tuple[str | int, ...]
    json_path: str
    message: str


class Shape:
    """A JSON Schema (draft 2020-12 unless it says otherwise) to hold values against; see `wrong` for one not known."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Take it as it is: what is wrong with it is told by `misfits` at the latest."""
        self._schema = schema
        self._made: Any = None

    def _make(self) -> Any:
        if {"unevaluatedProperties", "patternProperties"} <= _keys(self._schema):
            # jsonschema matches the patterns itself then, by an engine that may take forever
            raise Unanswerable("it has unevaluatedProperties and patternProperties, which is not supported together")
        return _bounded(_kind(self._schema))(self._schema, _resolver=_resolver(self._schema))

    def misfits(self, value: Any, most: int, *, steps_max: int = STEPS_MAX) -> list[Misfit]:
        """Return where a value of plain JSON does not fit, the first `most` places.

        Raises `TooLong` when that takes more than `steps_max` steps, and `Unanswerable` when it cannot be told.
        """
        from referencing.exceptions import Unresolvable

        _left.set([steps_max])
        found: list[Misfit] = []
        try:
            self._made = self._made or self._make()
            for error in self._made.iter_errors(value):
                found.append(Misfit(tuple(error.absolute_path), error.json_path[:200], error.message[:300]))
                if len(found) == most:
                    break
        except Unanswerable:
            raise
        except RecursionError as error:
            raise Unanswerable("the value is nested too deeply, or the schema refers to itself") from error
        except (*_ODD, Unresolvable) as error:
            raise Unanswerable(str(error)[:300]) from error
        return found


def wrong(schema: Mapping[str, Any]) -> str:
    """Return what is wrong with a schema; an empty text when it is one that can be used."""
    from jsonschema.exceptions import best_match

    _left.set([SCHEMA_STEPS_MAX])
    try:
        kind = _kind(schema)
        error = best_match(_bounded(kind)(kind.META_SCHEMA).iter_errors(schema))
        if error is not None:
            return f"it is no JSON Schema: {error.message[:300]}"
        told = next(_inside(schema), "")
        if not told:
            Shape(schema).misfits(
                None, 1, steps_max=_TRIAL_STEPS_MAX
            )  # one that refers to itself and to nothing else cannot say what fits
    except Unanswerable as error:
        return f"it is no JSON Schema that can be used: {error}"
    except _ODD as error:
        return f"it is no JSON Schema: {type(error).__name__}"
    return told


def _inside(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong inside: references to elsewhere, patterns that cannot be matched, another dialect."""
    resolver = _resolver(schema)
    patterns: set[str] = set()
    left: list[Any] = [schema]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        if not isinstance(one, Mapping):
            continue
        for key in _REFERENCES:
            if isinstance(one.get(key), str) and not _is_there(resolver, one[key]):
                yield f"it refers to {one[key][:200]!r}, which is not in it"
        given = [one.get("pattern"), *(one["patternProperties"] if _is_table(one.get("patternProperties")) else ())]
        patterns.update(pattern for pattern in given if isinstance(pattern, str))
        left += [value for key, value in one.items() if key not in _VALUES]
    if len(patterns) > PATTERNS_MAX:
        yield f"it has {len(patterns)} patterns, {PATTERNS_MAX} at most"
    heavy = 0
    for pattern in sorted(patterns):
        try:
            heavy += _compiled(pattern)[1]
        except Unanswerable as error:
            yield str(error)
        if heavy > WEIGHT_MAX:
            yield "its patterns are too large together to be matched in good time"
            return


def _keys(schema: Any) -> set[str]:
    """Return all keys anywhere in a schema."""
    keys, left = set[str](), [schema]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            keys.update(one)
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
    return keys


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_there(resolver: Any, reference: str) -> bool:
    from referencing.exceptions import Unresolvable

    try:
        resolver.lookup(reference)
    except (Unresolvable, ValueError):  # a URL that is none
        return False
    return True


# -- patterns ------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=128)
def _compiled(pattern: str) -> tuple[SchemaValidator, int]:
    """Return what matches a pattern, and how heavy it is; raises `Unanswerable`."""
    weight = _weight(pattern)
    if weight > WEIGHT_MAX:
        raise Unanswerable(f"the pattern {pattern[:80]!r} is too large to be matched in good time")
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")), weight
    except PatternError as error:
        why = str(error).rpartition("rror: ")[2].strip()  # the line that says it; those before show the place
        if "size limit" in why:
            why = r"it becomes too large; [A-Za-z0-9_] is much smaller than \w, which is the letters of all languages"
        raise Unanswerable(f"the pattern {pattern[:80]!r} cannot be matched in linear time: {why[:200]}") from error


def _weight(pattern: str) -> int:
    """Return about how many states a pattern has, with its counted repeats worked out."""
    groups, last = [0], 0
    for letter in _LETTERS.finditer(pattern):
        text = letter[0]
        if text == "(":
            groups.append(1)
        elif text == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif letter["least"] is not None:
            times = max(int(letter["least"]), int(letter["most"] or 0), 1)
            groups[-1] += last * (times - 1)
            last *= times
        elif text not in ("*", "+", "?"):
            last = 100 if _WIDE.search(text) else 10 if text == "." or text.startswith("[^") else 1
            groups[-1] += last
    return sum(groups)


def _matches(pattern: str, text: str) -> bool:
    """Say whether a pattern is found anywhere in a text; counted by its length."""
    matcher, weight = _compiled(pattern)
    _count(len(text) * weight // _WEIGHT_PER_STEP)
    return matcher.isinstance_python(text)


# -- jsonschema with a bound -----------------------------------------------------------------------------------------------


def _kind(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator, validators  # 90 ms that a node without schemas need not spend

    return validators.validator_for(schema, default=Draft202012Validator)


def _resolver(schema: Mapping[str, Any]) -> Any:
    """Return what finds references inside a schema, and nothing elsewhere."""
    import referencing
    from referencing.jsonschema import specification_with

    specification = specification_with(_kind(schema).META_SCHEMA.get("$schema", ""))
    resource = specification.create_resource(schema)
    where = resource.id() or ""
    return referencing.Registry().with_resource(where, resource).crawl().resolver(where)


@functools.cache
def _bounded(kind: Any) -> Any:
    """Return a draft's validator with its keywords counted, and those in other hands that may take long."""
    from jsonschema import validators

    ours = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    extend: Any = validators.extend  # not typed
    bounded = extend(
        kind,
        {key: _counted(key, ours.get(key, function)) for key, function in kind.VALIDATORS.items()},
    )
    plain = bounded.evolve

    def evolve(self: Any, **changes: Any) -> Any:
        """Stay bounded where a part of a schema names another dialect: jsonschema would take its own validator."""
        schema = changes.get("schema", self.schema)
        if not isinstance(schema, Mapping) or "$schema" not in schema:
            return plain(self, **changes)
        return plain(self, **{**changes, "schema": {key: schema[key] for key in schema if key != "$schema"}})

    bounded.evolve = evolve
    return bounded


def _counted(key: str, function: Any) -> Any:
    def keyword(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _count(_STEPS.get(key, 1 + (_length(value) + _length(instance)) // 8))
        if key in ("const", "enum"):
            _count(_size(value) // 4)  # as much as is compared
        for error in function(validator, value, instance, schema) or ():
            _count(len(error.message) // 50)  # it repeats the value, however large
            yield error

    return keyword


def _count(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooLong("it takes too many steps to hold this value against this schema")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _size(value: Any) -> int:
    size, left = 0, [value]
    while left:
        one = left.pop()
        size += 1
        if isinstance(one, list | dict):
            left += one.values() if isinstance(one, dict) else one
        elif isinstance(one, str):
            size += len(one) // 100
    return size


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not _matches(pattern, instance):
        yield _error(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        for pattern, schema in patterns.items():
            for key, value in instance.items():
                _count(1)
                if _matches(pattern, key):
                    yield from validator.descend(value, schema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, additional: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = []
    for key in instance:
        _count(len(patterns))
        if key not in known and not any(_matches(pattern, key) for pattern in patterns):
            extras.append(key)
    if validator.is_type(additional, "object"):
        for key in extras:
            yield from validator.descend(instance[key], additional, path=key)
    elif not additional and extras:
        names = ", ".join(repr(key) for key in extras[:20])
        were = "was" if len(extras) == 1 else "were"
        yield _error(f"Additional properties are not allowed ({names} {were} unexpected)")


def _unique_items(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[Any]:
    if wanted and validator.is_type(instance, "array"):
        _count(_size(instance) // 4)
        if len({_key(item) for item in instance}) < len(instance):
            yield _error(f"{repr(instance)[:1000]} has non-unique elements")


def _key(value: Any) -> Any:
    """Return what is the same for equal JSON values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, list):
        return (list, tuple(_key(item) for item in value))
    if isinstance(value, dict):
        return (dict, frozenset((key, _key(item)) for key, item in value.items()))
    return (bool, value) if isinstance(value, bool) else value
