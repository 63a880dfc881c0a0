"""Which plugin types are there for a configuration that may be wrong elsewhere? So that all mistakes are told at once.

Reads the tables as they are written, and believes nothing in them. No foreign plugin is imported into this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.config import instances
from knotwork.config.instance_tables import SECTIONS
from knotwork.config.keys import lookup
from knotwork.sdk import KINDS, NotFound, PluginFailed
from knotwork.sockets import loading
from knotwork.sockets.catalog import SAFE_MODE, CatalogSettings, Use, is_path
from knotwork.sockets.tried import HUNG

if TYPE_CHECKING:
    from knotwork.config.instances import Known
    from knotwork.config.loaded import Loaded
    from knotwork.sdk import Kind
    from knotwork.sockets.catalog import Catalog

START_TIMEOUT_S = 10.0
START_TIMEOUT_MAX_S = 600.0


def types_for(data: Mapping[str, Any], folder: Path, *, safe_mode: bool = False) -> Known:
    """Return the types that these tables could use. Blocks: tries the plugins they name."""
    return types_of(loading.load(_settings(data, folder, safe_mode=safe_mode)), data)


def types_of(catalog: Catalog, data: Mapping[str, Any], *, complete: bool = True) -> Known:
    """Return the types of a catalog; `complete` says that it has looked at every file these tables name."""
    broken, absent, able, excused = {}, {}, {}, set()
    for kind, name, table in instances.tables(data):
        type_name = instances.type_of(name, table)
        try:
            able[kind, type_name] = frozenset(catalog.find(kind, type_name).factory.abilities)
        except PluginFailed as error:
            broken[kind, type_name] = str(error)
            if error.code in (HUNG, SAFE_MODE):
                excused.add((kind, type_name))
        except NotFound as error:
            if is_path(type_name):
                absent[kind, type_name] = str(error) if complete else ""
    return instances.Known(catalog.config_classes(), catalog.config_classes(apart=True), broken, absent, excused, able)


def settings_of(loaded: Loaded, *, safe_mode: bool = False, imports: bool = True) -> CatalogSettings:
    """Return where a configuration says that plugins are, and what it wants of them."""
    table = loaded.config.plugins
    return CatalogSettings(
        files=files_of(loaded),
        folders=tuple(loaded.folder / Path(folder).expanduser() for folder in table.folders),
        base=loaded.folder,
        start_timeout_s=table.start_timeout_s,
        disabled=frozenset(table.disabled),
        safe_mode=safe_mode,
        uses=uses_of(loaded),
        imports=imports,
        import_memory_mb=table.import_memory_mb,
    )


def files_of(loaded: Loaded) -> tuple[str, ...]:
    """Return every file that is a plugin, as written: those listed, and those named as a type."""
    named = [use.type for use in uses_of(loaded) if is_path(use.type)]
    return tuple(dict.fromkeys([*loaded.config.plugins.files, *named]))


def uses_of(loaded: Loaded) -> tuple[Use, ...]:
    """Return every enabled instance of a configuration."""
    return tuple(
        use_of(loaded, kind, name)
        for kind in KINDS
        for name, table in loaded.config.instances(kind).items()
        if table.enabled
    )


def use_of(loaded: Loaded, kind: Kind, name: str) -> Use:
    """Return one instance of a configuration."""
    table = loaded.config.instances(kind)[name]
    return Use(kind, table.type, table.hosted, table.memory_mb, lookup(loaded.merged.data, (SECTIONS[kind], name)))


def _settings(data: Mapping[str, Any], folder: Path, *, safe_mode: bool) -> CatalogSettings:
    written = data.get("plugins")
    table: Mapping[str, Any] = written if isinstance(written, Mapping) else {}
    uses = tuple(_use(kind, instances.type_of(name, one), one) for kind, name, one in instances.tables(data))
    limit_s = table.get("start_timeout_s")
    sane = isinstance(limit_s, int | float) and 0 < limit_s <= START_TIMEOUT_MAX_S
    named = (use.type for use in uses if is_path(use.type))
    return CatalogSettings(
        files=tuple(dict.fromkeys((*_words(table, "files"), *named))),
        folders=tuple(folder / Path(one).expanduser() for one in _words(table, "folders")),
        base=folder,
        start_timeout_s=float(limit_s) if sane and limit_s is not None else START_TIMEOUT_S,
        disabled=frozenset(_words(table, "disabled")),
        safe_mode=safe_mode,
        uses=uses,
        imports=False,
    )


def _use(kind: Kind, type_name: str, table: Mapping[str, Any]) -> Use:
    memory_mb = table.get("memory_mb")
    sane = isinstance(memory_mb, int) and memory_mb >= 0
    return Use(kind, type_name, table.get("hosted") is True, memory_mb if sane and memory_mb is not None else 0, table)


def _words(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key)
    return tuple(word for word in value if isinstance(word, str) and word) if isinstance(value, list) else ()
