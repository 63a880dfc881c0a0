"""Which keys do not go together? Rules between keys, each told with the key to change. Pure.

The rules read the plain merged tables, so that they are told together with wrong types and unknown keys.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from knotwork.config import shapes, size
from knotwork.config.instance_tables import DEFAULT_PROJECT, IN_PROCESS, SECTIONS
from knotwork.config.keys import Path, dotted
from knotwork.config.memory_table import BUNDLED_MEMORIES, SCOPES
from knotwork.config.model import BUNDLED_ROUTERS, READY_BOUNDARIES, STORE_BYTES
from knotwork.config.problems import did_you_mean

_PASSWORD = re.compile(r"://[^\s/?#@:]*:(?![${<])[^\s/?#@]+@")
"""A URL with a password in it; what a shell or a template fills in is none."""
_LOGIN = re.compile(r"://[^\s/?#@]+@")
LOGINS = ("user", "token", "nkey_seed", "creds")
"""Ways to show who one is; a password goes with a user."""
_JOIN_ONLY = ("urls", "user", "password", "token", "nkey_seed", "creds", "commons", "tls")


RESERVED_BYTES = 512 * 1024 * 1024
"""What the streams of one project reserve: 256 MB for NODES (`mesh.presence`), as much for TELEMETRY (`bus.streams`)."""
WORK_MIN_BYTES = 64 * 1024 * 1024


class Contradiction(NamedTuple):
    """Two things that cannot both be meant; `path` is the one to look at."""

    path: Path
    message: str
    hint: str = ""
    code: str = "config.contradiction"


def contradictions(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Yield everything in the merged tables that does not go together; values of a wrong type are passed over."""
    yield from _nats(_table(data, "nats"))
    yield from _storage(data)
    yield from _reachable(data)
    yield from _mesh(_table(data, "mesh"))
    yield from _routing(data)
    yield from _memory(data)
    yield from _boundaries(data)
    yield from _projects(data)
    yield from _hosted(data)
    yield from _schemas(data)
    yield from _passwords(data)


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
    yield from _credentials(_table(nats, "commons"), ("nats", "commons"))
    tls = _table(nats, "tls")
    if bool(tls.get("cert")) != bool(tls.get("key")):
        have = "cert" if tls.get("cert") else "key"
        yield Contradiction(("nats", "tls", have), "nats.tls needs cert and key together", "Add the other one.")


def _storage(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    """A store must hold what each project's directory of nodes and its telemetry reserve, and leave room for work."""
    nats, projects = _table(data, "nats"), _table(data, "projects")
    if nats.get("mode", "embedded") != "embedded":
        return
    needed = RESERVED_BYTES * max(1, len(projects)) + WORK_MIN_BYTES
    given = "max_file_store" in nats
    limit = _size(nats["max_file_store"] if given else STORE_BYTES)
    written = "" if given else f" ({size.render(STORE_BYTES)}, its default)"
    bounds = {name: _size(_table(projects, name).get("max_storage")) or 0 for name in projects}
    if limit is not None and limit < needed:
        many = f"{len(projects)} projects" if len(projects) > 1 else "a project"
        message = (
            f"nats.max_file_store{written} is too small: {many} and their work take at least {size.render(needed)}"
        )
        yield Contradiction(("nats", "max_file_store") if given else ("projects",), message, "Raise it.")
    elif limit is not None and limit < (taken := _taken(bounds)):
        largest = max(bounds, key=lambda name: bounds[name])
        message = f"the projects take {size.render(taken)} together, more than nats.max_file_store{written} has"
        yield Contradiction(("projects", largest, "max_storage"), message, "Lower it, or raise nats.max_file_store.")
    for name, bound in bounds.items():
        if bound and bound < RESERVED_BYTES + WORK_MIN_BYTES:
            message = f"it is too small: a project takes at least {size.render(RESERVED_BYTES + WORK_MIN_BYTES)}"
            yield Contradiction(("projects", name, "max_storage"), message, "Raise it, or 0 for no limit of its own.")


def _taken(bounds: Mapping[str, int]) -> int:
    """Return the bytes that nats-server sets aside: all that a bounded project may use, what another's streams reserve."""
    shared = WORK_MIN_BYTES if 0 in bounds.values() else 0
    return sum(bound or RESERVED_BYTES for bound in bounds.values()) + shared


def _size(value: Any) -> int | None:
    """Return a size in bytes, None for what is none: that is told elsewhere."""
    with contextlib.suppress(ValueError):
        return size.parse(value)
    return None


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
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){1,3}", host) is not None


