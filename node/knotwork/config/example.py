"""What does a configuration with every option look like, and what one to begin with?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from knotwork.config import size
from knotwork.config.instance_tables import SECTIONS, InstanceTable
from knotwork.config.keys import key_text, literal
from knotwork.config.model import Config, ProjectTable
from knotwork.sdk import KINDS, Kind, PluginConfig

_HEAD = """\
#:schema ./knotwork.schema.json
# Knotwork: every option with its default. Written by `knotwork config example`, not by hand.
# Lines beginning with "# " explain; lines beginning with "#" and no space are settings to uncomment.
"""
_INSTANCE_IDS: dict[Kind, str] = {
    "executors": "my-agent",
    "routers": "my-router",
    "memories": "my-memory",
    "spinups": "my-target",
    "telemetry": "my-sink",
    "triggers": "my-feed",
}


def example_text(kinds: Mapping[Kind, Mapping[str, type[PluginConfig]]] | None = None) -> str:
    """Return config.example.toml: every option, its default, one line about it; the plugin types given in `kinds` too.

    Read as it stands it is the default configuration. Plugins and projects are commented out: each would start
    something.
    """
    parts: list[str] = [_HEAD]
    for name, info in Config.model_fields.items():
        if model := _model_of(info):
            parts.append("\n".join(_table(name, model, info.description or "", off="")))
        elif name == "boundaries":
            parts.append("\n".join(_boundaries(info.description or "")))
        elif name == "projects":
            parts.append("\n".join(_table("projects.my-project", ProjectTable, info.description or "", off="#")))
    parts += ["\n".join(_kind(kind, (kinds or {}).get(kind, {}))) for kind in KINDS]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def init_text(name: str = "", agent: Mapping[str, Any] | None = None) -> str:
    """Return a first configuration of at most 25 commented lines; `agent` is the table of its one agent, "shout"."""
    table = dict(
        agent or {"type": "process", "description": "Turns text into capitals.", "command": ["tr", "a-z", "A-Z"]}
    )
    lines = [
        "#:schema ./knotwork.schema.json",
        "# Knotwork configuration. `knotwork config example` shows every option, `knotwork config check` checks this file.",
        "# A running node takes changes over when the file is saved; a mistake in it changes nothing.",
        "",
        *_commented(
            "node", {"name": name or "my-node"}, live=bool(name), about="this node's name; default: from the host name"
        ),
        "# an agent: others find it by its name, or by a capability it declares",
        *tomli_w.dumps({"executors": {"shout": table}}).strip().split("\n"),
        "",
        *_commented(
            "nats", {"mode": "join", "urls": "nats://other-machine:4222"}, live=False, about="join other nodes instead"
        ),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _commented(section: str, values: Mapping[str, Any], *, live: bool, about: str) -> list[str]:
    mark = "" if live else "#"
    written = {key: [value] if key == "urls" else value for key, value in values.items()}
    return [
        f"# {about}",
        f"{mark}[{section}]",
        *(f"{mark}{key} = {literal(value)}" for key, value in written.items()),
        "",
    ]


def _table(header: str, model: type[BaseModel], about: str, off: str, values: BaseModel | None = None) -> Iterator[str]:
    """Yield the lines of one table; `off` is "#" when its settings are to be commented out.

    `values` are shown instead of the defaults of the model.
    """
    if about:
        yield f"# {about}"
    yield f"{off}[{header}]"
    nested: list[tuple[str, FieldInfo, type[BaseModel]]] = []
    for name, info in model.model_fields.items():
        if name == "settings" and issubclass(model, InstanceTable):  # stands for the plugin's keys, is none itself
            continue
        inner = _model_of(info)
        if inner and info.default_factory is not None:
            nested.append((name, info, inner))
        else:
            yield from _option(name, info, model, off, getattr(values, name, PydanticUndefined))
    for name, info, inner in nested:
        yield ""
        yield from _table(f"{header}.{key_text(name)}", inner, info.description or "", off)


def _boundaries(about: str) -> Iterator[str]:
    """Yield the boundaries that are ready: every key of the first, then what sets the others apart."""
    (first, whole), *others = Config().boundaries.items()
    yield from _table(f"boundaries.{first}", type(whole), about, off="", values=whole)
    for name, table in others:
        yield ""
        yield f"[boundaries.{name}]"
        for key, value in table.model_dump(exclude_defaults=True).items():
            yield f"# {type(table).model_fields[key].description}"
            yield f"{key} = {literal(_plain(value))}"


def _model_of(info: FieldInfo) -> type[BaseModel] | None:
    kind: Any = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _option(
    name: str, info: FieldInfo, model: type[BaseModel], off: str, value: Any = PydanticUndefined
) -> Iterator[str]:
    default = info.get_default(call_default_factory=True, validated_data={}) if value is PydanticUndefined else value
    missing = default is None or default is PydanticUndefined
    note = " (required)" if default is PydanticUndefined else ""
    about = " ".join((info.description or "").split())
    if about or note:
        yield f"# {about}{note}"
    value = _placeholder(model, info.alias or name) if missing else _plain(default)
    if any(isinstance(mark, size.SizeMark) for mark in info.metadata) and isinstance(value, int):
        value = size.render(value) if value else 0
    yield f"{'#' if missing else off}{key_text(name)} = {literal(value)}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def _placeholder(model: type[BaseModel], name: str) -> Any:
    """Return something that shows the form of a value that has no default."""
    schema = model.model_json_schema()
    field: dict[str, Any] = schema.get("properties", {}).get(name, {})
    if examples := field.get("examples"):
        return examples[0]
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"] or [{}]
    option: dict[str, Any] = options[0]
    if str(option.get("$ref", "")).endswith("/SecretRef"):
        return {"env": "NAME"}
    if "enum" in option:
        return option["enum"][0]
    if "const" in option:
        return option["const"]
    forms: dict[str, Any] = {"string": "…", "integer": option.get("minimum", 1), "number": 1.0, "boolean": False}
    return forms.get(str(option.get("type")), ["…"] if option.get("type") == "array" else {})


def _kind(kind: Kind, types: Mapping[str, type[PluginConfig]]) -> Iterator[str]:
    section = SECTIONS[kind]
    about = Config.model_fields[section].description or ""
    table: type[InstanceTable] = Config.KIND_TABLES[kind]
    yield from _table(f"{section}.{_INSTANCE_IDS[kind]}", table, f"{about}: keys of every [{section}.*]", off="#")
    for name, model in sorted(types.items()):
        yield ""
        summary = (model.__doc__ or "").strip().split("\n")[0]
        lines = list(_table(f"{section}.{key_text(name)}", model, f"type {name}: {summary}", off="#"))
        yield from (line for line in lines if not line.startswith("##"))
