"""How does a tool's schema look to a model? As short as it can be said: every word of it is read at every start (pure)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
_TYPES: dict[str, Schema] = {
    "text": {"type": "string"},
    "int": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object"},
    "rows": {"type": "array", "items": {"type": "object"}},
    "any": {},
}
_DROPPED = frozenset({"title", "default", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum"})
"""What a schema says that costs more to read than it helps: who goes against it is told what is wrong."""
_BOUND_MAX = 1_000_000
"""A larger maximum is there against nonsense: who goes beyond it is told, and nobody else need read it."""
HIDDEN: Schema = {"hidden": True}
"""Marks an argument that is understood and not listed: `Field(json_schema_extra=HIDDEN)`.

A schema with such arguments does not say that there are no others, so that clients that check let them through.
"""
PLAIN: Schema = {"plain": True}
"""Marks an object whose description says what is in it: its properties are not listed."""


def record(**fields: str | Schema) -> Schema:
    """Return the schema of an object: `id="text"`, with a `?` behind for what may be left out, or a schema itself."""
    properties: Schema = {}
    required: list[str] = []
    for name, said in fields.items():
        if isinstance(said, str):
            properties[name] = _TYPES[said.removesuffix("?")]
            if not said.endswith("?"):
                required.append(name)
        else:
            properties[name] = said
            required.append(name)
    schema: Schema = {"type": "object", "properties": properties}
    return schema | {"required": required} if required else schema


def many(row: Schema) -> Schema:
    """Return the schema of a list of such rows; the names in each speak for themselves."""
    assert row["type"] == "object", "a list is one of records"
    return {"type": "array"}


def of_input(model: type[BaseModel]) -> Schema:
    """Return the schema of a tool's arguments: without titles, references and nulls, which models do not need."""
    whole = model.model_json_schema()
    definitions = whole.pop("$defs", {})
    found: Schema = _short(whole, definitions)
    found.pop("description", None)  # the tool has its own
    if len(found.setdefault("properties", {})) < len(whole.get("properties", {})):
        found.pop("additionalProperties", None)
    return found


def of_output(schema: Schema) -> Schema:
    """Return the schema of a tool's result as it is listed: what is always in it. What else there is speaks for itself."""
    needed = schema.get("required", ())
    return {**schema, "properties": {name: schema["properties"][name] for name in needed}}


def _short(schema: Any, definitions: Schema) -> Any:
    if isinstance(schema, list):
        return [_short(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("plain"):
        return {key: schema[key] for key in ("type", "description") if key in schema}
    if "$ref" in schema:
        meant = definitions[str(schema["$ref"]).rpartition("/")[2]]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _short({**{k: v for k, v in meant.items() if k != "description"}, **beside}, definitions)
    either = _choices(schema)
    if len(either) == 1 and "anyOf" in schema:
        beside = {key: value for key, value in schema.items() if key != "anyOf"}
        return _short({**either[0], **beside}, definitions)
    made: Schema = {}
    for key, value in (schema | ({"anyOf": either} if either else {})).items():
        if key == "properties":
            listed = {name: part for name, part in value.items() if not part.get("hidden")}
            made[key] = {name: _short(part, definitions) for name, part in listed.items()}
        elif key == "default" and value not in (None, "", [], {}, False):
            made[key] = value
        elif _is_said(key, value):
            made[key] = _short(value, definitions)
    return made


def _is_said(key: str, value: Any) -> bool:
    """Return whether a word of a schema is worth reading."""
    if key == "maximum" and value >= _BOUND_MAX:
        return False
    return key not in _DROPPED and (key, value) != ("additionalProperties", True)


def _choices(schema: Schema) -> list[Any]:
    """Return what a value may be one of, without null."""
    return [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
