"""Does a plugin survive being imported? Found out in a process of its own, before any of its code is in this one.

The process imports the plugin with the code that a node imports it with, and tells what it offers. One that crashes,
hangs or takes too much memory has harmed nobody: it is broken, and why is said. Blocks: for the thread that loads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

import msgspec

from knotwork.bus import child
from knotwork.config.elsewhere import Verdict
from knotwork.sdk.factory import Kind
from knotwork.sockets.factories import Broken
from knotwork.sockets.sources import Source

T = TypeVar("T")
log = logging.getLogger(__name__)
ARGUMENT = "--plugin-try"
HUNG = "plugin.import_hung"
BEGIN_S = 120.0
"""How long our own interpreter may take to be there: long, because that says nothing about the plugin."""
SLOWNESS = 4.0
"""How many times what our own interpreter took an import may take: a slow or cold machine is no fault of the plugin."""
GRACE_S = 0.5
"""How much later the process ends itself than it is ended, should nobody be left to do that."""
REAP_S = 2.0
AT_ONCE = 8
REPLY_MAX_BYTES = 16 * 1024 * 1024


class Table(msgspec.Struct):
    """What an operator wrote for one instance: keys of the plugin alone, and keys that all plugins have in common.

    `type` is a type's name, empty for the only one of its kind.
    """

    kind: Kind
    type: str
    own: dict[str, Any]
    common: dict[str, Any] = {}


class Wanted(msgspec.Struct):
    """What is to be tried. `apart`: as a hosted plugin, with a clean environment and its own packages.

    `path` is where this process looks for modules, `memory_mb` what an import may take (0: no limit), `patience_s` how
    long it may take, in seconds, on a machine of usual speed, and `longest_s` on the slowest (0: no longer); `token` marks
    what is said about it.
    """

    source: Source
    apart: bool
    memory_mb: int
    patience_s: float
    longest_s: float = 0.0
    tables: list[Table] = []
    path: list[str] = []
    token: str = ""


class Offer(msgspec.Struct):
    """One factory as it was described: `keys`, `bones` and `place_keys` are those of its config class (see `config.elsewhere`)."""

    kind: Kind
    name: str
    summary: str
    exclusive: bool
    abilities: list[str]
    about: str
    keys: list[str]
    bones: dict[str, Any]
    schema: dict[str, Any]
    place_keys: list[str] = []


class Judged(msgspec.Struct):
    """What the config class of a type says to a table; `settings` are the keys it was given."""

    kind: Kind
    type: str
    settings: dict[str, Any]
    verdict: Verdict


class Told(msgspec.Struct):
    """What a process says: that it begins to import, that it survived and what it found, or why there is nothing."""

    word: str
    token: str
    offers: list[Offer] = []
    judged: list[Judged] = []
    code: str = ""
    reason: str = ""
    hint: str = ""
    took_s: float = 0.0


msgspec.json.Decoder(Told)  # looks at the class once, here: when several threads are first to meet it, msgspec crashes


def try_all(wanted: Sequence[Wanted]) -> list[Told | Broken]:
    """Try several plugins side by side; the answers are in the same order. Never raises for what a plugin does."""
    if len(wanted) <= 1:
        return [try_out(one) for one in wanted]
    with ThreadPoolExecutor(min(AT_ONCE, len(wanted)), thread_name_prefix="try") as threads:
        return list(threads.map(try_out, wanted))


def try_out(wanted: Wanted) -> Told | Broken:
    """Try one plugin: what it offers when it survived, else why it cannot be used."""
    path = [] if wanted.apart else list(sys.path)
    told = _tried(msgspec.structs.replace(wanted, token=secrets.token_hex(8), path=path))
    if isinstance(told, Broken):
        log.warning("plugin %s is broken: %s", wanted.source, told.reason)
    return told


def with_tables(wanted: Wanted, tables: list[Table]) -> Wanted:
    """Return the same with other tables."""
    return msgspec.structs.replace(wanted, tables=tables)


def _tried(wanted: Wanted) -> Told | Broken:
    name = str(wanted.source)
    started_s = time.monotonic()
    try:
        process = _started(apart=wanted.apart)
    except OSError as error:
        return Broken(name, "plugin.spawn_failed", f"the process to try it in cannot be started: {error}")
    try:
        lines = _asked(process, wanted)
        if lines(BEGIN_S, "importing") is None:
            return Broken(name, "plugin.spawn_failed", f"the process to try it in did not begin: {_end(process)}")
        began_s = time.monotonic()
        patience_s = patience(wanted.patience_s, wanted.longest_s, SLOWNESS * (began_s - started_s))
        told = lines(patience_s, "survived", "broken")
        if told is None and time.monotonic() - began_s >= patience_s:
            return hangs(wanted.source, patience_s)
        if told is None:
            return _crashed(wanted, process)
    finally:
        _kill(process)
    return told if told.word == "survived" else Broken(name, told.code, told.reason, told.hint)


def patience(usual_s: float, longest_s: float, here_s: float) -> float:
    """Return how many seconds an import may take where `here_s` tells how slow this machine is just now."""
    return max(usual_s, min(longest_s, here_s))


def hangs(source: Source, patience_s: float) -> Broken:
    """Return what is said of an import that takes longer than `patience_s` seconds."""
    told = f"still importing after {round(patience_s, 1):g} s"
    hint = "Move slow work from import into `open`, or raise plugins.start_timeout_s where the machine is slow."
    return Broken(str(source), HUNG, told, hint)


def _crashed(wanted: Wanted, process: subprocess.Popen[bytes]) -> Broken:
    how = _end(process)
    if process.returncode == -getattr(signal, "SIGALRM", 0):  # it was faster to end itself than we were
        return hangs(wanted.source, max(wanted.patience_s, wanted.longest_s))
    told = f"its import ended the process that it was tried in ({how})"
    return Broken(str(wanted.source), "plugin.import_crashed", told, "Nothing of it is in this process. Mend it.")


def _started(*, apart: bool) -> subprocess.Popen[bytes]:
    """Start the process. It ends with its standard input, so with us, and carries the mark that the warden looks for.

    A hosted plugin gets a clean environment, here as there. One that would be imported into this process would see
    this environment: without it, it would fail here and work there.
    """
    more = {"MALLOC_ARENA_MAX": "2"}  # the limit is one on address space, of which every further arena takes 64 MiB
    env = child.self_env(more) if apart else {**os.environ, **more, child.WARD: child.ward_token()}
    command = [sys.executable, ARGUMENT] if child.frozen() else [sys.executable, "-P", "-m", _MODULE]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,  # a Ctrl-C is not for it, and all it starts can be ended
    )


_MODULE = "knotwork.sockets.tried_child"


def _asked(process: subprocess.Popen[bytes], wanted: Wanted) -> Callable[..., Told | None]:
    """Tell the process what is wanted; return what waits up to so many seconds for one of some words of it."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):  # it is gone already, which is seen at once
        process.stdin.write(encoded(wanted))
        process.stdin.flush()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process.stdout, lines), name=f"try {wanted.source.name}", daemon=True).start()

    def awaited(timeout_s: float, *words: str) -> Told | None:
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left_s)
            except queue.Empty:
                return None
            if not line:
                return None
            told = decoded(line, Told)
            if told is not None and told.token == wanted.token and told.word in words:
                return told
        return None

    return awaited


def _read(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Pass lines on until the end, which is an empty one. In a thread: who inherited the pipe may keep it open for ever."""
    with contextlib.suppress(OSError, ValueError), stream:
        while line := stream.readline(REPLY_MAX_BYTES):
            lines.put(line)
    lines.put(b"")


def _end(process: subprocess.Popen[bytes]) -> str:
    """Return how a process ended by itself, in words."""
    try:
        code = process.wait(REAP_S)
    except subprocess.TimeoutExpired:
        return "it closed its output and went on"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and everything it started, whatever it does."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(REAP_S)


def encoded(said: Any) -> bytes:
    """Return a line of JSON; dates become text, as they would on any way into a process."""
    return json.dumps(msgspec.to_builtins(said)).encode() + b"\n"  # unlike msgspec's, this JSON knows infinity


def decoded(line: bytes, into: type[T]) -> T | None:
    """Return what a line says, None for anything that is none of ours."""
    try:
        return msgspec.convert(json.loads(line), into)
    except (ValueError, RecursionError):
        return None


def canonical(settings: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal tables."""
    return json.dumps(settings, sort_keys=True, default=str)
