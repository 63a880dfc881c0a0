"""How is the place of a value in a tree of tables written down? As a path of keys, or as a dotted key for people."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def dotted(path: Path) -> str:
    """Return the path as TOML writes it: `executors.a.capabilities[0]`, `node.labels."a.b"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + key_text(part)
    return text


def key_text(key: str) -> str:
    """Return one key as TOML writes it, quoted where it has to be."""
    return key if _BARE.fullmatch(key) else quoted(key)


def quoted(text: str) -> str:
    """Return text as a TOML string on one line."""
    return '"' + "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'


def leaves(table: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every path that holds a value and no table; an empty table counts as a value, an array as one value."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def lookup(table: Any, path: Path) -> Any:
    """Return what stands at `path`; raises KeyError when there is nothing."""
    for part in path:
        try:
            table = table[part]
        except (IndexError, TypeError) as error:
            raise KeyError(dotted(path)) from error
    return table


def known_part(table: Any, path: Path) -> Path:
    """Return the longest beginning of `path` that exists in `table`."""
    for length, part in enumerate(path):
        if isinstance(table, Mapping) and part in table:
            table = table[part]  # a mapping's key: text
        elif isinstance(table, list) and isinstance(part, int) and 0 <= part < len(table):
            table = table[part]
        else:
            return path[:length]
    return path


def literal(value: Any) -> str:  # noqa: PLR0911 - one return per type of TOML
    """Return a value as TOML writes it, on one line; raises TypeError for what TOML has no word for (None)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key_text(str(key))} = {literal(part)}" for key, part in value.items() if part is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(part) for part in value) + "]"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    raise TypeError(f"TOML has no word for a {type(value).__name__}")
