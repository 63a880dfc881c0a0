"""How is a child process started so that it never outlives the node?

Every child of the node carries `KNOTWORK_WARD=<token>` in its environment; `guard()` keeps one warden process alive
that kills all carriers, and everything they started, when the node is gone: kill -9 included. So children are
started with `spawn`, or at least with the environment that `clean_env` makes.

A child escapes only when it both clears its environment and leaves its parents (a double fork), or when it
runs as another user.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from knotwork.bus import warden

WARD = "KNOTWORK_WARD"
_TOKEN = secrets.token_hex(16)
_WARDEN_END_TIMEOUT_S = 3.0
_PAUSE_FIRST_S, _PAUSE_MAX_S = 0.01, 5.0
_TIE_TIMEOUT_S = 2.0
_HEALTHY_AFTER_S = 10.0
_STREAM_LIMIT_BYTES = 64 * 1024

_KEPT = frozenset(
    """PATH HOME USER LOGNAME SHELL TERM COLORTERM NO_COLOR TZ LANG LANGUAGE TMPDIR TMP TEMP LD_LIBRARY_PATH
    DYLD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS
    HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy ftp_proxy all_proxy no_proxy
    SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT APPDATA LOCALAPPDATA PROGRAMDATA USERPROFILE""".split()  # noqa: SIM905 - forty lines as a list
)
_KEPT_PREFIXES = ("LC_", "XDG_")
_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def frozen() -> bool:
    """Return whether this is the one-file (or one-folder) executable."""
    return bool(getattr(sys, "frozen", False))


def program() -> list[str]:
    """Return the words that start this program again, whichever way it was started.

    With `-P`: what lies in the current folder, a checkout of somebody else say, must not be imported in place of ours.
    """
    return [sys.executable] if frozen() else [sys.executable, "-P", "-m", "knotwork"]


def ward_token() -> str:
    """Return the random token that the children of this process carry; it lives as long as the process."""
    return _TOKEN


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: what every program needs, `extra`, and the ward token; no secret of ours.

    An executable that unpacked itself points some variables into its own folder; those get their former value back,
    or are left out.
    """
    unpacked = str(getattr(sys, "_MEIPASS", "")) if frozen() else ""
    env = {
        name: value
        for name, value in os.environ.items()
        if (name in _KEPT or name.startswith(_KEPT_PREFIXES)) and not (unpacked and unpacked in value)
    }
    if frozen():
        for name in _LIBRARY_PATHS:
            env.pop(name, None)
            former = os.environ.get(f"{name}_ORIG")
            if former:
                env[name] = former
    env.update(extra or {})
    env[WARD] = _TOKEN
    return env


def self_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return `clean_env` for a child that is our own executable again.

    It keeps what tells a one-file executable where it is unpacked already, so that it does not unpack a second time.
    """
    env = clean_env(extra)
    if frozen():
        env |= {name: value for name, value in os.environ.items() if name.startswith(("_PYI_", "_MEI"))}
        env |= {name: os.environ[name] for name in _LIBRARY_PATHS if name in os.environ}
    return env


async def spawn(
    *command: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | None = asyncio.subprocess.DEVNULL,
    stdout: int | None = asyncio.subprocess.DEVNULL,
    stderr: int | None = asyncio.subprocess.DEVNULL,
    pass_fds: Iterable[int] = (),
    limit_bytes: int = _STREAM_LIMIT_BYTES,
    own_executable: bool = False,
    tied: bool = False,
) -> asyncio.subprocess.Process:
    """Start `command` in a session of its own with a clean environment plus `env`; raises `OSError` as the system does.

    stdin, stdout and stderr are file descriptors or `asyncio.subprocess` constants; `limit_bytes` bounds a line read
    from a pipe. `own_executable` says that the command is our own executable again (see `self_env`). A `tied` child
    is killed by the kernel, where that can, at the moment we die: it does not even need the warden. One that cannot be
    run then ends with code 126 or 127 instead of raising.
    """
    tie = await asyncio.to_thread(_tie) if tied else ()
    return await asyncio.create_subprocess_exec(
        *tie,
        *command,
        env=self_env(env) if own_executable else clean_env(env),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        limit=limit_bytes,
        start_new_session=True,  # a Ctrl-C at the terminal is for the node alone, and the group can be ended whole
    )


@functools.cache
def _tie() -> tuple[str, ...]:
    """Return the words before a command that let the kernel kill it when we die, none where that cannot be had. Blocks.

    util-linux has them on nearly every Linux. Doing it ourselves would mean to run Python between fork and exec,
    in a process full of threads.
    """
    program = shutil.which("setpriv") if sys.platform.startswith("linux") else None
    if program is None:
        return ()
    words = (program, "--pdeathsig", "KILL", "--")
    try:
        trial = subprocess.run(
            [*words, program, "--version"],
            env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=_TIE_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    return words if trial.returncode == 0 else ()


def signal_group(process: asyncio.subprocess.Process, number: int) -> None:
    """Send signal `number` to everything in the session's first process group; silent when it is gone already."""
    if process.returncode is not None:
        return  # reaped: its number may be somebody else's by now
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)


