"""Which types of plugins are there, and which could not be had and why?

`load` blocks (it imports code, and tries foreign plugins in processes of their own first): call it before the loop runs
or in a thread. Nothing a plugin does while it is imported reaches the caller: what fails becomes a `Broken` row.
"""

from __future__ import annotations

import difflib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from knotwork.sdk import KINDS, Context, Factory, KnotworkError, NotFound, PluginConfig, PluginFailed
from knotwork.sdk.factory import Kind
from knotwork.sockets import sources
from knotwork.sockets.factories import Broken
from knotwork.sockets.sources import Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

SAFE_MODE = "plugin.safe_mode"
"""Code of the error that a plugin is left out on purpose: only bundled ones are loaded."""
PATIENCE_S = 2.0
Key = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Use:
    """One enabled instance: the `type` as written, whether it is to run hosted, and its table as written."""

    kind: Kind
    type: str
    hosted: bool = False
    memory_mb: int = 0
    table: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """Where to look. Relative `files` (as written by the operator) are meant from `base`; times in seconds.

    `disabled` holds names of entry points, folders or files that are not loaded; `safe_mode` loads bundled ones only.
    `uses` are the instances there are to be: a foreign plugin is imported here only when one of them needs that; None
    means that anything may be needed. With `imports` false no foreign plugin is, and all tables are judged elsewhere.
    An import may take `patience_s`, on a slow machine as much longer as that is slow, but never over `start_timeout_s`;
    while it is tried it may take `import_memory_mb` MiB (0: no limit).
    """

    files: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    base: Path = field(default_factory=Path.cwd)
    start_timeout_s: float = 10.0
    disabled: frozenset[str] = frozenset()
    safe_mode: bool = False
    group: str = sources.GROUP
    uses: tuple[Use, ...] | None = None
    imports: bool = True
    patience_s: float = PATIENCE_S
    import_memory_mb: int = 1024

    @property
    def import_s(self) -> float:
        """Return how many seconds an import may take: soon enough for whoever waits for a verdict."""
        return min(self.patience_s, self.start_timeout_s)

    def absolute(self, written: str) -> Path:
        """Return the path that an operator means."""
        return Path(self.base, Path(written).expanduser()).resolve()

    def uses_of(self, source: Source) -> list[Use]:
        """Return the instances that are surely of this source: what types the others offer is known later."""
        return [
            use
            for use in self.uses or ()
            if (is_path(use.type) and str(self.absolute(file_of(use.type))) == source.where)
            or (use.kind == source.plugin_kind and use.type in source.types)
        ]


@dataclass(frozen=True, slots=True)
class Entry:
    """One type that can be used. `hosted_only` means: never in the node's own process; `load_s` is what it cost.

    `described` is the factory of a foreign plugin as it was told by the process it was tried in; as long as that is
    `factory`, too, the plugin is not imported here; `tried_apart` says that it was tried as a hosted plugin only.
    """

    kind: Kind
    type: str
    factory: Factory[Any]
    source: Source
    hosted_only: bool = False
    load_s: float = 0.0
    described: Factory[Any] | None = None
    tried_apart: bool = False

    @property
    def apart(self) -> Factory[Any]:
        """Return the factory that stands for this type where it runs hosted."""
        return self.described or self.factory

    @property
    def imported(self) -> bool:
        """Say whether it can be opened in this process."""
        return self.described is not self.factory


