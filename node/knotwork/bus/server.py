"""How does a node boot nats-server and keep it running?

`run_server` is the whole life of the child: lock the store, start, be ready when JetStream answers, start again with
back-off when it dies (same port), take new accounts without dropping clients, stop.

In the store folder: `lock`, `port` (for the next time), `nats-server.conf` (0600), `nats-server.log` (4 MB at most),
`nats-server.out` (what it said before it had a log), `ports/`, `jetstream/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import nkeys

from knotwork.bus import binary, child, server_conf, server_fault, server_talk, space, store_lock, strangers
from knotwork.bus.pauses import Pauses
from knotwork.bus.server_conf import Account, ServerSettings, User
from knotwork.sdk.errors import Conflict, KnotworkError, TimedOut, Unavailable

log = logging.getLogger(__name__)
GOGC = "50"
"""How much garbage the server may collect, in percent of what it uses: half the default takes a third less memory under load."""

__all__ = ["Account", "Server", "ServerSettings", "State", "User", "run_server"]

State = Literal["starting", "running", "restarting", "stopped"]
OnState = Callable[[State, str], None]

_STOP_GRACE_S = 5.0
_ASK_TIMEOUT_S = 5.0
_PAUSE_FIRST_S = 0.05
_HEALTHY_AFTER_S = 10.0
_LOOK_FIRST_S, _LOOK_MAX_S = 0.001, 0.02
_PORT_TRIES = 10


class Server:
    """The running child, or the one being started again."""

    def __init__(self, settings: ServerSettings, lock: store_lock.StoreLock, on_state: OnState | None) -> None:
        self.settings = settings
        self.state: State = "starting"
        self.why = ""
        self.restarts = 0
        self.port = 0
        self.version = ""
        self._lock = lock
        self._on_state = on_state
        self._binary = binary.find()
        self._watcher_seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER).decode()
        self._watcher = User(nkeys.from_seed(self._watcher_seed.encode()).public_key.decode())
        self._process: asyncio.subprocess.Process | None = None
        self.full = False
        """Whether the disk has no room: what needs none goes on, nothing more should be stored."""
        self._launched = 0.0  # monotonic seconds
        self._seen: dict[str, Account] = {}  # all accounts this child has had
        self._changing = asyncio.Lock()  # a start and a reload exclude each other
        self._moved = asyncio.Condition()  # told at every change of state

    @property
    def url(self) -> str:
        """Where clients connect: `nats://host:port`."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"nats://{host}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the child, 0 while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def wait_running(self, timeout_s: float) -> None:
        """Return when the server runs. Raises `TimedOut` (`bus.server_away`), `Unavailable` when it was stopped."""
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self.state in ("running", "stopped"))
        except TimeoutError as error:
            raise TimedOut(
                f"nats-server did not come back within {timeout_s:g} s{f': {self.why}' if self.why else '.'}",
                code="bus.server_away",
            ) from error
        if self.state == "stopped":
            raise Unavailable("nats-server was stopped.", code="bus.server_away")

    async def reload(self, accounts: tuple[Account, ...], *, timeout_s: float = 10.0) -> None:
        """Give the server other accounts and users; clients that are not concerned stay connected.

        While the server is down the next start takes the new ones. Raises `Invalid` for settings that are wrong,
        `Conflict` (`bus.reload_refused`, the server's words) with everything as before, or `bus.no_room` with the new
        accounts there but not what they want to store, and `TimedOut`.
        """
        wanted = replace(self.settings, accounts=accounts)
        server_conf.render(wanted, self.port)  # refuses what is wrong before anything is touched
        async with self._changing:
            before, self.settings = self.settings, wanted
            _write_private(self._conf, self._text(self.port))
            if self.state == "running":
                refusal = await self._ask_reload(timeout_s)
                if refusal:
                    self.settings = before
                    _write_private(self._conf, self._text(self.port))
                    raise _reload_refused(refusal)
            self._seen |= {account.name: account for account in accounts}
        await self.wait_running(timeout_s)
        await self._verify_accounts(accounts, timeout_s)

    async def restart(self, *, timeout_s: float = 30.0) -> None:
        """Stop the child and wait until it is back: after a full disk it does not resume by itself."""
        restarts = self.restarts
        if self._process:
            await child.stop(self._process, grace_s=_STOP_GRACE_S)
        with contextlib.suppress(TimeoutError):  # `wait_running` says it better
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self.restarts > restarts or self.state == "stopped")
        await self.wait_running(timeout_s)

    async def watch_space(self) -> None:
        """Start the child anew when a full disk has room again, for ever."""

        def full(free_bytes: int) -> None:
            self.full = True
            log.error(
                "the disk of %s is full (%d bytes left): nothing more is stored until there is room",
                self.settings.store_dir, free_bytes,
            )  # fmt: skip

        async def room() -> None:
            self.full = False
            log.warning("the disk of %s has room again: nats-server is started anew", self.settings.store_dir)
            try:
                await self.restart()
            except KnotworkError as error:
                log.error("nats-server does not come back: %s", error)  # noqa: TRY400  no bug of ours

        await space.watch(self.settings.store_dir, full, room)

    async def start(self) -> None:
        """Start for the first time, with the port asked for, the one of last time, or a free one."""
        fixed, remembered = self.settings.port, _remembered_port(self.settings.store_dir)
        for attempt in range(_PORT_TRIES):
            port = fixed or (remembered if attempt == 0 else 0) or server_fault.free_port(self.settings.host)
            try:
                async with self._changing:
                    await self._launch(port)
            except Conflict as error:
                if fixed or error.code != server_fault.PORT_IN_USE or attempt == _PORT_TRIES - 1:
                    raise
                continue
            break
        _write_private(self.settings.store_dir / "port", f"{self.port}\n")
        await self._move("running")

    async def keep(self) -> None:
        """Start the child again whenever it dies; ends only by being cancelled."""
        pauses = Pauses(_PAUSE_FIRST_S, self.settings.restart_pause_max_s)
        while self._process:
            code = await self._process.wait()
            if time.monotonic() - self._launched > _HEALTHY_AFTER_S:
                pauses.shorten()
            await self._move("restarting", f"nats-server ended with code {code}.")
            while True:
                await pauses.wait()
                try:
                    async with self._changing:
                        await self._launch(self.port)
                except (KnotworkError, OSError) as error:
                    await self._move("restarting", str(error))
                    continue
                break
            self.restarts += 1
            await self._move("running")

    async def close(self) -> None:
        """Ask the child to end, kill it after 5 s."""
        try:
            if self._process:
                await child.stop(self._process, grace_s=_STOP_GRACE_S)
        finally:
            await self._move("stopped")

    @property
    def _conf(self) -> Path:
        return self.settings.store_dir / "nats-server.conf"

    def _text(self, port: int) -> str:
        """Return the config text.

        An account that is taken away live and given back later answers no publish until the server is restarted
        (nats-server 2.15.1). So a removed account stays until the child's next start, without users.
        """
        present = {account.name for account in self.settings.accounts}
        retired = (
            replace(account, users=(), max_storage=0) for name, account in self._seen.items() if name not in present
        )
        kept = replace(self.settings, accounts=(*self.settings.accounts, *retired))
        return server_conf.render(kept, port, self._watcher)

    async def _move(self, state: State, why: str = "") -> None:
        async with self._moved:
            changed, self.state, self.why = (state, why) != (self.state, self.why), state, why
            self._moved.notify_all()
        if changed and self._on_state:
            self._on_state(state, why)

    async def _launch(self, port: int) -> None:
        """Start the child and wait until JetStream answers; whatever happens else, no child is left."""
        store = self.settings.store_dir
        try:
            (store / "ports").mkdir(mode=0o700, exist_ok=True)
            for stale in (store / "ports").glob("*.ports"):
                stale.unlink(missing_ok=True)
            self._seen = {account.name: account for account in self.settings.accounts}
            _write_private(self._conf, self._text(port))
            out = os.open(store / "nats-server.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise store_lock.unreadable(store, error) from error
        self._launched = time.monotonic()
        try:
            process = await child.spawn(
                self._binary.path, "-c", self._conf, env={"GOGC": GOGC}, stdout=out, stderr=out,
                pass_fds=(self._lock.fileno,), tied=True,
            )  # fmt: skip
        except OSError as error:
            raise server_fault.not_run(self._binary.path, error) from error
        finally:
            os.close(out)
        try:
            async with asyncio.timeout(self.settings.start_timeout_s):
                self.port = await self._await_ports(process, port)
                await self._await_jetstream(process, port)
        except BaseException as error:
            child.kill(process)
            await process.wait()
            if isinstance(error, TimeoutError):
                raise server_fault.too_slow(store, self.settings.start_timeout_s) from error
            raise
        self._process = process

    async def _await_ports(self, process: asyncio.subprocess.Process, port: int) -> int:
        """Return the port the child says it listens at."""
        file, pause_s = self.settings.store_dir / "ports" / f"nats-server_{process.pid}.ports", _LOOK_FIRST_S
        while process.returncode is None:
            with contextlib.suppress(FileNotFoundError, ValueError, IndexError, KeyError):  # not there, or half written
                listening = urlsplit(str(json.loads(file.read_bytes())["nats"][0])).port
                if listening:
                    return listening
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LOOK_MAX_S)
        raise server_fault.explain(self.settings, port, process.pid, process.returncode, self._binary.path)

    async def _await_jetstream(self, process: asyncio.subprocess.Process, port: int) -> None:
        pause_s = _LOOK_FIRST_S
        while process.returncode is None:
            with contextlib.suppress(OSError, EOFError, ValueError):
                async with self._line() as line:
                    health = await line.ask("HEALTHZ", {"js-server-only": True})
                if health.get("data", {}).get("status_code") == 200:  # noqa: PLR2004 - as in HTTP
                    self.version = str(line.info.get("version", ""))
                    return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LOOK_MAX_S)
        raise server_fault.explain(self.settings, port, process.pid, process.returncode, self._binary.path)

    def _line(self, timeout_s: float = _ASK_TIMEOUT_S) -> contextlib.AbstractAsyncContextManager[server_talk.Line]:
        return server_talk.open_line(self.settings.host, self.port, self._watcher_seed, timeout_s=timeout_s)

    async def _ask_reload(self, timeout_s: float) -> str:
        """Return why the server refuses, "" when it does not or went away; then its next start reads the new file."""
        try:
            async with self._line(timeout_s) as line:
                answer = await line.ask("RELOAD")
        except (OSError, EOFError, ValueError, TimeoutError):
            return ""
        error = answer.get("error") or {}
        return str(error.get("description") or error)[:2000] if error else ""

    async def _verify_accounts(self, wanted: tuple[Account, ...], timeout_s: float) -> None:
        """Return when a running server has all of `wanted`, and stores for them, be it after a crash in between.

        It takes an account whose `max_storage` it cannot set aside, and says only in its log that it has no JetStream.
        """
        try:
            async with asyncio.timeout(timeout_s):
                known, storing = await self._ask_accounts(timeout_s)
        except TimeoutError as error:
            raise TimedOut(
                f"nats-server did not confirm the new accounts within {timeout_s:g} s.", code="bus.server_away"
            ) from error
        missing = {account.name for account in wanted} - known
        if missing:
            raise _reload_refused(f"it lacks {sorted(missing)}.")
        without = {account.name for account in wanted if account.jetstream} - storing
        if without:
            raise server_fault.no_room(without)

    async def _ask_accounts(self, timeout_s: float) -> tuple[set[str], set[str]]:
        """Return which accounts the server has, and for which of them it stores."""
        while True:
            await self.wait_running(timeout_s)
            try:
                async with self._line() as line:
                    known = (await line.ask("ACCOUNTZ")).get("data", {}).get("accounts") or ()
                    details = (
                        (await line.ask("JSZ", {"accounts": True, "limit": 1 << 20}))
                        .get("data", {})
                        .get("account_details")
                    )
                    return set(known), {one["name"] for one in details or ()}
            except (OSError, EOFError, ValueError, KeyError, TimeoutError):
                await asyncio.sleep(_LOOK_MAX_S)  # dying: its next start reads the same file


