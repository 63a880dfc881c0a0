"""How is a node started from the shell? In this process, or detached: then we return when it is ready."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import click

from knotwork.bus import child, store_lock
from knotwork.cli import files, launched, local, options, remote, show
from knotwork.cli.files import FileOptions
from knotwork.cli.options import Shared
from knotwork.cli.undisturbed import hangup_ignored, undisturbed
from knotwork.host.layout import unusable
from knotwork.sdk.errors import (
    ConfigInvalid,
    Conflict,
    Denied,
    Internal,
    Invalid,
    KnotworkError,
    TimedOut,
    Unavailable,
    Unreachable,
)

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
TELL_AFTER_S = 1.0
"""What takes no longer needs no explanation."""
YOUNG_MAX = 250_000
"""So many new objects there may be before they are searched for garbage: of those a node loads hardly any is, and to search
them over and over takes 50 ms of its start."""
_LOOK_EVERY_S = 0.02
_TAIL_BYTES = 8192


def _up(**values: Any) -> None:
    shared, detach = options.take(values), bool(values.pop("detach"))
    chosen = files.take(values)
    folder = local.data_dir(shared.data_dir)
    if detach:
        quiet = shared.quiet or shared.shape != "table"
        node = start_detached(
            folder, chosen, shared.timeout_s or START_TIMEOUT_S, (lambda _: None) if quiet else _tell_waiting
        )
        _tell(node, shared)
        return
    own = launched.is_own(folder)
    if own:
        launched.sweep(folder, _is_used)
    code = run_here(folder, chosen, quiet=shared.quiet, as_json=shared.shape != "table")
    if own and not code:
        launched.remove(folder)
    sys.exit(code)


def _is_used(folder: Path) -> bool:
    """Return whether a node runs in a folder."""
    try:
        return local.read(folder) is not None
    except KnotworkError:  # it is described by somebody else, or by nobody
        return False


up = click.Command(
    "up",
    callback=_up,
    params=[
        *files.options(),
        click.Option(["-d", "--detach"], is_flag=True, help="run in the background; return when the node is ready"),
        click.Option(
            ["--timeout", "timeout_s"], type=options.Duration(), metavar="TIME", help="with --detach: wait so long"
        ),
        *options.answering(),
    ],
    short_help="Start a node",
    help="Start a node with its own NATS server, or join the one that [nats] names.\n\n"
    "Without a configuration file every default applies. Ctrl-C drains and stops; a second one stops at once.",
    epilog="\b\nExamples:\n  # Start with ./knotwork.toml or the defaults\n  knotwork up\n"
    "  # In the background, with another file\n  knotwork up --detach --config mine.toml\n"
    "  # Change one value\n  knotwork up --set web.port=8080",
)


def run_here(folder: Path, chosen: FileOptions, *, quiet: bool, as_json: bool = False) -> int:
    """Be the node until it stops; returns the exit code. With `as_json` the error that ends it is one JSON object."""
    gc.set_threshold(YOUNG_MAX)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it looks through all that is installed: 30 ms
    from knotwork.host import node  # the whole node: loaded by nobody else

    return node.main(
        node.UpOptions(
            data_dir=folder,
            config_files=tuple(Path(path) for path in chosen.config),
            config_dir=Path(chosen.config_dir) if chosen.config_dir else None,
            sets=chosen.sets,
            safe_mode=chosen.safe_mode,
            quiet=quiet,
            as_json=as_json,
        )
    )


def start_detached(
    folder: Path,
    chosen: FileOptions,
    timeout_s: float,
    on_wait: Callable[[str], None] = lambda _: None,
    on_begin: Callable[[subprocess.Popen[bytes]], object] = lambda _: None,
) -> dict[str, Any]:
    """Start a node in the background and return its description once it is ready for work.

    `on_wait` is told what it still waits for, each time that is something else; `on_begin` is given the process as soon
    as there is one, before anything can interrupt.
    Raises `Conflict` when one runs in this folder already, `TimedOut` when it is not ready in time (it is ended
    then), and what the node itself said when it ended instead.
    """
    _refuse_second(folder)
    with _alone(folder, timeout_s):
        _refuse_second(folder)
        log = _fresh_log(folder)
        process: subprocess.Popen[bytes] | None = None
        try:
            with undisturbed(), hangup_ignored(), log.open("ab") as out:
                process = _spawn(folder, chosen, out)
                on_begin(process)
            return _await_ready(process, folder, log, timeout_s, on_wait)
        except BaseException:  # Ctrl-C, too: nobody knows of a node that was never announced
            if process is not None:
                end(process)
            raise


def _refuse_second(folder: Path) -> None:
    running = local.read(folder)
    if running is not None:
        raise Conflict(
            f"A node runs in {folder} already ({running.shown}).",
            code="node.already_running",
            hint="Use it, stop it with `knotwork stop`, or choose another --data-dir.",
        )


@contextmanager
def _alone(folder: Path, wait_s: float) -> Iterator[None]:
    """Be the only one who starts a node in a folder: another one would move the log of ours out of its way."""
    with ExitStack() as stack:
        try:
            for place in (folder, folder / "run"):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(store_lock.one_at_a_time(folder / "run" / "starting", wait_s))
        except TimeoutError:
            raise TimedOut(
                f"Somebody else has been starting a node in {folder} for {wait_s:g} s.",
                code="node.start_timed_out",
                hint="See `knotwork status`; allow more with --timeout.",
            ) from None
        except OSError as error:
            raise unusable(folder, error) from error
        yield


def _await_ready(
    process: subprocess.Popen[bytes], folder: Path, log: Path, timeout_s: float, on_wait: Callable[[str], None]
) -> dict[str, Any]:
    started, told, why = time.monotonic(), "", ""
    while (waited_s := time.monotonic() - started) < timeout_s:
        code = process.poll()
        if code is not None:
            raise _ended(code, log)
        found, why = _ready(folder, process.pid)
        if found is not None:
            return {**found, "ready_s": round(time.monotonic() - started, 3), "log": str(log)}
        if why not in ("", told) and waited_s > TELL_AFTER_S:
            told = why
            on_wait(why)
        time.sleep(_LOOK_EVERY_S)
    raise TimedOut(
        f"The node was not ready within {timeout_s:g} s" + (f"; it was {why}" if why else ""),
        code="node.start_timed_out",
        hint=f"Its last words are in {log}; allow more with --timeout.",
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a node that we started, wait until it is gone, and kill it when it takes too long; Ctrl-C waits for that."""
    with undisturbed():
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _fresh_log(folder: Path) -> Path:
    """Return the file for the node's words, for its owner alone; the one before is kept beside it."""
    log = folder / "knotwork.log"
    try:
        if log.exists():
            log.replace(folder / "knotwork.log.1")
        log.touch(mode=0o600)
    except OSError as error:
        raise unusable(folder, error) from error
    return log


