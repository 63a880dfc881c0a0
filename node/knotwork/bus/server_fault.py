"""Why did nats-server not start, in words that tell the operator what to do?"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from knotwork.bus.server_conf import ServerSettings
from knotwork.sdk.errors import Conflict, Denied, KnotworkError, Unavailable

PORT_IN_USE = "bus.port_in_use"
_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 12
# below the ports that systems hand to outgoing connections, where a client knocking at a server that is just
# restarting could be given that very port and then be connected to itself
_PORTS = (15_000, 32_000)
_PORT_TRIES = 50
_NOT_RUN = (126, 127)
"""What a command ends with that could not be executed, by `child.spawn` for a tied one as by a shell."""
_STORE_WORDS = re.compile(
    r"Can't start JetStream|storage directory|permission denied|read-only file system|not a directory|no space left",
    re.IGNORECASE,
)


def explain(settings: ServerSettings, port: int, pid: int, code: int | None, path: Path) -> KnotworkError:
    """Return the error for a child, made from the program at `path`, that ended with `code` instead of getting ready."""
    said = _said_by(settings.store_dir, pid)
    if "address already in use" in said:
        return _port_in_use(settings.host, port)
    fatal = [line for line in said.splitlines() if "[FTL]" in line or "[ERR]" in line] or said.splitlines()
    last = re.sub(r"^\[\d+\] \S+ \S+ \[(FTL|ERR)\] ", "", fatal[-1]) if fatal else "nothing"
    if code in _NOT_RUN:
        return not_run(path, OSError(last))
    if _STORE_WORDS.search(said):
        return Denied(
            f"nats-server cannot use the store {settings.store_dir}: {last}",
            code="bus.store_unreadable",
            hint="It must belong to the user the node runs as, be writable and have space; or choose another data folder.",
            detail={"store": str(settings.store_dir), "log": said[-4000:]},
        )
    return Unavailable(
        f"nats-server ended with code {code} instead of getting ready. It says: {last}",
        code="bus.server_failed",
        hint=f"More in {settings.store_dir / 'nats-server.log'}.",
        detail={"log": said[-4000:], "exit_code": code},
    )


def no_room(accounts: Iterable[str]) -> Conflict:
    """Return the error for new accounts that may use more than a running server can still set aside."""
    return Conflict(
        f"nats-server has no room for {', '.join(sorted(accounts))}: what the streams of removed projects may use is set "
        "aside until its next start.",
        code="bus.no_room",
        hint="Restart the node, lower max_storage of the new project, or raise nats.max_file_store.",
    )


def not_run(path: Path, error: OSError) -> Unavailable:
    """Return the error for a program that the system does not start."""
    return Unavailable(
        f"{path} cannot be run: {error.strerror or error}.",
        code="bus.server_failed",
        hint="Is it made for this machine, and may this user run it?",
    )


def too_slow(store: Path, timeout_s: float) -> Unavailable:
    """Return the error for a child that runs but does not get ready."""
    return Unavailable(
        f"nats-server was not ready after {timeout_s:g} s; it was ended.",
        code="bus.server_failed",
        hint=f"See {store / 'nats-server.log'}.",
        detail={"log": tail(store, _TAIL_LINES)},
    )


def tail(store: Path, lines: int) -> str:
    """Return the last `lines` lines of the log and of what came before there was one."""
    kept = (_end_of(store / "nats-server.out") + _end_of(store / "nats-server.log")).splitlines()
    return "\n".join(kept[-lines:])


def free_port(host: str) -> int:
    """Return a port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(_PORT_TRIES + 1):
        wished = random.randint(*_PORTS) if attempt < _PORT_TRIES else 0  # noqa: S311 - not a secret
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            try:
                trial.bind((host, wished))
            except OSError:
                continue
            port: int = trial.getsockname()[1]
            return port
    return 0


def _said_by(store: Path, pid: int) -> str:
    """Return what this child wrote: all of `.out`, and the lines of the log that carry its number."""
    own = [line for line in _end_of(store / "nats-server.log").splitlines() if line.startswith(f"[{pid}]")]
    return _end_of(store / "nats-server.out") + "\n".join(own)


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _port_in_use(host: str, port: int) -> Conflict:
    pid, name = holder(port)
    who = who_has(pid, name)
    return Conflict(
        f"Port {port} on {host} is in use by {who}.",
        code=PORT_IN_USE,
        hint="End it, or set another [nats] port (0 takes a free one).",
        detail={"host": host, "port": port, "pid": pid, "process": name},
    )


def who_has(pid: int, name: str) -> str:
    """Return who it is that `holder` found, in words."""
    return f"process {pid} ({name})" if pid else "another process"


def holder(port: int) -> tuple[int, str]:
    """Return who listens at `port`: (0, "") when the system does not tell us."""
    import psutil  # only where something failed

    try:
        for connection in psutil.net_connections("tcp"):
            listening: tuple[object, ...] = connection.laddr
            if connection.status == psutil.CONN_LISTEN and connection.pid and listening[1:2] == (port,):
                return connection.pid, psutil.Process(connection.pid).name()
    except (psutil.Error, OSError):
        pass
    return 0, ""
