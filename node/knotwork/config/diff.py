"""What must change to get from one configuration to the next, and what cannot change while the node runs? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from knotwork.config.instance_tables import SECTIONS, InstanceTable
from knotwork.config.model import Config, ProjectTable
from knotwork.sdk import KINDS, Kind

K = TypeVar("K")
V = TypeVar("V")
Marks = Mapping[tuple[Kind, str], str]

VALUES = ("node", "nats", "web", "mesh", "routing", "work", "workflows", "memory", "plugins")
RESTART_KEYS = ("node.name", "web.enabled", "web.host", "web.port", "web.insecure")
RESTART_SECTIONS = ("nats", "plugins", "work")
REOPEN_KEYS = ("type", "enabled", "hosted", "memory_mb", "settings")


@dataclass(frozen=True, slots=True)
class Difference(Generic[K, V]):
    """What turns one mapping into another; `changed` holds (old, new)."""

    added: dict[K, V] = field(default_factory=dict)
    changed: dict[K, tuple[V, V]] = field(default_factory=dict)
    removed: dict[K, V] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a reload would do.

    `instances` holds the enabled plugins of each kind, `reopen` the changed ones among them that must be opened anew
    (the others only change what the node itself knows of them). `live` and `refused` are dotted keys: taken over
    while running, or refused until a restart; `values` has (old, new) of both.
    """

    instances: dict[Kind, Difference[str, InstanceTable]]
    projects: Difference[str, ProjectTable]
    reopen: dict[Kind, frozenset[str]] = field(default_factory=dict)
    live: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    values: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.instances.values()) or bool(self.projects or self.live or self.refused)

    def lines(self) -> Iterator[str]:
        """Yield one line per change for people: `+` added, `-` removed, `~` changed, `!` needs a restart."""
        for kind, difference in self.instances.items():
            yield from _lines(SECTIONS[kind], difference, self.reopen.get(kind, frozenset()))
        yield from _lines("projects", self.projects, frozenset())
        for key in self.live:
            yield f"~ {key}"
        for key in self.refused:
            yield f"! {key} (needs a restart)"


def difference(old: Mapping[K, V], new: Mapping[K, V]) -> Difference[K, V]:
    """Return what turns `old` into `new`; values of different types differ, also when Python calls them equal."""
    return Difference(
        {key: value for key, value in new.items() if key not in old},
        {key: (value, new[key]) for key, value in old.items() if key in new and not same(value, new[key])},
        {key: value for key, value in old.items() if key not in new},
    )


def plan(old: Config, new: Config, old_marks: Marks | None = None, new_marks: Marks | None = None) -> Plan:
    """Return what a reload from `old` to `new` would do.

    Marks are `secrets.fingerprint`s of the instances by (kind, id): an instance whose mark differs counts as changed
    though its table is the same, because a secret behind it was rotated.
    """
    old_marks, new_marks = old_marks or {}, new_marks or {}
    instances: dict[Kind, Difference[str, InstanceTable]] = {}
    reopen: dict[Kind, frozenset[str]] = {}
    for kind in KINDS:
        before, after = _enabled(old, kind), _enabled(new, kind)
        rotated = {
            name for name in before.keys() & after.keys() if old_marks.get((kind, name)) != new_marks.get((kind, name))
        }
        found = difference(before, after)
        changed = {name: (before[name], after[name]) for name in before if name in found.changed or name in rotated}
        instances[kind] = Difference(found.added, changed, found.removed)
        reopen[kind] = frozenset(name for name, pair in changed.items() if name in rotated or _must_reopen(*pair))
    old_projects, new_projects = (
        {name: config.projects.get(name, ProjectTable()) for name in config.project_names()} for config in (old, new)
    )
    values = {
        f"{section}.{key}": (value, getattr(getattr(new, section), key))
        for section in VALUES
        for key, value in getattr(old, section)
        if not same(value, getattr(getattr(new, section), key))
    }
    for name in old.boundaries | new.boundaries:
        pair = old.boundaries.get(name), new.boundaries.get(name)
        if not same(*pair):
            values[f"boundaries.{name}"] = pair
    refused = tuple(key for key in values if _needs_restart(key))
    live = tuple(key for key in values if not _needs_restart(key))
    return Plan(instances, difference(old_projects, new_projects), reopen, live, refused, values)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same in type and content: 1, 1.0 and true are three different things."""
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseModel):
        return all(same(value, getattr(other, key)) for key, value in one)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other) or (one != one and other != other)  # noqa: PLR0124 - not-a-number is the same as itself


def _enabled(config: Config, kind: Kind) -> dict[str, InstanceTable]:
    return {name: table for name, table in config.instances(kind).items() if table.enabled}


def _must_reopen(old: InstanceTable, new: InstanceTable) -> bool:
    return any(not same(getattr(old, key), getattr(new, key)) for key in REOPEN_KEYS)


def _needs_restart(key: str) -> bool:
    return key in RESTART_KEYS or key.partition(".")[0] in RESTART_SECTIONS


def _lines(kind: str, difference: Difference[str, Any], reopen: frozenset[str]) -> Iterator[str]:
    for name in difference.added:
        yield f"+ {kind}.{name}"
    for name in difference.removed:
        yield f"- {kind}.{name}"
    for name in difference.changed:
        yield f"~ {kind}.{name}" + (" (opened anew)" if name in reopen else "")
