"""What may be written in the table of a plugin? The keys of its config class, in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from knotwork.config.elsewhere import Elsewhere

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a plugin's table. `default` is TOML-like text, empty when the key must be written."""

    name: str
    type: str
    required: bool
    default: str
    description: str


def options(config: type[BaseModel]) -> list[Option]:
    """Return the keys of a config class in the order in which they are declared."""
    schema = config.model_json_schema()
    described: dict[str, Any] = schema.get("properties", {})
    if issubclass(config, Elsewhere):
        return [_described(name, one, schema) for name, one in described.items()]
    found = []
    for name, field in config.model_fields.items():
        key = field.alias or name
        default = "" if field.is_required() else _literal(field.get_default(call_default_factory=True))
        found.append(
            Option(key, _type(described.get(key, {}), schema), field.is_required(), default, field.description or "")
        )
    return found


def _described(name: str, property_: dict[str, Any], schema: dict[str, Any]) -> Option:
    """Return a key as its JSON Schema tells of it."""
    required = name in schema.get("required", ())
    default = "" if required else _literal(property_.get("default"))
    return Option(name, _type(property_, schema), required, default, str(property_.get("description", "")))


def _literal(value: Any) -> str:
    return json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False)


def _type(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    """Return a JSON Schema's type in words."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        target = whole.get("$defs", {}).get(name, {})
        return "table" if target.get("type") == "object" else _type(target, whole)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            parts = dict.fromkeys(_type(part, whole) for part in schema[word] if part.get("type") != "null")
            return " or ".join(parts)
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), whole)}"
    names = {"object": "table", "boolean": "true or false", "string": "text", "null": "nothing"}
    kind = schema.get("type", "any value")
    return names.get(kind, str(kind))
