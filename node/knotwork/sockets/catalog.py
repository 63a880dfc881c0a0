"""Which types of plugins are there, and which could not be had and why?

The only user of pluggy. `load` blocks (it imports code): call it before the loop runs or in a thread. Nothing a
plugin does while it is imported reaches the caller: what fails becomes a `Broken` row.
"""

from __future__ import annotations

import difflib
import logging
import re
import time
import traceback
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy
from pydantic import ConfigDict

from knotwork.sdk import (
    API_VERSION,
    KINDS,
    Context,
    Factory,
    KnotworkError,
    NotFound,
    PluginConfig,
    PluginFailed,
    hooks,
)
from knotwork.sdk.factory import Kind
from knotwork.sockets import manifest, sources
from knotwork.sockets.importing import Errand, bring_in
from knotwork.sockets.sources import Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

log = logging.getLogger(__name__)
FACTORIES_MAX = 200
PATIENCE_S = 1.0
Key = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """Where to look. Relative `files` (as written by the operator) are meant from `base`; times in seconds.

    `disabled` holds names of entry points, folders or files that are not loaded; `safe_mode` loads bundled ones only.
    """

    files: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    base: Path = field(default_factory=Path.cwd)
    start_timeout_s: float = 10.0
    disabled: frozenset[str] = frozenset()
    safe_mode: bool = False
    group: str = sources.GROUP


@dataclass(frozen=True, slots=True)
class Entry:
    """One type that can be used. `hosted_only` means: never in the node's own process; `load_s` is what it cost."""

    kind: Kind
    type: str
    factory: Factory[Any]
    source: Source
    hosted_only: bool = False
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Broken:
    """One plugin, or one of its types, that cannot be used, and why."""

    source: str
    code: str
    reason: str
    hint: str = ""


class AnyConfig(PluginConfig):
    """The table of a plugin that the node may not import: checked by the plugin itself, in its own process."""

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(slots=True)
class Catalog:
    """What was found. Never changes; `extended` makes another."""

    settings: CatalogSettings
    _entries: dict[Key, Entry] = field(default_factory=dict)
    _by_path: dict[tuple[Kind, str], list[Entry]] = field(default_factory=dict)
    _broken: list[Broken] = field(default_factory=list)
    _failed: dict[Source, Broken] = field(default_factory=dict)

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
            raise PluginFailed(told, code="plugin.safe_mode", hint="Start the node without --safe-mode.")
        if is_path(type_name):
            return self._find_by_path(kind, type_name)
        names = [name for a_kind, name in self._entries if a_kind == kind]
        near = difflib.get_close_matches(type_name, names, n=1)
        broken = "; ".join(f"{row.source}: {row.reason}" for row in self._broken)
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
        """Return what could not be used, in the order in which it was met."""
        return list(self._broken)

    def config_classes(self) -> dict[Kind, dict[str, type[PluginConfig]]]:
        """Return the config class of every type by kind, under its name and, for files, under the path as written."""
        classes: dict[Kind, dict[str, type[PluginConfig]]] = {kind: {} for kind in KINDS}
        for (kind, name), entry in self._entries.items():
            classes[kind][name] = entry.factory.config
        for written in self.settings.files:
            path = written.rpartition(".py")[0] + ".py"  # what may follow is the type
            for kind in KINDS:
                found = self._by_path.get((kind, str(self._absolute(path))), [])
                if len(found) == 1:
                    classes[kind][path] = found[0].factory.config
                for entry in found:
                    classes[kind][f"{path}:{entry.type}"] = entry.factory.config
        return classes

    def extended(self, files: Iterable[str]) -> Catalog:
        """Return a catalog that also holds `files` (as written); files whose content changed are read anew. Blocks."""
        wanted = dict.fromkeys((*self.settings.files, *files))
        return load(replace(self.settings, files=tuple(wanted)), earlier=self)

    def _find_by_path(self, kind: Kind, type_name: str) -> Entry:
        path, _, name = type_name.rpartition(".py")
        absolute = str(self._absolute(path + ".py"))
        found = self._by_path.get((kind, absolute), [])
        fitting = [entry for entry in found if not name or entry.type == name.removeprefix(":")]
        if len(fitting) == 1:
            return fitting[0]
        for row in self._broken:
            if row.source == absolute and not found:
                raise PluginFailed(row.reason, code=row.code, hint=row.hint)
        offered = ", ".join(f"{type_name.partition(':')[0]}:{entry.type}" for entry in found)
        raise NotFound(
            f"{absolute} offers " + (f"several {kind}: {offered}" if fitting else f"no such {kind} plugin"),
            code="plugin.unknown_type",
            hint="Write the file and the type, like `./file.py:name`."
            if found
            else "Is the file listed and the hook named right?",
        )

    def _absolute(self, written: str) -> Path:
        return Path(self.settings.base, Path(written).expanduser()).resolve()


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