def _spawn(folder: Path, chosen: FileOptions, out: IO[bytes]) -> subprocess.Popen[bytes]:
    env = {**os.environ, local.DATA_DIR: str(folder)}
    if child.frozen():  # a one-file executable must unpack anew: its folder goes when we end
        env["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
    return subprocess.Popen(
        [*child.program(), "up", "--data-dir", str(folder), *chosen.words()],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )


def _ready(folder: Path, pid: int) -> tuple[dict[str, Any] | None, str]:
    """Return the description of the node we started when it says that it is ready, else None and what it waits for."""
    try:
        node = local.read(folder)
        other = node is not None and node.pid != pid and not child.frozen()  # that may start another
        if node is None or other or node.early:
            return None, f"{node.state}: {node.why}" if node is not None and node.why else ""
        raw = remote.ask(Shared(data_dir=str(folder)), "node.health", b"{}", lambda _: None, timeout_s=5.0)
    except (Unavailable, TimedOut) as error:
        return None, f"starting: {error.message}"
    health = json.loads(raw)
    if not health.get("ready"):
        return None, f"starting: {'; '.join(_missing(health, needed=True))}"
    about = {"node": node.node, "pid": node.pid, "url": node.url, "http": node.http, "data_dir": str(folder)}
    warnings = _missing(health, needed=False)
    return {**about, "warnings": warnings} if warnings else about, ""


def _missing(health: dict[str, Any], *, needed: bool) -> list[str]:
    """Return what is not as it should be: what the node needs to be ready, or what it can do without."""
    found = (one for one in health.get("checks", ()) if not one.get("ok") and one.get("needed", True) == needed)
    return [f"{one['name']}: {one['why']}" for one in found]


def _ended(code: int, log: Path) -> KnotworkError:
    """Return the error that a node which ended instead of starting stands for, keeping its exit code."""
    said = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
    kinds: dict[int, type[KnotworkError]] = {
        78: ConfigInvalid,
        77: Denied,
        75: Unavailable,
        69: Unreachable,
        2: Invalid,
        1: Conflict,
    }
    kind = kinds.get(code, Internal)
    return kind(
        f"The node ended with code {code} before it was ready. It said:\n{said}"
        if said
        else f"The node ended with code {code}.",
        code="node.start_failed",
        hint=f"Its log is {log}.",
    )


def _tell_waiting(why: str) -> None:
    print(f"waiting, the node is {show.plain(why)}", file=sys.stderr, flush=True)


def _tell(node: dict[str, Any], shared: Shared) -> None:
    for warning in node.get("warnings", ()):
        print(f"warning: {show.plain(warning)}", file=sys.stderr, flush=True)
    if shared.shape != "table":
        print(show.pretty(node) if shared.shape == "json" else show.compact(node))
    elif not shared.quiet:
        print(show.details(node))
