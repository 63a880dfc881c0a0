"""How does an answer look? JSON for programs, tables for people; nothing an agent sends can move the cursor."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

CELL_MAX = 60
VALUE_MAX = 1000
"""Characters of a list or an object in one piece of text; whole it is in `-o json`."""
_MISSING = "-"


def plain(text: str) -> str:
    """Return text without control characters, so that no answer can play tricks on a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def compact(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def pretty(value: Any) -> str:
    """Return JSON for reading, and for programs."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def cell(value: Any) -> str:
    """Return a value as one short piece of text."""
    if value in (None, "", [], {}):
        return _MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"  # noqa: PLR2004 - three digits are read at a glance
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        return _begun(plain(",".join(str(part) for part in value)).replace("\n", " "))
    if isinstance(value, dict | list):
        return _begun(plain(compact(value)))
    return plain(str(value)).replace("\n", " ").replace("\t", " ")


def _begun(text: str) -> str:
    """Return text that stands for a value, cut where nobody reads on."""
    if len(text) <= VALUE_MAX:
        return text
    return f"{text[:VALUE_MAX]}… ({len(text) - VALUE_MAX} characters more: -o json)"


def width(text: str) -> int:
    """Return how many columns text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], out: TextIO | None = None) -> str:
    """Return rows as aligned columns; columns that are empty everywhere are left out, the last is cut at the edge."""
    out = out or sys.stdout
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    kept = [
        index
        for index, _ in enumerate(columns)
        if not rows or index == 0 or any(row[index] != _MISSING for row in cells)
    ]
    heads = [columns[index].upper().replace("_", " ") for index in kept]
    lines = [heads, *([row[index] for index in kept] for row in cells)]
    edge = shutil.get_terminal_size().columns if out.isatty() else 0
    if edge:  # a pipe gets everything
        lines = [[*(_cut(text, CELL_MAX) for text in line[:-1]), line[-1]] for line in lines]
    widths = [max(width(line[index]) for line in lines) for index in range(len(kept))]
    made = []
    for line in lines:
        text = "  ".join(part + " " * (size - width(part)) for part, size in zip(line, widths, strict=True)).rstrip()
        made.append(_cut(text, edge) if edge else text)
    return "\n".join(made)


def details(reply: Mapping[str, Any], indent: str = "") -> str:
    """Return a reply as `key  value` lines, nested objects indented and lists of objects as tables."""
    names = [name for name, value in reply.items() if value not in (None, "", [], {})]
    size = max((len(name) for name in names), default=0)
    lines = []
    for name in names:
        value, label = reply[name], name.replace("_", " ")
        if isinstance(value, dict) and all(isinstance(key, str) for key in value) and not name.endswith("schema"):
            lines += [f"{indent}{label}", details(value, indent + "  ")]
        elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            text = table(value, list(value[0]))
            lines += [f"{indent}{label}", *(f"{indent}  {line}" for line in text.splitlines())]
        elif isinstance(value, str) and "\n" in value:
            barred = (f"{indent}| {line}" for line in plain(value).split("\n"))  # so that none looks like ours
            lines += [f"{indent}{label}", *barred]
        elif name.endswith("schema"):
            lines += [f"{indent}{label}", *(f"{indent}  {line}" for line in pretty(value).splitlines())]
        else:
            shown = _size(value) if name.endswith("_bytes") and isinstance(value, int) else cell(value)
            lines.append(f"{indent}{label.removesuffix(' bytes'):<{size}}  {shown}")
    return "\n".join(lines)


def _size(value: int) -> str:
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:  # noqa: PLR2004 - a KiB
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if amount >= 10 or units[0] == "B" else f"{amount:.1f} {units[0]}"  # noqa: PLR2004


def answer(value: Any) -> str:
    """Return an agent's output for people: text as it is, anything else as JSON."""
    return plain(value) if isinstance(value, str) else pretty(value)


def happened(piece: Mapping[str, Any]) -> str:
    """Return a piece of `task watch` for people: live output as it is, a change of state in one line."""
    if "output" in piece:
        return answer(piece["output"])
    if "missed" in piece:
        return f"({piece['missed']} pieces were missed)"
    names = ("at", "state", "worker", "due_at", "code", "message")
    parts = [f"attempt {piece['attempt']}" if "attempt" in piece else "", *(cell(piece.get(name)) for name in names)]
    words = [*parts[1:3], parts[0], *parts[3:]]
    return "  ".join(word for word in words if word not in ("", _MISSING))


def moved(piece: Mapping[str, Any]) -> str:
    """Return a piece of `crew watch` for people, in one line: a phase, or how a part stands."""
    percent = f"{piece.get('percent') or 0:.0f} %"
    if piece.get("event") == "phase":
        words = [piece.get("phase"), percent, f"held: {piece['held']}" if piece.get("held") else ""]
    else:
        attempt = piece.get("attempt") or 0
        words = [
            *(piece.get(name) for name in ("part", "state", "agent", "node")), percent if piece.get("text") else "",
            f"attempt {attempt}" if attempt > 1 else "", piece.get("text"),
        ]  # fmt: skip
    return "  ".join(cell(word) for word in words if word)


def _cut(text: str, limit: int) -> str:
    if width(text) <= limit:
        return text
    while text and width(text) > limit - 1:
        text = text[:-1]
    return text + "…"
