"""Is this a JSON Schema, and does a value fit it? Nothing is fetched, and no schema can crash the one who asks (pure)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from knotwork.sdk.errors import Invalid

PROBLEMS_MAX = 5
_VALUES = frozenset({"const", "enum", "default", "examples"})
"""Keys under which no schemas stand."""
_REFERENCES = ("$ref", "$dynamicRef")
_ODD = (RecursionError, re.error, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


def wrong(schema: dict[str, Any]) -> str:
    """Return what is wrong with a schema; an empty text when it is one that can be used."""
    import referencing  # 50 ms, with what it brings, that a node without schemas need not spend
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing.jsonschema import DRAFT202012

    try:
        Draft202012Validator.check_schema(schema)
        resolver = referencing.Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
        left: list[Any] = [schema]
        while left:
            one = left.pop()
            if isinstance(one, list):
                left += one
            elif isinstance(one, dict):
                for key in _REFERENCES:
                    if isinstance(one.get(key), str) and not _is_there(resolver, one[key]):
                        return f"it refers to {one[key][:200]!r}, which is not in it"
                left += [value for key, value in one.items() if key not in _VALUES]
    except SchemaError as error:
        return f"it is no JSON Schema: {error.message[:300]}"
    except _ODD as error:
        return f"it is no JSON Schema: {type(error).__name__}"
    return ""


def _is_there(resolver: Any, reference: str) -> bool:
    from referencing.exceptions import Unresolvable

    try:
        resolver.lookup(reference)
    except Unresolvable:
        return False
    return True


def must_fit(schema: dict[str, Any], value: bytes, what: str) -> None:
    """Raise `Invalid` (`flow.schema`) when a JSON value does not fit a schema."""
    import referencing  # likewise
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable

    try:
        validator = Draft202012Validator(schema, registry=referencing.Registry())
        found = sorted(validator.iter_errors(_decode(value)), key=lambda error: [str(one) for one in error.path])
    except (*_ODD, Unresolvable) as error:
        raise Invalid(f"{what} cannot be held against its schema: {error}"[:500], code="flow.schema") from error
    if found:
        told = "; ".join(f"{error.json_path}: {error.message[:200]}" for error in found[:PROBLEMS_MAX])
        raise Invalid(f"{what} does not fit its schema: {told}", code="flow.schema")


_decode = msgspec.json.Decoder().decode
