"""Which keys do not go together? Rules between keys, each told with the key to change. Pure.

The rules read the plain merged tables, so that they are told together with wrong types and unknown keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from knotwork.config.keys import Path
from knotwork.config.model import BUNDLED_ROUTERS, DEFAULT_PROJECT, READY_BOUNDARIES
from knotwork.config.problems import did_you_mean

_JOIN_ONLY = ("urls", "user", "password", "token", "nkey_seed", "creds", "tls")


class Contradiction(NamedTuple):
    """Two things that cannot both be meant; `path` is the one to look at."""

    path: Path
    message: str
    hint: str = ""
    code: str = "config.contradiction"


def contradictions(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Yield everything in the merged tables that does not go together; values of a wrong type are passed over."""
    yield from _nats(_table(data, "nats"))
    yield from _reachable(data)
    yield from _mesh(_table(data, "mesh"))
    yield from _routing(data)
    yield from _boundaries(data)
    yield from _projects(data)
    yield from _hosted(data)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _nats(nats: Mapping[str, Any]) -> Iterator[Contradiction]:
    mode = nats.get("mode", "embedded")
    if mode == "join":
        if not nats.get("urls"):
            hint = 'Add urls = ["nats://host:4222"] to [nats].'
            yield Contradiction(("nats", "mode"), 'mode = "join" needs nats.urls', hint, "config.missing")
    elif mode == "embedded":
        for key in _JOIN_ONLY:
            value = nats.get(key)
            if any(value.values()) if isinstance(value, Mapping) else value:
                hint = 'Remove it, or set nats.mode = "join".'
                yield Contradiction(("nats", key), f"nats.{key} is for joining a server, but our own is started", hint)
    yield from _credentials(nats, ("nats",))
    tls = _table(nats, "tls")
    if bool(tls.get("cert")) != bool(tls.get("key")):
        have = "cert" if tls.get("cert") else "key"
        yield Contradiction(("nats", "tls", have), "nats.tls needs cert and key together", "Add the other one.")


def _reachable(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Keys and tokens would cross the network in the clear: allowed only to those who say that they know."""
    for section in ("nats", "web"):
        table = _table(data, section)
        host = table.get("host", "127.0.0.1")
        if isinstance(host, str) and not _is_loopback(host) and table.get("insecure") is not True:
            yield Contradiction(
                (section, "host"),
                f"{section}.host = {host!r} can be reached by others, and nothing there is encrypted",
                f"Keep 127.0.0.1 and use a VPN, an ssh tunnel or a TLS proxy; or set {section}.insecure = true.",
                "config.needs_tls",
            )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def _credentials(table: Mapping[str, Any], path: Path) -> Iterator[Contradiction]:
    ways = [way for way in ("user", "token", "nkey_seed", "creds") if table.get(way)]
    if len(ways) > 1:
        yield Contradiction((*path, ways[1]), f"two ways to log in: {' and '.join(ways)}", "Keep one of them.")
    if table.get("password") and not table.get("user"):
        yield Contradiction((*path, "password"), "a password without a user", "Add user.")


def _mesh(mesh: Mapping[str, Any]) -> Iterator[Contradiction]:
    stale, offline = mesh.get("stale_beats", 2), mesh.get("offline_beats", 3)
    if isinstance(stale, int) and isinstance(offline, int) and offline <= stale:
        where = "offline_beats" if "offline_beats" in mesh else "stale_beats"
        yield Contradiction(("mesh", where), "mesh.offline_beats must be more than mesh.stale_beats")


def _routing(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    known = [*_table(data, "routers"), *BUNDLED_ROUTERS]
    routers = _table(data, "routing").get("routers")
    for index, name in enumerate(routers if isinstance(routers, list) else []):
        if isinstance(name, str) and name not in known:
            hint = did_you_mean(name, known)
            yield Contradiction(
                ("routing", "routers", index), f"there is no [routers.{name[:64]}]", hint, "config.unknown_id"
            )


def _boundaries(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    """What is written over the ready boundaries must make sense together with them."""
    tables = _table(data, "boundaries")
    if "none" in tables:
        message = "none is what work that belongs to no boundary is said to be of: any agent may do it"
        yield Contradiction(("boundaries", "none"), message, "Choose another name.")
    for name, table in tables.items():
        if isinstance(table, Mapping):
            yield from _who({**READY_BOUNDARIES.get(name, {}), **table}, ("boundaries", name))
    known = [*READY_BOUNDARIES, *tables, "none"]
    for name, executor in _table(data, "executors").items():
        named = executor.get("boundaries") if isinstance(executor, Mapping) else None
        for index, boundary in enumerate(named if isinstance(named, list) else []):
            if isinstance(boundary, str) and boundary not in known:
                path: Path = ("executors", name, "boundaries", index)
                hint = did_you_mean(boundary, known)
                yield Contradiction(path, f"there is no [boundaries.{boundary[:64]}]", hint, "config.unknown_id")


def _who(table: Mapping[str, Any], path: Path) -> Iterator[Contradiction]:
    lists = {key: _texts(table.get(key)) for key in ("allow", "prefer", "forbid", "fallback")}
    if lists["fallback"] and not (lists["prefer"] or lists["allow"]):
        message = f"{'.'.join(map(str, path))}.fallback needs somebody to fall back from"
        yield Contradiction((*path, "fallback"), message, "Add prefer or allow.", "config.missing")
    for key in ("allow", "prefer", "fallback"):
        for name in sorted(lists[key] & lists["forbid"]):
            message = f"{'.'.join(map(str, path))} says {key} and forbid of {name[:64]}"
            yield Contradiction((*path, "forbid"), message, "Keep one of them.")


def _texts(value: Any) -> set[str]:
    return {part for part in value if isinstance(part, str)} if isinstance(value, list) else set()


def _projects(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    declared = list(_table(data, "projects"))
    known = declared or [DEFAULT_PROJECT]
    join = _table(data, "nats").get("mode") == "join"
    for name in declared:
        project = _table(_table(data, "projects"), name)
        yield from _credentials(project, ("projects", name))
        for key in ("user", "password", "token", "nkey_seed", "creds"):
            if project.get(key) and not join:
                message = f"projects.{name}.{key} is for joining a server, but our own is started"
                yield Contradiction(("projects", name, key), message, 'Remove it, or set nats.mode = "join".')
    for name, executor in _table(data, "executors").items():
        named = executor.get("projects") if isinstance(executor, Mapping) else None
        for index, project in enumerate(named if isinstance(named, list) else []):
            if isinstance(project, str) and project not in known:
                path: Path = ("executors", name, "projects", index)
                yield Contradiction(
                    path, f"there is no [projects.{project[:64]}]", did_you_mean(project, known), "config.unknown_id"
                )
        if isinstance(executor, Mapping) and not named and len(declared) > 1 and DEFAULT_PROJECT not in declared:
            hint = f"Add projects = […]; declared: {', '.join(declared[:10])}."
            yield Contradiction(
                ("executors", name), f"executors.{name} must say which projects it serves", hint, "config.missing"
            )


def _hosted(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    for kind in ("executors", "routers", "memories", "targets", "telemetry"):
        for name, table in _table(data, kind).items():
            if isinstance(table, Mapping) and table.get("memory_mb") and table.get("hosted") is not True:
                message = f"{kind}.{name}.memory_mb limits a process of its own, but hosted is false"
                yield Contradiction((kind, name, "memory_mb"), message, "Set hosted = true, or remove it.")
