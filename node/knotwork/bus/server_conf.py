"""What is written into the config file of our nats-server?

Pure: no clock, no disk. Values are checked here before they become text, so that nothing an operator or an invited node names can add a
line of its own to the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from knotwork.sdk.errors import Invalid

SYSTEM_ACCOUNT = "SYS"
_ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PUBLIC_KEY = re.compile(r"U[A-Z2-7]{55}")
_SUBJECT = re.compile(r"[^\s\"\\\x00-\x1f\x7f]{1,512}")
_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PORT_MAX = 65535
_MEMORY_STORE_BYTES = 256 * 1024 * 1024  # everything durable is in files; this bounds what a client may make in memory
_LOGIN_S = 10  # a process on a machine under load needs more than the two seconds that are usual
_LOG_BYTES = 2 * 1024 * 1024
_LOG_FILES = 2  # with the one being written: 4 MB at most


@dataclass(frozen=True, slots=True)
class User:
    """Who may connect: a public nkey (`U…`) and the subjects it may use; `None` is everything, `()` is nothing."""

    public_key: str
    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """A wall: its users see only each other. `max_storage` bounds what it may keep, in bytes; 0 is no bound of its own."""

    name: str
    users: tuple[User, ...] = ()
    jetstream: bool = True
    max_storage: int = 0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What our nats-server is to be. Sizes are in bytes, `port` 0 asks for a free one.

    `start_timeout_s` is long because a large store takes long to recover; `restart_pause_max_s` bounds the pause
    before a start after a crash, which doubles from 0.05 s.
    """

    store_dir: Path
    accounts: tuple[Account, ...]
    host: str = "127.0.0.1"
    port: int = 0
    sync_always: bool = True
    max_file_store: int = 10_000_000_000
    max_payload: int = 8 * 1024 * 1024
    server_name: str = "knotwork"
    start_timeout_s: float = 60.0
    restart_pause_max_s: float = 5.0


def render(settings: ServerSettings, port: int, watcher: User | None = None) -> str:
    """Return the whole config text for listening at `port`.

    `watcher` is our own user of the system account. Raises `Invalid` (`bus.bad_settings`) listing everything wrong.
    """
    problems = list(check(settings))
    if problems:
        raise Invalid(
            "The settings of nats-server are wrong: " + "; ".join(problems),
            code="bus.bad_settings",
            detail={"problems": problems},
        )
    store = settings.store_dir
    lines = [
        "# Written by knotwork at every start and reload: changes made here are lost.",
        f"server_name: {_quoted(settings.server_name)}",
        f"host: {_quoted(settings.host)}",
        f"port: {port}",
        f"ports_file_dir: {_quoted(str(store / 'ports'))}",
        f"log_file: {_quoted(str(store / 'nats-server.log'))}",
        f"logfile_size_limit: {_LOG_BYTES}",
        f"logfile_max_num: {_LOG_FILES}",
        f"max_payload: {settings.max_payload}",
        f"max_pending: {max(64 * 1024 * 1024, 4 * settings.max_payload)}",
        f"authorization {{ timeout: {_LOGIN_S} }}",
        "jetstream {",
        f"  store_dir: {_quoted(str(store))}",
        f"  max_file_store: {settings.max_file_store}",
        f"  max_memory_store: {_MEMORY_STORE_BYTES}",
        *(["  sync_interval: always"] if settings.sync_always else []),
        "}",
        f"system_account: {SYSTEM_ACCOUNT}",
        "accounts {",
    ]
    for account in _with_system(settings.accounts, watcher):
        lines += _account(account)
    return "\n".join([*lines, "}", ""])


def check(settings: ServerSettings) -> Iterator[str]:
    """Yield everything that is wrong with the settings, in words."""
    if not _SERVER_NAME.fullmatch(settings.server_name):
        yield f"server_name {settings.server_name[:80]!r} is not a name"
    if not _HOST.fullmatch(settings.host):
        yield f"host {settings.host[:80]!r} is not a host"
    if not 0 <= settings.port <= _PORT_MAX:
        yield f"port {settings.port} is not within 0 and {_PORT_MAX}"
    if _CONTROL.search(str(settings.store_dir)):
        yield "store_dir holds a control character"
    if settings.max_file_store <= 0 or settings.max_payload <= 0:
        yield "max_file_store and max_payload must be above 0"
    yield from _check_accounts(settings.accounts)


def _check_accounts(accounts: tuple[Account, ...]) -> Iterator[str]:
    seen_accounts: set[str] = set()
    seen_keys: set[str] = set()
    for account in accounts:
        if not _ACCOUNT_NAME.fullmatch(account.name):
            yield f"account {account.name[:80]!r} is not a name"
        if account.name in seen_accounts:
            yield f"account {account.name[:80]!r} is there twice"
        seen_accounts.add(account.name)
        if account.name == SYSTEM_ACCOUNT and account.jetstream:
            yield f"account {SYSTEM_ACCOUNT} cannot have JetStream"
        if account.max_storage < 0:
            yield f"account {account.name[:80]!r}: max_storage is below 0"
        yield from _check_users(account, seen_keys)


def _check_users(account: Account, seen_keys: set[str]) -> Iterator[str]:
    for user in account.users:
        if not _PUBLIC_KEY.fullmatch(user.public_key):
            yield f"account {account.name[:80]!r}: {user.public_key[:80]!r} is not a public user key"
        if user.public_key in seen_keys:
            yield f"account {account.name[:80]!r}: {user.public_key[:80]!r} is there twice"
        seen_keys.add(user.public_key)
        for subject in (*(user.publish or ()), *(user.subscribe or ())):
            if not _SUBJECT.fullmatch(subject):
                yield f"account {account.name[:80]!r}: {subject[:80]!r} is not a subject"


def _with_system(accounts: tuple[Account, ...], watcher: User | None) -> tuple[Account, ...]:
    own = (watcher,) if watcher else ()
    if not any(account.name == SYSTEM_ACCOUNT for account in accounts):
        return (Account(SYSTEM_ACCOUNT, own, jetstream=False), *accounts)
    return tuple(
        Account(account.name, (*account.users, *own), account.jetstream) if account.name == SYSTEM_ACCOUNT else account
        for account in accounts
    )


def _account(account: Account) -> Iterator[str]:
    yield f"  {_quoted(account.name)}: {{"
    if account.jetstream:
        yield (
            f"    jetstream: {{ max_file: {account.max_storage} }}" if account.max_storage else "    jetstream: enabled"
        )
    yield "    users: ["
    for user in account.users:
        yield f"      {{ nkey: {user.public_key}{_permissions(user)} }}"
    yield "    ]"
    yield "  }"


def _permissions(user: User) -> str:
    parts = [
        f"{verb}: {{ {_list('allow', subjects) if subjects else _list('deny', ('>',))} }}"
        for verb, subjects in (("publish", user.publish), ("subscribe", user.subscribe))
        if subjects is not None
    ]
    return f", permissions: {{ {', '.join(parts)} }}" if parts else ""


def _list(verb: str, subjects: tuple[str, ...]) -> str:
    return f"{verb}: [{', '.join(_quoted(subject) for subject in subjects)}]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
