"""What would an editor need to know to complete and check the file? The JSON Schema (2020-12) of all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from knotwork.config.instance_tables import SECTIONS, InstanceTable
from knotwork.config.model import Config
from knotwork.config.written import TOKEN_PATTERN
from knotwork.sdk import KINDS, Kind, PluginConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FILE_TYPE = r"(\.py$)|/"


def json_schema(kinds: Mapping[Kind, Mapping[str, type[PluginConfig]]] | None = None) -> dict[str, Any]:
    """Return the schema of the whole file; `kinds` gives the config class of every plugin type by kind.

    An instance is judged by the config class of its type, which is its id when no type is written. Types that are
    files not in `kinds` may have any key. Text may stand for numbers only as `${VAR}`, which the schema does not know.
    """
    schema = Config.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    for kind in KINDS:
        common = _common(Config.KIND_TABLES[kind], definitions)
        types = dict(sorted((kinds or {}).get(kind, {}).items()))
        for name, model in types.items():
            definitions[f"{kind}.{name}"] = _instance(kind, name, model, common, definitions)
        schema["properties"][SECTIONS[kind]] = {
            "type": "object",
            "description": schema["properties"][SECTIONS[kind]].get("description", ""),
            "propertyNames": {"pattern": f"^{TOKEN_PATTERN}$"},
            "properties": {name: _any_of(kind, types, untyped=name) for name in types if _is_token(name)},
            "additionalProperties": _any_of(kind, types, untyped=None),
        }
    for unused in ("InstanceTable", "ExecutorTable", "TargetTable", "TriggerTable"):
        definitions.pop(unused, None)
    return {"$schema": DIALECT, **schema, "title": "Knotwork configuration"}


def _common(table: type[InstanceTable], definitions: dict[str, Any]) -> dict[str, Any]:
    own = table.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(own.pop("$defs", {}))
    return {key: value for key, value in own["properties"].items() if key != "settings"}


def _instance(
    kind: Kind, name: str, model: type[PluginConfig], common: dict[str, Any], definitions: dict[str, Any]
) -> dict[str, Any]:
    prefix = f"{kind}.{name}."
    own = model.model_json_schema(ref_template=_reference(prefix) + "{model}")
    definitions.update({prefix + key: value for key, value in own.pop("$defs", {}).items()})
    return {
        "type": "object",
        "title": f"[{SECTIONS[kind]}.*] of type {name}",
        "description": own.get("description", ""),
        "properties": {**own.get("properties", {}), **common, "type": {"const": name, "description": "plugin type"}},
        "required": [key for key in own.get("required", []) if key not in common],
        "additionalProperties": own.get("additionalProperties", False),
    }


def _any_of(kind: Kind, types: Mapping[str, Any], untyped: str | None) -> dict[str, Any]:
    """Return what an instance may be: one of the types, named by `type`, or for id `untyped` that type unnamed."""
    options: list[dict[str, Any]] = [
        {"$ref": _reference(f"{kind}.{name}"), "required": ["type"]} for name in types if name != untyped
    ]
    if untyped is not None:
        options.insert(0, {"$ref": _reference(f"{kind}.{untyped}")})
    other_file: dict[str, Any] = {"type": "string", "pattern": _FILE_TYPE}
    if known := [name for name in types if not _is_token(name)]:
        other_file["not"] = {"enum": known}
    options.append({"type": "object", "properties": {"type": other_file}, "required": ["type"]})
    return {"anyOf": options}


def _reference(name: str) -> str:
    """Return the reference to a definition; a type may be a path, whose characters mean something in a reference."""
    return "#/$defs/" + quote(name.replace("~", "~0").replace("/", "~1"), safe="~")


def _is_token(name: str) -> bool:
    return bool(name) and "/" not in name and not name.endswith(".py")