@contextlib.asynccontextmanager
async def run_server(settings: ServerSettings, *, on_state: OnState | None = None) -> AsyncIterator[Server]:
    """Run nats-server for as long as the block is open.

    `on_state(state, why)` is told of every change; it must not raise or block. Raises `Conflict` (`bus.port_in_use`,
    `bus.store_locked`), `Denied` (`bus.store_unreadable`), `NotFound` (`bus.server_missing`), `Invalid`
    (`bus.bad_settings`), `Unavailable` (`bus.server_failed`, with the end of its log).
    """
    async with child.guard():
        lock = await store_lock.acquire(settings.store_dir, settings.server_name)
        try:
            await asyncio.to_thread(strangers.check, settings.store_dir)
            server = Server(settings, lock, on_state)
            try:
                await server.start()
                async with _beside(server.keep()), _beside(server.watch_space()):
                    yield server
            finally:
                await server.close()
        finally:
            lock.release()


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` beside the block and cancel it at its end; an error of the block passes through as it is."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - carried around the group, which would wrap it
            failure = error
        finally:
            task.cancel()
    if failure:
        raise failure


def _remembered_port(store: Path) -> int:
    try:
        port = int((store / "port").read_text(encoding="ascii")[:16])
    except (OSError, ValueError):
        return 0
    return port if 0 < port <= 65535 else 0  # noqa: PLR2004


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step; it is readable by its owner alone from the first moment on."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def _reload_refused(words: str) -> Conflict:
    return Conflict(
        f"nats-server did not take the new accounts: {words}",
        code="bus.reload_refused",
        hint="Nothing else was changed; restart the node to apply them.",
    )