def load(settings: CatalogSettings, earlier: Catalog | None = None) -> Catalog:
    """Return everything that can be used. Blocks for the imports, up to `start_timeout_s` seconds for those that hang.

    With `earlier`, what it holds and what has not changed since is taken over instead of imported again. Never raises
    for what a plugin does.
    """
    found, broken = survey(settings)
    catalog = Catalog(settings, _broken=broken)
    errands: list[tuple[Source, Errand[list[tuple[Kind, Factory[Any]]]], float]] = []
    kept = _by_source(earlier)
    for source in found:
        known = earlier._failed.get(source) if earlier else None  # noqa: SLF001  unchanged since: it would fail, or hang, again
        wrong = known or _wrong_api(source.api, str(source))
        if wrong is not None:
            catalog._failed[source] = wrong  # noqa: SLF001  the catalog is being built here
        elif source not in kept and not source.hosted:
            errand = Errand(lambda source=source: offers(source), source.name)  # type: ignore[misc]
            errands.append((source, errand, time.monotonic()))
            errand.finished(
                min(PATIENCE_S, settings.start_timeout_s)
            )  # one after the other, but a slow one holds up nobody
    results = {source: _await(errand, source, start_s, settings) for source, errand, start_s in errands}
    for source in found:
        result = kept.get(source) or results.get(source) or _unseen(source)
        if isinstance(result, Broken):
            catalog._failed[source] = result  # noqa: SLF001
        for entry in result if isinstance(result, list) else []:
            _add(catalog, entry)
    broken += catalog._failed.values()  # noqa: SLF001
    return catalog


def offers(source: Source) -> list[tuple[Kind, Factory[Any]]]:
    """Import one plugin and return its checked factories; raises `PluginFailed` or what the plugin's code raises."""
    plugin = bring_in(source)
    wrong = _wrong_api(getattr(plugin, "knotwork_api", API_VERSION), str(source))
    if wrong is not None:
        raise PluginFailed(wrong.reason, code=wrong.code, hint=wrong.hint)
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, name=source.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginFailed(_about_hook(str(error)), code="plugin.unknown_hook", hint=_HOOK_HINT) from error
    found: list[tuple[Kind, Factory[Any]]] = []
    for kind in KINDS:
        for result in getattr(manager.hook, kind)():
            found += [(kind, _checked(kind, factory)) for factory in islice(result, FACTORIES_MAX)]
    if not found:
        raise PluginFailed("offers nothing", code="plugin.empty", hint="Is a hook missing its `@hookimpl`?")
    return found


_HOOK_HINT = f"The hooks are {', '.join(KINDS)}."


def _about_hook(told: str) -> str:
    named = re.search(r"hook '(\w+)'", told)
    near = difflib.get_close_matches(named[1], KINDS, n=1) if named else []
    return (f"implements no known hook with {named[1]!r}" if named else told) + (
        f", did you mean {near[0]!r}?" if near else ""
    )


def _checked(kind: Kind, factory: Any) -> Factory[Any]:
    """Return the factory when it keeps its side of the contract, else raise `PluginFailed` saying what is wrong."""
    problem = ""
    if not isinstance(factory, Factory):
        problem = f"the hook {kind!r} yielded {type(factory).__name__}, not a Factory"
    elif not re.match(manifest.TOKEN, str(factory.name)):
        problem = f"type name {str(factory.name)[:80]!r} is not a token ({manifest.TOKEN})"
    elif not (isinstance(factory.config, type) and issubclass(factory.config, PluginConfig)):
        problem = f"the config class of {factory.name!r} does not derive from PluginConfig"
    elif not callable(factory.open):
        problem = f"`open` of {factory.name!r} cannot be called"
    if problem:
        raise PluginFailed(problem, code="plugin.bad_factory")
    checked: Factory[Any] = factory
    return checked


