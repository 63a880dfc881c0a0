"""How does a catalog come about? Bundled plugins are imported; foreign ones are tried first, and imported when needed.

Blocks: call it before the loop runs or in a thread.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from knotwork.config.instances import written_settings
from knotwork.config.model import Config
from knotwork.sdk import Factory, KnotworkError
from knotwork.sdk.factory import Kind
from knotwork.sockets import described, factories, tried
from knotwork.sockets.catalog import Catalog, CatalogSettings, Entry, Use, is_path, survey
from knotwork.sockets.factories import Broken
from knotwork.sockets.importing import Errand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from knotwork.sockets.sources import Source

log = logging.getLogger(__name__)
TURN_S = 1.0
"""How long an import may keep the next one waiting: they run one after the other, but a slow one holds up nobody."""
Offered = list[tuple[Kind, Factory[Any]]]
Results = dict["Source", "list[Entry] | Broken"]


def load(
    settings: CatalogSettings, earlier: Catalog | None = None, only: Callable[[Source], bool] = lambda _: True
) -> Catalog:
    """Return everything that can be used. Blocks for imports; foreign ones that hang are given up.

    With `earlier`, what it holds and what has not changed since is taken over instead of tried again; sources that are
    not `only` are passed over. Never raises for what a plugin does.
    """
    found, unread = survey(settings)
    found = [source for source in found if only(source)]
    building = _Building(settings, found, unread)
    for source in found:
        building.take_over(source, earlier)
    building.add(_imported([source for source in building.missing() if source.kind == "bundled"], settings, {}))
    building.add(_tried(building.missing(), settings))
    catalog = building.catalog()
    _judge_ahead(catalog)
    needed = _needed(catalog)
    if not needed:
        return catalog
    building.add(_tried_here(needed, catalog))
    building.add(_imported([source for source in needed if source in building.rows], settings, building.rows))
    return building.catalog()


def extended(
    catalog: Catalog, files: Iterable[str], uses: tuple[Use, ...] | None = None, *, imports: bool = True
) -> Catalog:
    """Return a catalog that also holds `files` (as written), for these uses; what changed is read anew. Blocks."""
    settings = replace(
        catalog.settings,
        files=tuple(dict.fromkeys((*catalog.settings.files, *files))),
        uses=catalog.settings.uses if uses is None else uses,
        imports=imports,
    )
    return load(settings, earlier=catalog)


def looked_again(catalog: Catalog, use: Use, *, patience_s: float) -> Catalog:
    """Return what the one plugin behind an instance offers, tried again: it was broken. Blocks, `patience_s` or longer."""
    settings = replace(catalog.settings, uses=(use,), imports=True, patience_s=patience_s)
    if is_path(use.type):
        return load(replace(settings, files=(use.type,), folders=(), group=""))
    return load(settings, only=lambda source: source.kind != "bundled" and source.may_offer(use.kind, use.type))


class _Building:
    """A catalog being made: what is known of each source so far."""

    def __init__(self, settings: CatalogSettings, found: list[Source], unread: list[Broken]) -> None:
        self.settings, self.found, self.unread = settings, found, unread
        self.rows: dict[Source, list[Entry]] = {}
        self.failed: dict[Source, Broken] = {}

    def take_over(self, source: Source, earlier: Catalog | None) -> None:
        """Keep what is known of a source whose code is the same: it would offer the same, or fail, or hang, again."""
        wrong = factories.wrong_api(source.api, str(source))
        if wrong is not None:
            self.failed[source] = wrong
        elif earlier is None:
            return
        elif source in earlier.rows:
            self.rows[source] = earlier.rows[source]
        elif source in earlier.failed and earlier.settings.uses_of(source) == self.settings.uses_of(source):
            self.failed[source] = earlier.failed[source]  # when somebody edits a table of it, it is tried anew

    def missing(self) -> list[Source]:
        """Return the sources of which nothing is known."""
        return [source for source in self.found if source not in self.rows and source not in self.failed]

    def add(self, results: Results) -> None:
        """Take what was found out about some sources."""
        for source, result in results.items():
            self.rows.pop(source, None)
            if isinstance(result, Broken):
                self.failed[source] = result
            else:
                self.rows[source] = result

    def catalog(self) -> Catalog:
        """Return what is known by now, in the order in which the sources were found."""
        rows = {source: self.rows[source] for source in self.found if source in self.rows}
        return Catalog(self.settings, rows, dict(self.failed), list(self.unread))


# -- in processes made for that ------------------------------------------------------------------------------------------


def _tried(sources: Sequence[Source], settings: CatalogSettings) -> Results:
    """Try plugins as what they are to be used as, and describe what they offer."""
    wanted = [_wanted(source, settings) for source in sources]
    told = tried.try_all(wanted)
    return {
        one.source: said if isinstance(said, Broken) else _entries(one, said)
        for one, said in zip(wanted, told, strict=True)
    }


def _tried_here(sources: Sequence[Source], catalog: Catalog) -> Results:
    """Try as something to be imported here what was tried as a hosted plugin only."""
    wanted = [
        _wanted(source, catalog.settings, here=True)
        for source in sources
        if any(entry.tried_apart for entry in catalog.rows[source])
    ]
    told = tried.try_all(wanted)
    return {
        one.source: said
        if isinstance(said, Broken)
        else [replace(entry, tried_apart=False) for entry in catalog.rows[one.source]]
        for one, said in zip(wanted, told, strict=True)
    }


def _wanted(source: Source, settings: CatalogSettings, *, here: bool = False) -> tried.Wanted:
    uses = settings.uses_of(source)
    apart = source.hosted or (not here and bool(uses) and all(use.hosted for use in uses))
    limits_mb = [use.memory_mb for use in uses] if apart else []
    memory_mb = (0 if 0 in limits_mb else max(limits_mb)) if limits_mb else settings.import_memory_mb
    tables = [_table(use) for use in uses if use.hosted or source.hosted or not settings.imports]
    return tried.Wanted(source, apart, memory_mb, settings.import_s, settings.start_timeout_s, tables)


def _table(use: Use) -> tried.Table:
    common = Config.KIND_TABLES[use.kind].common_keys()
    own = {key: value for key, value in use.table.items() if key not in common}
    name = use.type.rpartition(".py")[2].removeprefix(":") if is_path(use.type) else use.type
    return tried.Table(use.kind, name, own, {key: value for key, value in use.table.items() if key in common})


def _entries(wanted: tried.Wanted, told: tried.Told) -> list[Entry]:
    offered = [(offer.kind, described.factory_of(offer, wanted)) for offer in told.offers]
    described.learn(told, offered)
    source = wanted.source
    return [
        Entry(kind, factory.name, factory, source, source.hosted, told.took_s, factory, wanted.apart)
        for kind, factory in offered
    ]


def _judge_ahead(catalog: Catalog) -> None:
    """Let all tables that are judged elsewhere, and were not yet, be judged side by side."""
    wanted: dict[Source, tried.Wanted] = {}
    for use in catalog.settings.uses or ():
        entry = _found(catalog, use)
        if entry is None or not (use.hosted or entry.hosted_only or not catalog.settings.imports):
            continue
        judge = described.judge_of(entry.apart)
        if judge is None:
            continue
        table = written_settings(use.kind, use.table, entry.apart.config)
        if not judge.knows(table):
            one = wanted.setdefault(entry.source, tried.with_tables(judge.wanted, []))
            one.tables.append(tried.Table(use.kind, entry.type, table))
    for source, told in zip(wanted, tried.try_all(list(wanted.values())), strict=True):
        if not isinstance(told, Broken):  # else it is said when that table is looked at
            described.learn(told, [(entry.kind, entry.apart) for entry in catalog.rows[source]])


# -- in this process -----------------------------------------------------------------------------------------------------


def _needed(catalog: Catalog) -> list[Source]:
    """Return the foreign sources that are to be imported here and are not yet, because an instance is to run here."""
    settings = catalog.settings
    if not settings.imports:
        return []
    if settings.uses is None:
        entries = [entry for found in catalog.rows.values() for entry in found]
    else:
        entries = [entry for use in settings.uses if not use.hosted and (entry := _found(catalog, use)) is not None]
    return list(dict.fromkeys(entry.source for entry in entries if not (entry.imported or entry.hosted_only)))


def _found(catalog: Catalog, use: Use) -> Entry | None:
    try:
        return catalog.find(use.kind, use.type)
    except KnotworkError:
        return None


def _imported(sources: Iterable[Source], settings: CatalogSettings, known: Mapping[Source, list[Entry]]) -> Results:
    """Import plugins here, one after the other; for those that hang we wait together. `known` tells how they looked."""
    errands: list[tuple[Source, Errand[Offered]]] = []
    for source in sources:
        errand = Errand(lambda source=source: factories.offers(source), source.name)  # type: ignore[misc]
        errands.append((source, errand))
        errand.finished(min(TURN_S, settings.import_s))
    results: Results = {}
    for source, errand in errands:
        before = {(entry.kind, entry.type): entry for entry in known.get(source, ())}
        tried_s = tried.SLOWNESS * max((entry.load_s for entry in before.values()), default=0.0)
        offered = _awaited(errand, source, tried.patience(settings.import_s, settings.start_timeout_s, tried_s))
        if isinstance(offered, Broken):
            log.warning("plugin %s is broken: %s", source, offered.reason)
            results[source] = offered
            continue
        results[source] = [
            replace(before[kind, factory.name], factory=factory, load_s=errand.took_s)
            if (kind, factory.name) in before
            else Entry(kind, factory.name, factory, source, load_s=errand.took_s)
            for kind, factory in offered
        ]
    return results


def _awaited(errand: Errand[Offered], source: Source, import_s: float) -> Offered | Broken:
    """Return the factories of an import that is under way, or why there are none.

    Our own may take however long they do: they do not hang, and without them a node is of no use on any machine.
    """
    if source.kind == "bundled":
        errand.finished(threading.TIMEOUT_MAX)
    elif not errand.finished(max(0.0, errand.start_s + import_s - time.monotonic())):
        errand.abandon()
        return tried.hangs(source, import_s)
    try:
        return errand.result()
    except BaseException as error:  # noqa: BLE001  whatever foreign code raised while it was imported, in a thread of its own
        why = factories.failure(error)
        return Broken(str(source), why.code, why.message, why.hint)
