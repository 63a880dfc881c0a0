"""What is there to know about a plugin? Rows for listings, its options, and a page of documentation, all from its code."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.sdk.errors import sentence
from knotwork.sockets.options import options

if TYPE_CHECKING:
    from knotwork.sockets.catalog import Catalog, Entry
    from knotwork.sockets.factories import Broken


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `plugin list`. `state` is ok, hosted (never in the node's process) or broken; times in seconds."""

    kind: str
    type: str
    source: str
    state: str
    version: str = ""
    summary: str = ""
    load_s: float = 0.0
    reason: str = ""


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


def docs(entry: Entry) -> str:
    """Return a page about one type, as Markdown."""
    factory, source = entry.factory, entry.source
    lines = [f"# {entry.kind}: `{entry.type}`", "", factory.summary or source.summary or "No summary.", ""]
    told = inspect.getdoc(factory.config) or ""
    if told and factory.config.__doc__:
        lines += [told, ""]
    facts = [f"From {source}" + (f", version {source.version}" if source.version else "")]
    facts += [f"Documentation: {source.docs}"] if source.docs else []
    facts += [f"Abilities: {', '.join(factory.abilities)}"] if factory.abilities else []
    facts += ["Two of it cannot run side by side; a reload stops the old one first."] if factory.exclusive else []
    facts += ["Always runs in a process of its own."] if entry.hosted_only else []
    lines += [f"- {fact}" for fact in facts] + [""]
    known = options(factory.config)
    if known:
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


def _broken(row: Broken) -> Row:
    return Row(kind="", type="", source=row.source, state="broken", reason=sentence(row.reason, row.hint))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