async def stop(process: asyncio.subprocess.Process, *, grace_s: float) -> int:
    """Ask the child and its group to end, kill them after `grace_s` seconds, and return the exit code.

    When cancelled meanwhile, kill at once.
    """
    signal_group(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace_s):
            return await process.wait()
    except TimeoutError:
        kill(process)
        return await process.wait()
    except BaseException:
        kill(process)
        raise


def kill(process: asyncio.subprocess.Process) -> None:
    """Kill the child and its group, now."""
    signal_group(process, getattr(signal, "SIGKILL", signal.SIGTERM))


class _Warden:
    """The running warden and the thread that replaces it when it dies; a thread, so that a busy loop does not matter."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        self._lock = threading.Lock()  # held while the pipe changes hands
        self._pipe = -1
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name="warden", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> subprocess.Popen[bytes]:
        theirs, ours = os.pipe()
        try:
            process = subprocess.Popen(
                _warden_command(), stdin=theirs, env=_warden_env(), cwd="/", start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._pipe = ours
        return process

    def _hang_up(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _keep(self) -> None:
        pause_s = _PAUSE_FIRST_S
        while not self._closing.is_set():
            started = time.monotonic()
            self._process.wait()
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                pause_s = _PAUSE_FIRST_S
            if self._closing.wait(pause_s):
                return
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
            with self._lock, contextlib.suppress(OSError):  # no process to be had just now: tried again
                if not self._closing.is_set():
                    self._hang_up()
                    self._process = self._start()

    def close(self) -> None:
        """Let the warden end everything that is left, and itself; waits 3 s at most."""
        with self._lock:
            self._closing.set()
            self._hang_up()
        self._thread.join(_WARDEN_END_TIMEOUT_S)


def _warden_command() -> list[str]:
    options = ["--node", str(os.getpid())]
    if frozen():
        unpacked = str(getattr(sys, "_MEIPASS", ""))
        if Path(unpacked).name.startswith("_MEI"):  # one file: the visible process is our parent
            options += ["--also", str(os.getppid()), "--sweep", unpacked]
        return [sys.executable, "--warden", _TOKEN, *options]
    return [sys.executable or "python3", "-I", "-S", str(Path(warden.__file__)), _TOKEN, *options]


def _warden_env() -> dict[str, str]:
    """The warden must not carry the token: it would end itself first."""
    env = self_env()
    del env[WARD]
    return env


class _Guards:
    """How many `guard()` blocks of this process are open, and the one warden they share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open = 0
        self.warden: _Warden | None = None

    def enter(self) -> None:
        with self.lock:
            if self.warden is None:
                self.warden = _Warden()
            self.open += 1

    def leave(self) -> None:
        with self.lock:
            self.open -= 1
            if self.open == 0 and self.warden is not None:
                self.warden.close()
                self.warden = None


_GUARDS = _Guards()


@contextlib.asynccontextmanager
async def guard() -> AsyncIterator[None]:
    """Keep the warden alive inside the block; leaving the last block of the process ends every child still running.

    May be nested and shared: there is one warden per process. Raises `OSError` when it cannot be started.
    """
    _GUARDS.enter()  # not in a thread: a cancellation could not take it back there
    try:
        yield
    finally:
        await asyncio.to_thread(_GUARDS.leave)


def warden_pid() -> int:
    """Return the process id of the warden, 0 when none is kept."""
    return _GUARDS.warden.pid if _GUARDS.warden else 0
