"""Which plugin types are there for a configuration that may be wrong elsewhere? So that all mistakes are told at once.

Reads the tables as they are written, and believes nothing in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.config import instances
from knotwork.sdk import NotFound, PluginFailed
from knotwork.sockets import catalog as catalogs

if TYPE_CHECKING:
    from knotwork.config.instances import Known
    from knotwork.sockets.catalog import Catalog

START_TIMEOUT_S = 10.0
START_TIMEOUT_MAX_S = 600.0


def types_for(data: Mapping[str, Any], folder: Path, *, safe_mode: bool = False) -> Known:
    """Return the types that these tables could use. Blocks: imports the plugins they name."""
    return types_of(catalogs.load(_settings(data, folder, safe_mode=safe_mode)), data)


def types_of(catalog: Catalog, data: Mapping[str, Any], *, complete: bool = True) -> Known:
    """Return the types of a catalog; `complete` says that it has looked at every file these tables name."""
    broken = {}
    for kind, name, table in instances.tables(data):
        type_name = instances.type_of(name, table)
        try:
            catalog.find(kind, type_name)
        except PluginFailed as error:
            broken[kind, type_name] = error.message
        except NotFound as error:
            if catalogs.is_path(type_name):
                broken[kind, type_name] = error.message if complete else ""
    return catalog.config_classes(), broken


def _settings(data: Mapping[str, Any], folder: Path, *, safe_mode: bool) -> catalogs.CatalogSettings:
    written = data.get("plugins")
    table: Mapping[str, Any] = written if isinstance(written, Mapping) else {}
    types = (instances.type_of(name, one) for _, name, one in instances.tables(data))
    limit_s = table.get("start_timeout_s")
    sane = isinstance(limit_s, int | float) and 0 < limit_s <= START_TIMEOUT_MAX_S
    return catalogs.CatalogSettings(
        files=tuple(dict.fromkeys((*_words(table, "files"), *filter(catalogs.is_path, types)))),
        folders=tuple(folder / Path(one).expanduser() for one in _words(table, "folders")),
        base=folder,
        start_timeout_s=float(limit_s) if sane and limit_s is not None else START_TIMEOUT_S,
        disabled=frozenset(_words(table, "disabled")),
        safe_mode=safe_mode,
    )


def _words(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key)
    return tuple(word for word in value if isinstance(word, str) and word) if isinstance(value, list) else ()