def _credentials(table: Mapping[str, Any], path: Path) -> Iterator[Contradiction]:
    ways = [way for way in LOGINS if table.get(way)]
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
    tables = _table(data, "routers")
    known = [*tables, *BUNDLED_ROUTERS]
    routers = _table(data, "routing").get("routers")
    for index, name in enumerate(routers if isinstance(routers, list) else []):
        if isinstance(name, str) and name not in known:
            hint = did_you_mean(name, known)
            yield Contradiction(
                ("routing", "routers", index), f"there is no [routers.{name[:64]}]", hint, "config.unknown_id"
            )
        elif isinstance(name, str) and _is_off(tables.get(name)):
            message = f"[routers.{name[:64]}] is not enabled"
            yield Contradiction(("routing", "routers", index), message, "Set enabled = true, or take it out.")


def _is_off(table: Any) -> bool:
    return isinstance(table, Mapping) and table.get("enabled") is False


def _memory(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    memories = _table(data, "memories")
    for key in (*SCOPES, "embeddings"):
        known = [*memories, *(() if key == "embeddings" else BUNDLED_MEMORIES)]
        name = _table(data, "memory").get(key)
        if not isinstance(name, str) or not name:
            continue
        table = memories.get(name)
        if name not in known:
            hint = did_you_mean(name, known)
            yield Contradiction(("memory", key), f"there is no [memories.{name[:64]}]", hint, "config.unknown_id")
        elif _is_off(table):
            yield Contradiction(("memory", key), f"[memories.{name[:64]}] is not enabled", "Set enabled = true.")


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
    those = [(kind, name) for kind in ("executors", "targets") for name in _table(data, kind)]
    for kind, name in those:
        named = _table(_table(data, kind), name).get("boundaries")
        for index, boundary in enumerate(named if isinstance(named, list) else []):
            if isinstance(boundary, str) and boundary not in known:
                path: Path = (kind, name, "boundaries", index)
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
    if join and len(declared) > 1:
        yield from _accounts(_table(data, "projects"))
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


def _accounts(projects: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Of several projects at a NATS that others run, each needs an account, so credentials, of its own."""
    seen: dict[str, str] = {}
    for name in projects:
        table = _table(projects, name)
        way = next((way for way in LOGINS if table.get(way)), "")
        if not way:
            if isinstance(projects[name], Mapping):
                message = f"project {name[:64]} has no credentials for the NATS that is joined"
                hint = f"Set user, token, nkey_seed or creds under [projects.{name[:64]}]: those of [nats] are for one project."
                yield Contradiction(("projects", name), message, hint, "config.no_credentials")
            continue
        other = seen.setdefault(f"{way} {table[way]!r}", name)
        if other != name:
            message = f"projects {other[:64]} and {name[:64]} have the same credentials, so they would be one"
            hint = "Give each those of an account of its own."
            yield Contradiction(("projects", name, way), message, hint, "config.same_account")


def _hosted(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    for kind, section in SECTIONS.items():
        for name, table in _table(data, section).items():
            if not isinstance(table, Mapping):
                continue
            hosted = table.get("hosted") is True
            if table.get("memory_mb") and not hosted:
                message = f"{section}.{name}.memory_mb limits a process of its own, but hosted is false"
                limit = "; memory_limit_mb limits the command" if table.get("type", name) == "process" else ""
                hint = "Remove it." if kind in IN_PROCESS else f"Set hosted = true, or remove it{limit}."
                yield Contradiction((section, name, "memory_mb"), message, hint)
            if hosted and kind in IN_PROCESS and table.get("enabled") is not False:
                message = f"{section}.{name} cannot run hosted: its kind of plugin runs in the node's process"
                yield Contradiction((section, name, "hosted"), message, "Remove `hosted`.")


def _schemas(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    for name, table in _table(data, "executors").items():
        for key in ("input_schema", "output_schema"):
            written = table.get(key) if isinstance(table, Mapping) and table.get("enabled") is not False else None
            if isinstance(written, Mapping) and (wrong := shapes.wrong(written)):
                message = f"executors.{name}.{key} cannot be used: {wrong}"
                yield Contradiction(("executors", name, key), message, code="agent.bad_schema")


def _passwords(data: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Passwords inside URLs would be shown wherever the configuration is: in `config show`, revisions and logs."""
    left: list[tuple[Path, Any]] = [((), data)]
    while left:
        where, value = left.pop()
        if isinstance(value, Mapping):
            left += [((*where, key), part) for key, part in value.items()]
        elif isinstance(value, list):
            left += [((*where, index), part) for index, part in enumerate(value)]
        elif isinstance(value, str) and "://" in value:
            ours = where[:2] == ("nats", "urls")
            if (_LOGIN if ours else _PASSWORD).search(value):
                hint = (
                    'Write a reference where the key takes one: {env = "NAME"}, {file = "path"} or {cmd = ["program"]}.'
                )
                if ours:
                    hint = 'Set nats.user and nats.password (or nats.token) beside it, e.g. password = {env = "NAME"}.'
                yield Contradiction(where, f"{dotted(where)} has a password in a URL", hint, "config.plain_secret")