class AnyConfig(PluginConfig):
    """The table of a plugin that is broken: nobody can judge it."""

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(slots=True)
class Catalog:
    """What was found, by source. Never changes: `loading.extended` and `healed` make another."""

    settings: CatalogSettings
    rows: dict[Source, list[Entry]] = field(default_factory=dict)
    failed: dict[Source, Broken] = field(default_factory=dict)
    unread: list[Broken] = field(default_factory=list)
    _entries: dict[Key, Entry] = field(init=False, default_factory=dict)
    _by_path: dict[Key, list[Entry]] = field(init=False, default_factory=dict)
    _taken: list[Broken] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Find the entries by name and path; a name that is taken becomes a broken row."""
        for entry in [entry for entries in self.rows.values() for entry in entries]:
            source = entry.source
            if source.kind == "file":
                self._by_path.setdefault((entry.kind, source.where), []).append(entry)
            taken = self._entries.setdefault((entry.kind, entry.type), entry)
            if taken is not entry:  # a file can still be used by its path
                hint = "Write the file's path as `type` to use it." if source.kind == "file" else _RENAME
                reason = f"type name {entry.type!r} ({entry.kind}) is already offered by {taken.source}"
                self._taken.append(Broken(str(source), "plugin.duplicate", reason, hint))

    def find(self, kind: Kind, type_name: str) -> Entry:
        """Return the entry for what was written as `type`: a name, `./file.py` or `./file.py:name`.

        Raises `NotFound` (`plugin.unknown_type`) with the nearest name, `PluginFailed` with the reason it is broken
        (in safe mode: that it is not a bundled one).
        """
        entry = self._entries.get((kind, type_name))
        if entry is not None:
            return entry
        if self.settings.safe_mode:
            told = f"{type_name[:200]!r} is not bundled, and in safe mode nothing else is loaded"
            raise PluginFailed(told, code=SAFE_MODE, hint="Start the node without --safe-mode.")
        if is_path(type_name):
            return self._find_by_path(kind, type_name)
        if (row := self._broken_one(kind, type_name)) is not None:
            raise row.error()
        names = [name for a_kind, name in self._entries if a_kind == kind]
        near = difflib.get_close_matches(type_name, names, n=1)
        broken = "; ".join(f"{row.source}: {row.reason}" for row in self.broken())
        raise NotFound(
            f"no {kind} plugin of type {type_name!r}"
            + (f", did you mean {near[0]!r}?" if near else "")
            + (f" Broken plugins: {broken}." if broken else ""),
            code="plugin.unknown_type",
            hint="`knotwork plugin list` shows all of them.",
            detail={"kind": kind, "type": type_name, "nearest": near[0] if near else "", "known": sorted(names)},
        )

    def entries(self) -> list[Entry]:
        """Return every usable type, by kind and name; files whose type name was taken come under their path."""
        named = sorted(self._entries.values(), key=lambda entry: (KINDS.index(entry.kind), entry.type))
        return named + [entry for found in self._by_path.values() for entry in found if entry not in named]

    def broken(self) -> list[Broken]:
        """Return what could not be used."""
        return [*self.unread, *self._taken, *self.failed.values()]

    def config_classes(self, *, apart: bool = False) -> dict[Kind, dict[str, type[PluginConfig]]]:
        """Return the config class of every type by kind, under its name and, for files, under the path as written.

        With `apart` those that judge the tables of instances that run hosted.
        """

        def config(entry: Entry) -> type[PluginConfig]:
            return (entry.apart if apart else entry.factory).config

        classes: dict[Kind, dict[str, type[PluginConfig]]] = {kind: {} for kind in KINDS}
        for (kind, name), entry in self._entries.items():
            classes[kind][name] = config(entry)
        for written in self.settings.files:
            path = file_of(written)  # what may follow is the type
            for kind in KINDS:
                found = self._by_path.get((kind, str(self.settings.absolute(path))), [])
                if len(found) == 1:
                    classes[kind][path] = config(found[0])
                for entry in found:
                    classes[kind][f"{path}:{entry.type}"] = config(entry)
        return classes

    def healed(self, piece: Catalog) -> Catalog:
        """Return a catalog with the entries of `piece`, whose sources count as broken in this one no more."""
        where = {str(source) for source in piece.rows}  # its code may be another now, and so the source
        failed = {source: row for source, row in self.failed.items() if str(source) not in where}
        unread = [row for row in self.unread if row.source not in where]
        return Catalog(self.settings, {**self.rows, **piece.rows}, failed, unread)

    def _broken_one(self, kind: Kind, type_name: str) -> Broken | None:
        """Return why the plugin that would offer a type cannot be used, as far as it is known what it would offer.

        A manifest says it; a package, a file and a folder whose manifest cannot be read are taken for what they are
        called, as `plugin new` makes them.
        """
        for source, row in self.failed.items():
            if source.may_offer(kind, type_name):
                return row
        return next((row for row in self.unread if Path(row.source).stem == type_name), None)

    def _find_by_path(self, kind: Kind, type_name: str) -> Entry:
        name = type_name.rpartition(".py")[2]
        absolute = str(self.settings.absolute(file_of(type_name)))
        found = self._by_path.get((kind, absolute), [])
        fitting = [entry for entry in found if not name or entry.type == name.removeprefix(":")]
        if len(fitting) == 1:
            return fitting[0]
        for row in self.broken():
            if row.source == absolute and not found:
                raise row.error()
        offered = ", ".join(f"{file_of(type_name)}:{entry.type}" for entry in found)
        none = f"no {kind} plugin" + (f" {name.removeprefix(':')!r}" if name else "")
        instead = offered or ", ".join(
            f"{entry.type!r} ({one})"
            for (one, where), row in self._by_path.items()
            if where == absolute
            for entry in row
        )
        raise NotFound(
            f"{absolute} offers "
            + (f"several {kind}: {offered}" if fitting else none + (f", but {instead}" if instead else "")),
            code="plugin.unknown_type",
            hint=f"Write one of these as `type`: {offered}."
            if found
            else "Is the file listed and the hook named right?",
        )


_RENAME = "Rename one, or disable one."


def stand_in(kind: Kind, type_name: str, error: PluginFailed) -> Entry:
    """Return an entry for a broken plugin: its slot fails to start and says why, like any other that fails."""

    @asynccontextmanager
    async def open_broken(_config: Any, _context: Context) -> AsyncIterator[None]:
        raise PluginFailed(error.message, code=error.code, hint=error.hint)
        yield  # makes it a generator

    source = Source("file", type_name, type_name, digest=error.message)
    return Entry(kind, type_name, Factory(type_name, AnyConfig, open_broken), source)


def is_path(type_name: str) -> bool:
    """Say whether a `type` names a file rather than a type."""
    return "/" in type_name or "\\" in type_name or type_name.partition(":")[0].endswith(".py")


def file_of(type_name: str) -> str:
    """Return the file of a `type` that is a path, without the name that may follow."""
    return type_name.rpartition(".py")[0] + ".py" if ".py" in type_name else type_name


def survey(settings: CatalogSettings) -> tuple[list[Source], list[Broken]]:
    """Return all places that offer plugins and those that cannot be read. Imports no plugin code; quick."""
    broken: list[Broken] = []
    found = [
        source
        for source in sources.from_packages(settings.group)
        if source.kind == "bundled" or not (settings.safe_mode or source.name in settings.disabled)
    ]
    for path in () if settings.safe_mode else _paths(settings, broken):
        try:
            source = sources.from_folder(path) if path.is_dir() else sources.from_file(path)
        except KnotworkError as error:
            broken.append(Broken(str(path), error.code, error.message, error.hint))
        else:
            if source.name not in settings.disabled:
                found.append(source)
    return found, broken


def _paths(settings: CatalogSettings, broken: list[Broken]) -> list[Path]:
    """Return every file and folder to look at, each once, files as written first."""
    paths = []
    for written in settings.files:
        absolute = settings.absolute(file_of(written))
        if absolute.suffix == ".py":
            paths.append(absolute)
        else:
            broken.append(Broken(str(absolute), "plugin.file", f"{absolute} is not a .py file"))
    for folder in settings.folders:
        absolute = settings.absolute(str(folder))
        try:
            paths += sources.inside(absolute)
        except OSError as error:
            broken.append(Broken(str(absolute), "plugin.folder", f"cannot be read: {error.strerror or error}"))
    return list(dict.fromkeys(paths))
