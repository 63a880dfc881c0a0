"""Do the tables of plugins fit the plugins? The second pass, once it is known which plugin types exist."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from knotwork.config import judge
from knotwork.config.keys import Path, dotted, known_part
from knotwork.config.layers import Merged
from knotwork.config.loaded import Loaded
from knotwork.config.model import CAPABILITY_ROUTER, Config, InstanceTable
from knotwork.config.problems import Problem, did_you_mean, invalid
from knotwork.sdk import KINDS, Kind, PluginConfig

Types = Mapping[str, type[PluginConfig]]
Known = tuple[Mapping[Kind, Types], Mapping[tuple[Kind, str], str]]
"""The config class of every plugin type, and why a type that exists cannot be used ("": not known yet, say nothing)."""
FindTypes = Callable[[Mapping[str, Any], pathlib.Path], Known]
"""Given the tables as written and the folder they are in, return which plugin types there are."""


def check_instances(
    loaded: Loaded, kinds: Mapping[Kind, Types], broken: Collection[tuple[Kind, str]] = ()
) -> dict[tuple[Kind, str], PluginConfig]:
    """Return the plugin's own configuration of every enabled instance, by kind and id.

    `kinds` gives the config class of every plugin type by kind. Instances of a type in `broken` (kind, type) are left
    out: their plugin could not be loaded, which is no fault of the configuration. A plugin class that declares a key
    all plugins have in common (`timeout_s`, say) is given it too, when it was written. Raises `ConfigInvalid` with
    every problem of every instance, each with file, line and column.
    """
    configs: dict[tuple[Kind, str], PluginConfig] = {}
    problems: list[Problem] = []
    for kind in KINDS:
        types = kinds.get(kind, {})
        for name, table in loaded.config.instances(kind).items():
            if not table.enabled or (kind, table.type) in broken:
                continue
            model = types.get(table.type)
            if model is None:
                problems.append(_unknown_type(loaded.merged, (kind, name), table.type, types))
                continue
            config, found = _check(loaded.merged, (kind, name), own_settings(table, model), model)
            problems += found
            if config is not None:
                configs[kind, name] = config
    if problems:
        raise invalid(problems)
    return configs


def judge_tables(merged: Merged, known: Known, *, partly: bool = False) -> list[Problem]:
    """Return the problems of all plugin tables as they are written, whatever else is wrong with the configuration.

    `partly` says that broken lines are missing from the tables: then nothing is said about what is not there.
    """
    classes, broken = known
    problems: list[Problem] = []
    for kind, name, table in tables(merged.data):
        path, type_name = (kind, name), type_of(name, table)
        if (kind, type_name) in broken:
            problems += _broken(merged, path, type_name, broken[kind, type_name])
            continue
        types = classes.get(kind, {})
        model = types.get(type_name)
        if model is not None:
            common = Config.KIND_TABLES[kind].common_keys()
            settings = {key: value for key, value in table.items() if key not in common or key in model.model_fields}
            problems += _check(merged, path, settings, model, partly=partly)[1]
        elif not partly or "type" in table:
            problems.append(_unknown_type(merged, path, type_name, types))
    return problems


def tables(data: Mapping[str, Any]) -> Iterator[tuple[Kind, str, Mapping[str, Any]]]:
    """Yield kind, id and table of every instance that is written and enabled; what is no table is passed over."""
    for kind in KINDS:
        written = data.get(kind)
        for name, table in written.items() if isinstance(written, Mapping) else ():
            if isinstance(table, Mapping) and table.get("enabled") is not False:
                yield kind, name, table


def type_of(name: str, table: Mapping[str, Any]) -> str:
    """Return the plugin type that a table asks for: its id when it says nothing sensible."""
    written = table.get("type")
    return written if isinstance(written, str) and written else name


def own_settings(table: InstanceTable, model: type[PluginConfig]) -> dict[str, object]:
    """Return what a plugin of this config class is given of its table."""
    shared = {
        key: getattr(table, key)
        for key in table.common_keys()
        if key in model.model_fields and key in table.model_fields_set
    }
    return {**table.settings, **shared}


def _check(
    merged: Merged, path: Path, settings: Mapping[str, object], model: type[PluginConfig], *, partly: bool = False
) -> tuple[PluginConfig | None, list[Problem]]:
    config, errors = judge.fit(model, merged, path, settings)
    bones = {**dict.fromkeys(Config.KIND_TABLES[_kind(path)].common_keys()), **judge.skeleton(model)}

    def keys_at(at: Path) -> Sequence[str]:
        return judge.keys_in(bones, at[len(path) :])

    told = [(error, at) for error, at in errors if not (partly and error["type"] == "missing")]
    return config, [judge.problem_of(error, at, merged, keys_at) for error, at in told]


def _kind(path: Path) -> Kind:
    return next(kind for kind in KINDS if kind == path[0])


def _broken(merged: Merged, path: Path, type_name: str, reason: str) -> list[Problem]:
    if not reason:
        return []
    message = f"{dotted(path)}: plugin {type_name[:200]!r} cannot be used: {reason.rstrip('.')}"
    return [Problem(*_place_of_type(merged, path), dotted((*path, "type")), message, "", "config.broken_plugin")]


def _unknown_type(merged: Merged, path: Path, type_name: str, types: Types) -> Problem:
    hint = did_you_mean(type_name, list(types))
    message = f"{dotted(path)}: there is no {_ONE[_kind(path)]} of type {type_name[:200]!r}"
    if known_part(merged.data, (*path, "type")) == path:
        message += " (the id is the type when none is written)"
    return Problem(*_place_of_type(merged, path), dotted((*path, "type")), message, hint, "config.unknown_type")


def _place_of_type(merged: Merged, path: Path) -> tuple[str, int, int]:
    return merged.where(known_part(merged.data, (*path, "type")), value=True)


_ONE: dict[Kind, str] = {
    "executors": "executor", "routers": "router", "memories": "memory", "spinups": "spin-up", "telemetry": "telemetry",
}  # fmt: skip


def implied_routers(config: Config) -> tuple[str, ...]:
    """Return the routers in use that no table declares: the built-in `capability`, or nothing."""
    return tuple(name for name in config.routing.routers if name == CAPABILITY_ROUTER and name not in config.routers)
