"""What is there to know about a plugin? Rows for listings, its options, and a page of documentation, all from its code."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from knotwork.sockets import catalog as catalogs

if TYPE_CHECKING:
    from pydantic import BaseModel

    from knotwork.sockets.catalog import Catalog, Entry
    from knotwork.sockets.sources import Source


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `plugin list`. `state` is ok, hosted (never in the node's process), unread or broken; times in seconds."""

    kind: str
    type: str
    source: str
    state: str
    version: str = ""
    summary: str = ""
    load_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a plugin's table. `default` is TOML-like text, empty when the key must be written."""

    name: str
    type: str
    required: bool
    default: str
    description: str


def rows(catalog: Catalog) -> list[Row]:
    """Return every type of a loaded catalog, then what is broken and why."""
    found = [
        Row(
            kind=entry.kind,
            type=entry.type,
            source=str(entry.source),
            state="hosted" if entry.hosted_only else "ok",
            version=entry.source.version,
            summary=entry.factory.summary or entry.source.summary,
            load_s=round(entry.load_s, 4),
        )
        for entry in catalog.entries()
    ]
    return found + [_broken(row) for row in catalog.broken()]


def unread_rows(settings: catalogs.CatalogSettings) -> list[Row]:
    """Return one row per place that offers plugins, without importing any code."""
    found, broken = catalogs.survey(settings)
    return [_unread(source) for source in found] + [_broken(row) for row in broken]


def options(config: type[BaseModel]) -> list[Option]:
    """Return the keys of a config class in the order in which they are declared."""
    schema = config.model_json_schema()
    described: dict[str, Any] = schema.get("properties", {})
    found = []
    for name, field in config.model_fields.items():
        key = field.alias or name
        default = "" if field.is_required() else _literal(field.get_default(call_default_factory=True))
        found.append(
            Option(key, _type(described.get(key, {}), schema), field.is_required(), default, field.description or "")
        )
    return found


def docs(entry: Entry) -> str:
    """Return a page about one type, as Markdown."""
    factory, source = entry.factory, entry.source
    lines = [f"# {entry.kind}: `{entry.type}`", "", factory.summary or source.summary or "No summary.", ""]
    told = inspect.getdoc(factory.config) or ""
    if told and factory.config.__doc__ and not entry.hosted_only:
        lines += [told, ""]
    facts = [f"From {source}" + (f", version {source.version}" if source.version else "")]
    facts += [f"Documentation: {source.docs}"] if source.docs else []
    facts += [f"Abilities: {', '.join(factory.abilities)}"] if factory.abilities else []
    facts += ["Two of it cannot run side by side; a reload stops the old one first."] if factory.exclusive else []
    facts += ["Always runs in a process of its own."] if entry.hosted_only else []
    lines += [f"- {fact}" for fact in facts] + [""]
    known = options(factory.config)
    if entry.hosted_only:
        lines += ["Its options are known to its own process only: see its documentation.", ""]
    elif known:
        lines += ["| Option | Type | Default | What it does |", "|---|---|---|---|"]
        lines += [
            f"| `{one.name}` | {_cell(one.type)} | {'required' if one.required else f'`{_cell(one.default)}`'} | {_cell(one.description)} |"
            for one in known
        ]
        lines.append("")
    else:
        lines += ["It has no options.", ""]
    lines += ["```toml", f"[{entry.kind}.{entry.type}]" if source.kind != "file" else f"[{entry.kind}.my-{entry.type}]"]
    lines += [f"type = {json.dumps(source.where)}"] if source.kind == "file" else []
    lines += [f"{one.name} = …" for one in known if one.required] + ["```", ""]
    return "\n".join(lines)


def _unread(source: Source) -> Row:
    return Row(
        kind=source.plugin_kind or "",
        type=", ".join(source.types) or source.name,
        source=str(source),
        state="unread",
        version=source.version,
        summary=source.summary,
    )


def _broken(row: catalogs.Broken) -> Row:
    return Row(kind="", type="", source=row.source, state="broken", reason=f"{row.reason} {row.hint}".strip())


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


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