def _await(
    errand: Errand[list[tuple[Kind, Factory[Any]]]],
    source: Source,
    start_s: float,
    settings: CatalogSettings,
) -> list[Entry] | Broken:
    """Return the entries of a finished import, or why there are none."""
    if not errand.finished(max(0.0, start_s + settings.start_timeout_s - time.monotonic())):
        errand.abandon()
        told = f"still not imported after {settings.start_timeout_s:g} s"
        hint = "Move slow work from import into `open`, or raise plugins.start_timeout_s."
        log.warning("plugin %s is broken: %s", source, told)
        return Broken(str(source), "plugin.import_hung", told, hint)
    try:
        took_s = time.monotonic() - start_s
        return [Entry(kind, factory.name, factory, source, load_s=took_s) for kind, factory in errand.result()]
    except KnotworkError as error:
        row = Broken(str(source), error.code, error.message, error.hint)
    except BaseException as error:  # noqa: BLE001  whatever foreign code raised while it was imported, in a thread of its own
        row = Broken(str(source), "plugin.import_failed", _where(error), "Mend the plugin or take it off the list.")
    log.warning("plugin %s is broken: %s", row.source, row.reason)
    return row


def _where(error: BaseException) -> str:
    """Return type, text and the last place of an error, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error)[:500]}{place}"


def _wrong_api(api: Any, source: str) -> Broken | None:
    if api == API_VERSION:
        return None
    return Broken(
        source,
        "plugin.api_version",
        f"written for plugin interface {str(api)[:20]}, this node speaks {API_VERSION}",
        "Use a version of the plugin made for this node, or upgrade the node.",
    )


def _unseen(source: Source) -> list[Entry]:
    """Return the entries of a plugin that is never imported here, from its manifest alone."""
    if not source.hosted or source.plugin_kind is None or source.api != API_VERSION:
        return []
    kind = source.plugin_kind
    return [Entry(kind, name, _unseen_factory(name, source.summary), source, hosted_only=True) for name in source.types]


def _unseen_factory(name: str, summary: str = "") -> Factory[Any]:
    return Factory(name, AnyConfig, _only_hosted, summary)


def _only_hosted(_config: Any, context: Context) -> AbstractAsyncContextManager[Any]:
    raise PluginFailed(f"{context.id}: this plugin runs hosted only", code="plugin.hosted_only")


def _add(catalog: Catalog, entry: Entry) -> None:
    """Enter one type; a name that is taken becomes a broken row (a file can still be used by its path)."""
    source, by_path = entry.source, catalog._by_path  # noqa: SLF001  the catalog is being built here
    if source.kind == "file":
        by_path.setdefault((entry.kind, source.where), []).append(entry)
    taken = catalog._entries.setdefault((entry.kind, entry.type), entry)  # noqa: SLF001
    if taken is not entry:
        hint = "Write the file's path as `type` to use it." if source.kind == "file" else "Rename one, or disable one."
        reason = f"type name {entry.type!r} ({entry.kind}) is already offered by {taken.source}"
        catalog._broken.append(Broken(str(source), "plugin.duplicate", reason, hint))  # noqa: SLF001


def _paths(settings: CatalogSettings, broken: list[Broken]) -> list[Path]:
    """Return every file and folder to look at, each once, files as written first."""
    paths = [
        Path(settings.base, Path(written.rpartition(".py")[0] + ".py").expanduser()).resolve()
        for written in settings.files
    ]
    for folder in settings.folders:
        absolute = Path(settings.base, folder.expanduser()).resolve()
        try:
            paths += sources.inside(absolute)
        except OSError as error:
            broken.append(Broken(str(absolute), "plugin.folder", f"cannot be read: {error.strerror or error}"))
    return list(dict.fromkeys(paths))


def _by_source(catalog: Catalog | None) -> Mapping[Source, list[Entry]]:
    """Return what an earlier catalog holds, by source; equal sources have equal digests."""
    kept: dict[Source, list[Entry]] = {}
    for entry in catalog.entries() if catalog else []:
        kept.setdefault(entry.source, []).append(entry)
    return kept
