"""How is the configuration in force shown? As TOML, each key with where it came from when asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knotwork.config.keys import Path, dotted, key_text, literal
from knotwork.config.loaded import Loaded, effective
from knotwork.config.secrets import redact


def toml(loaded: Loaded, *, origin: bool = False, defaults: bool = True) -> str:
    """Return the configuration in force as TOML; with `origin` every line says where its value came from.

    `defaults` false leaves out what nobody wrote. Secrets are shown as references, known secret values redacted.
    """
    origins = loaded.origin if origin or not defaults else {}
    lines: list[str] = []
    _table(effective(loaded.config), (), origins, lines, origin=origin, defaults=defaults)
    return redact("\n".join(lines).strip("\n") + "\n" if lines else "")


def _table(
    table: Mapping[str, Any], path: Path, origins: Mapping[str, str], lines: list[str], *, origin: bool, defaults: bool
) -> None:
    written: list[str] = []
    nested: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in table.items():
        if isinstance(value, Mapping) and len(path) < 2:  # noqa: PLR2004 - deeper tables fit on a line
            nested.append((key, value))
            continue
        where = origins.get(dotted((*path, key))) or _inside(origins, (*path, key))
        if not defaults and where == "default":
            continue
        written.append(f"{key_text(key)} = {literal(value)}" + (f"  # {where}" if origin else ""))
    if path and (written or (not table and (defaults or origins.get(dotted(path)) != "default"))):
        lines += ["", f"[{dotted(path)}]"]
    lines += written
    for key, inner in nested:
        if inner or len(path) == 1:
            _table(inner, (*path, key), origins, lines, origin=origin, defaults=defaults)


def _inside(origins: Mapping[str, str], path: Path) -> str:
    """Return the first place that a key inside the table at `path` came from, when it has no place of its own."""
    start = dotted(path) + "."
    found = [where for key, where in origins.items() if key.startswith(start)]
    return next((where for where in found if where != "default"), found[0] if found else "default")
