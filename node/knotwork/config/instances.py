"""Do the tables of plugins fit the plugins? The second pass, once it is known which plugin types exist."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from knotwork.config import bones, elsewhere, judge, references, wording
from knotwork.config.instance_tables import SECTIONS
from knotwork.config.keys import Path, dotted, known_part, lookup
from knotwork.config.layers import Merged
from knotwork.config.loaded import Loaded
from knotwork.config.memory_table import BUNDLED_MEMORIES, SCOPES
from knotwork.config.model import BUNDLED_ROUTERS, Config
from knotwork.config.problems import Problem, did_you_mean, invalid
from knotwork.sdk import KINDS, Kind, PluginConfig

Types = Mapping[str, type[PluginConfig]]
Key = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Known:
    """Which plugin types there are: the config class of each by kind and name.

    `apart` are the classes for instances that run hosted, where those are others. `broken` says why a type that exists
    cannot be used, `absent` why there is none ("": not known yet, say nothing), both by (kind, type). Those of `broken`
    that are in `excused` only took too long, which a machine may be to blame for, or are left out on purpose. `able` is
    what a type says that it can do.
    """

    classes: Mapping[Kind, Types] = field(default_factory=dict)
    apart: Mapping[Kind, Types] | None = None
    broken: Mapping[Key, str] = field(default_factory=dict)
    absent: Mapping[Key, str] = field(default_factory=dict)
    excused: Collection[Key] = frozenset()
    able: Mapping[Key, Collection[str]] = field(default_factory=dict)

    def types(self, kind: Kind, *, hosted: bool) -> Types:
        """Return the types of a kind as an instance meets them that is hosted, or not."""
        return (self.apart if hosted and self.apart is not None else self.classes).get(kind, {})


FindTypes = Callable[[Mapping[str, Any], pathlib.Path], Known]
"""Given the tables as written and the folder they are in, return which plugin types there are."""


def check_instances(
    loaded: Loaded, kinds: Mapping[Kind, Types] | Known, broken: Collection[Key] = (), *, only: Key | None = None
) -> dict[Key, PluginConfig]:
    """Return the plugin's own configuration of every enabled instance, by kind and id.

    `kinds` gives the config class of every plugin type by kind. Instances of a type in `broken` (kind, type) are left
    out: their plugin could not be loaded, which is no fault of the configuration, unless they say that it is
    (`on_start_error = "fail"`). A plugin class that declares a key all plugins have in common (`timeout_s`, say) is
    given it too, when it was written. `only` is the one instance to look at. Reads the files of secrets. Raises `ConfigInvalid` with every problem of every
    instance, and every secret that cannot be had, each with file, line and column.
    """
    known = kinds if isinstance(kinds, Known) else Known(kinds, broken=dict.fromkeys(broken, "it cannot be loaded"))
    configs: dict[Key, PluginConfig] = {}
    problems = [problem for problem, fatal in unusable(loaded, known) if fatal] + _unfit(loaded.merged, known)
    wanted: list[references.Reference] = []
    for kind in KINDS:
        for name, table in loaded.config.instances(kind).items():
            if not table.enabled or (kind, table.type) in known.broken or only not in (None, (kind, name)):
                continue
            types = known.types(kind, hosted=table.hosted)
            model = types.get(table.type)
            if model is None:
                absent = known.absent.get((kind, table.type), "")
                problems.append(_unknown_type(loaded.merged, (SECTIONS[kind], name), table.type, types, absent))
                continue
            path, settings = (SECTIONS[kind], name), _settings(loaded, kind, name, model)
            config, found = _check(loaded.merged, path, settings, model)
            problems += found
            wanted += (
                references.as_written(model, settings, path) if config is None else references.inside(config, path)
            )
            if config is not None:
                configs[kind, name] = config
    env = os.environ if loaded.sources.env is None else loaded.sources.env
    wanted += references.of_the_node(loaded.merged.data)
    problems += references.out_of_reach(wanted, loaded.merged, env, loaded.folder)
    if problems:
        raise invalid(problems)
    return configs


def unusable(loaded: Loaded, known: Known) -> list[tuple[Problem, bool]]:
    """Return a problem for every enabled instance whose plugin is broken, and whether a node refuses to start with it.

    It does when the instance says `on_start_error = "fail"`; else it starts, and its slot waits. So it does with one that
    only took too long, which is then given all of `plugins.start_timeout_s`, and with one that is left out on purpose.
    """
    found = []
    for kind in KINDS:
        for name, table in loaded.config.instances(kind).items():
            if table.enabled and (reason := known.broken.get((kind, table.type))):
                problem = _broken(loaded.merged, (SECTIONS[kind], name), table.type, reason)
                fatal = table.on_start_error == "fail" and (kind, table.type) not in known.excused
                found += [(one, fatal) for one in problem]
    return found


def judge_tables(
    merged: Merged, known: Known, *, folder: pathlib.Path | None = None, env: Mapping[str, str], partly: bool = False
) -> list[Problem]:
    """Return the problems of all plugin tables as they are written, whatever else is wrong with the configuration.

    `partly` says that broken lines are missing from the tables: then nothing is said about what is not there.
    Secrets that cannot be had are among the problems; their files are read, paths counted from `folder`.
    """
    problems = _unfit(merged, known)
    wanted = list(references.of_the_node(merged.data))
    for kind, name, table in tables(merged.data):
        path, type_name = (SECTIONS[kind], name), type_of(name, table)
        if (kind, type_name) in known.broken:
            problems += _broken(merged, path, type_name, known.broken[kind, type_name])
            continue
        types = known.types(kind, hosted=table.get("hosted") is True)
        model = types.get(type_name)
        if model is not None:
            settings = written_settings(kind, table, model)
            config, found = _check(merged, path, settings, model, partly=partly)
            problems += found
            wanted += (
                references.as_written(model, settings, path) if config is None else references.inside(config, path)
            )
        elif known.absent.get((kind, type_name)) != "" and (not partly or "type" in table):
            problems.append(_unknown_type(merged, path, type_name, types, known.absent.get((kind, type_name), "")))
    return problems + references.out_of_reach(wanted, merged, env, folder or pathlib.Path())


def tables(data: Mapping[str, Any]) -> Iterator[tuple[Kind, str, Mapping[str, Any]]]:
    """Yield kind, id and table of every instance that is written and enabled; what is no table is passed over."""
    for kind in KINDS:
        written = data.get(SECTIONS[kind])
        for name, table in written.items() if isinstance(written, Mapping) else ():
            if isinstance(table, Mapping) and table.get("enabled") is not False:
                yield kind, name, table


def type_of(name: str, table: Mapping[str, Any]) -> str:
    """Return the plugin type that a table asks for: its id when it says nothing sensible."""
    written = table.get("type")
    return written if isinstance(written, str) and written else name


def _settings(loaded: Loaded, kind: Kind, name: str, model: type[PluginConfig]) -> dict[str, object]:
    """Return what a plugin of this config class is given of its table.

    Elsewhere a table is judged as it was written, and maybe was already.
    """
    table = loaded.config.instances(kind)[name]
    if issubclass(model, elsewhere.Elsewhere):
        return written_settings(kind, lookup(loaded.merged.data, (SECTIONS[kind], name)), model)
    shared = {
        key: getattr(table, key)
        for key in table.common_keys()
        if key in model.model_fields and key in table.model_fields_set
    }
    return {**table.settings, **shared}


def written_settings(kind: Kind, table: Mapping[str, Any], model: type[PluginConfig]) -> dict[str, object]:
    """Return the same of a table as it is written, which may be wrong."""
    common, own = Config.KIND_TABLES[kind].common_keys(), elsewhere.keys_of(model)
    return {key: value for key, value in table.items() if key not in common or key in own}


def _check(
    merged: Merged, path: Path, settings: Mapping[str, object], model: type[PluginConfig], *, partly: bool = False
) -> tuple[PluginConfig | None, list[Problem]]:
    config, errors = judge.fit(model, merged, path, settings)
    errors = errors + _behind(model, path, settings, errors)
    errors = [(error, _named(error, at, path, settings)) for error, at in errors]
    keys = {**dict.fromkeys(Config.KIND_TABLES[_kind(path)].common_keys()), **bones.skeleton(model)}

    def keys_at(at: Path) -> Sequence[str]:
        return bones.keys_in(keys, at[len(path) :])

    told = [(error, at) for error, at in errors if not (partly and error["type"] == "missing")]
    return config, [judge.problem_of(error, at, merged, keys_at) for error, at in told]


def _behind(
    model: type[PluginConfig], path: Path, settings: Mapping[str, object], errors: Sequence[tuple[ErrorDetails, Path]]
) -> list[tuple[ErrorDetails, Path]]:
    """Return what is wrong with single keys by rules that are not asked while other keys are wrong.

    A switch that cannot be read may decide what the others mean: then nothing more is said.
    """
    wrong = {at[len(path)] for _, at in errors if len(at) > len(path)}
    if not wrong or any(error["type"].startswith("bool_") for error, _ in errors):
        return []
    rest = {key: value for key, value in settings.items() if key not in wrong}
    try:
        model.model_validate(rest)
    except ValidationError as error:
        found = [(one, path) for one in error.errors(include_url=False) if not one["loc"]]
        return [(one, at) for one, at in found if _named(one, at, path, rest) != path]
    return []


def _named(error: ErrorDetails, at: Path, path: Path, settings: Mapping[str, object]) -> Path:
    """Return the place of an error; one of a whole table that begins with the name of a key is about that key."""
    if at != path or error["type"] != "value_error":
        return at
    first = re.split(r"[^\w-]", wording.own_words(error), maxsplit=1)[0]
    return (*path, first) if first in settings else at


def _kind(path: Path) -> Kind:
    return next(kind for kind in KINDS if SECTIONS[kind] == path[0])


def _broken(merged: Merged, path: Path, type_name: str, reason: str) -> list[Problem]:
    if not reason:
        return []
    message = f"{dotted(path)}: plugin {type_name[:200]!r} cannot be used: {reason.rstrip('.')}"
    return [Problem(*_place_of_type(merged, path), dotted((*path, "type")), message, "", "config.broken_plugin")]


def _unfit(merged: Merged, known: Known) -> list[Problem]:
    """Return a problem for every memory plugin that is to keep a scope and only makes vectors, and the other way round.

    One that says neither what it can do nor what it cannot is taken at the operator's word.
    """
    memory, memories = merged.data.get("memory"), merged.data.get(SECTIONS["memories"])
    if not isinstance(memory, Mapping) or not isinstance(memories, Mapping):
        return []
    problems = []
    for key, wanted, other in _MEMORY_USES:
        name = memory.get(key)
        table = memories.get(name) if isinstance(name, str) else None
        if not isinstance(name, str) or not isinstance(table, Mapping) or table.get("enabled") is False:
            continue  # said elsewhere
        able = known.able.get(("memories", type_of(name, table)), ())
        if other in able and wanted not in able:
            message = f"[memories.{name[:64]}] {_CANNOT[wanted]}"
            where = merged.where(("memory", key), value=True)
            problems.append(Problem(*where, f"memory.{key}", message, _FIT[wanted], "config.contradiction"))
    return problems


_STORES, _EMBEDS = "stores", "embeds"
_MEMORY_USES = (*((scope, _STORES, _EMBEDS) for scope in SCOPES), ("embeddings", _EMBEDS, _STORES))
_CANNOT = {_STORES: "makes vectors and keeps nothing", _EMBEDS: "keeps memories and makes no vectors"}
_FIT = {
    _STORES: "Name one that keeps memories: kv and sqlite need no table.",
    _EMBEDS: "Name one that makes vectors: of type openai-embeddings, say.",
}


def _unknown_type(merged: Merged, path: Path, type_name: str, types: Types, why: str) -> Problem:
    hint = did_you_mean(type_name, list(types)) if not why else ""
    message = f"{dotted(path)}: " + (why.rstrip(".") or f"there is no {_ONE[_kind(path)]} of type {type_name[:200]!r}")
    if known_part(merged.data, (*path, "type")) == path:
        message += " (the id is the type when none is written)"
    return Problem(*_place_of_type(merged, path), dotted((*path, "type")), message, hint, "config.unknown_type")


def _place_of_type(merged: Merged, path: Path) -> tuple[str, int, int]:
    return merged.where(known_part(merged.data, (*path, "type")), value=True)


_ONE: dict[Kind, str] = {
    "executors": "executor", "routers": "router", "memories": "memory", "spinups": "spin-up", "telemetry": "telemetry",
    "triggers": "trigger",
}  # fmt: skip


def implied_routers(config: Config) -> tuple[str, ...]:
    """Return the routers in use that no table declares: bundled ones, which need none."""
    return tuple(name for name in config.routing.routers if name in BUNDLED_ROUTERS and name not in config.routers)


def implied_memories(config: Config) -> tuple[str, ...]:
    """Return the memory plugins in use that no table declares: bundled ones, which need none.

    kv is in use whatever keeps the scopes: it knows who is in quarantine.
    """
    table = config.memory
    used = dict.fromkeys((table.private, table.personal, table.team, table.public, "kv"))
    return tuple(name for name in used if name in BUNDLED_MEMORIES and name not in config.memories)
