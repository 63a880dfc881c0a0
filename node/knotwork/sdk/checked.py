"""Are `true` and `false` numbers? To Python they are, to whoever writes a request or a table they are not.

Everything else is read leniently: a shell and a URL can only write `"5"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import PydanticKnownError, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


class Checked(BaseModel, defer_build=True):
    """A model of what comes from outside: where it wants a number, at whatever depth, `true` and `false` are refused."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return what pydantic would check, with its numbers checked first."""
        checked: CoreSchema = _checked(handler(source))
        return checked


def _checked(schema: Any) -> Any:
    """Return a schema with every number in it that is read leniently wrapped."""
    if isinstance(schema, list | tuple):
        return type(schema)(_checked(one) for one in schema)
    if not isinstance(schema, dict):
        return schema
    if _is_number(schema):
        check = _whole if schema["type"] == "int" else _number
        return core_schema.no_info_before_validator_function(check, schema)
    return {key: _within(key, value) for key, value in schema.items()}


def _within(key: str, value: Any) -> Any:
    if key in ("fields", "choices") and isinstance(value, dict):  # a field or a tag may have any name
        return {name: _checked(field) for name, field in value.items()}
    if key == "choices" and isinstance(value, list):  # an error of a union names the choice
        return [(_checked(one), _name(one)) if _is_number(one) else _checked(one) for one in value]
    return value if key in _DATA else _checked(value)


def _is_number(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") in ("int", "float") and not schema.get("strict")


def _name(schema: dict[str, Any]) -> str:
    """Return what pydantic calls a number in the place of an error."""
    bounded = any(bound in schema for bound in ("ge", "gt", "le", "lt", "multiple_of"))
    return f"constrained-{schema['type']}" if bounded else str(schema["type"])


_DATA = frozenset({"metadata", "serialization", "default", "expected", "cls", "config"})
"""Parts of a schema that are values, or say how something is written."""


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value
