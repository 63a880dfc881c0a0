"""Who ends the children of a node that was killed?

The warden: a tiny process that holds one end of a pipe whose other end only the node holds. When the pipe closes
the node is gone, however it went, and the warden kills every process that carries `KNOTWORK_WARD=<token>` in its
environment, and everything those have started, until none is left. Then it ends too.

This file is run as a script by an isolated interpreter (`python -I -S warden.py …`), so it imports nothing but a few
modules of the standard library. Arguments: the token; `--node PID`, the node; `--also PID`, a process whose
death ends the node as well (the visible process of a one-file executable); `--sweep FOLDER`, a folder to remove at
the end (where a one-file executable unpacked itself).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

_ENTRY = "KNOTWORK_WARD="
_PAUSE_S = 0.02  # between two scans
_KILL_FOR_S = 30.0  # then give up on processes that even SIGKILL does not end
_LOOK_EVERY_S = 1.0  # where deaths can only be asked for
_UNPACKED = "_MEI"  # how PyInstaller names the folder it unpacks to
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Wait for the node to be gone, then kill what it left; returns 0."""
    token, options = arguments[0], dict(zip(arguments[1::2], arguments[2::2], strict=False))
    node, also = int(options.get("--node", "0")), int(options.get("--also", "0"))
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)  # it ends with the node and at no other time
    await_end(node, also)
    kill_all(token, [node] if also else [])
    sweep(options.get("--sweep", ""))
    return 0


def await_end(node: int, also: int) -> None:
    """Return when the pipe on standard input closes, or when process `node` or `also` is gone (0: do not look)."""
    files: list[int] = [0]
    asked: list[int] = []
    for pid in (node, also):
        try:
            if pid:
                files.append(os.pidfd_open(pid))
        except ProcessLookupError:
            return
        except (OSError, AttributeError):  # not Linux, or an old one: ask once a second
            asked.append(pid)
    while True:
        ready, _, _ = select.select(files, [], [], _LOOK_EVERY_S if asked else None)
        if (0 in ready and not os.read(0, 4096)) or any(file != 0 for file in ready):
            return
        if not all(_alive(pid) for pid in asked):
            return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def kill_all(token: str, known: list[int]) -> set[int]:
    """Kill the carriers of `token`, their descendants and `known`, until two scans in a row find nobody.

    Returns whom it killed.
    """
    killed: set[int] = set()
    give_up, empty = time.monotonic() + _KILL_FOR_S, 0
    while empty < 2 and time.monotonic() < give_up:  # noqa: PLR2004 - a process may be born during the first scan
        found = carriers(token) | {pid for pid in known if _alive(pid)}
        known = []
        for pid in found:
            try:
                os.kill(pid, _SIGKILL)
            except OSError:
                continue  # gone meanwhile, or somebody else's
            killed.add(pid)
        empty = 0 if found else empty + 1
        time.sleep(_PAUSE_S)
    return killed


def carriers(token: str) -> set[int]:
    """Return the processes that carry `token`, with all their descendants; never this process."""
    try:
        marked, parents = _scan_proc((_ENTRY + token).encode())
    except FileNotFoundError:
        marked, parents = _scan_ps(_ENTRY + token)
    kin = set(marked)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in kin and pid not in kin}
        kin |= more
        grown = bool(more)
    kin.discard(os.getpid())
    return kin


def _scan_proc(entry: bytes) -> tuple[set[int], dict[int, int]]:
    """Return who carries `entry`, and the parent of every living process, from /proc."""
    marked: set[int] = set()
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would cost memory here
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state in (b"Z", b"X"):
                continue  # dead already; its parent has not looked yet
            parents[int(name)] = int(parent)
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                if entry in file.read().split(b"\0"):
                    marked.add(int(name))
        except (OSError, ValueError):
            continue  # gone meanwhile, or somebody else's
    if not parents:
        raise FileNotFoundError("/proc")
    return marked, parents


def _scan_ps(entry: str) -> tuple[set[int], dict[int, int]]:
    """Return the same from `ps`, where there is no /proc (macOS, BSD)."""
    marked: set[int] = set()
    parents: dict[int, int] = {}
    with os.popen("ps -A -E -ww -o pid=,ppid=,command= 2>/dev/null || ps axeww -o pid=,ppid=,command=") as listing:  # noqa: S605 - fixed text
        for line in listing:
            words = line.split()
            try:
                pid, parents[pid] = int(words[0]), int(words[1])
            except (IndexError, ValueError):
                continue
            if entry in words[2:]:
                marked.add(pid)
    return marked, parents


def sweep(folder: str) -> None:
    """Remove the folder a one-file executable unpacked itself to; any other folder is left alone."""
    if not folder or not os.path.basename(folder).startswith(_UNPACKED) or os.path.islink(folder):  # noqa: PTH119, PTH114
        return
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            path = os.path.join(place, name)  # noqa: PTH118
            try:
                os.unlink(path) if name in files or os.path.islink(path) else os.rmdir(path)  # noqa: PTH108, PTH106, PTH114
            except OSError:
                continue
    try:
        os.rmdir(folder)  # noqa: PTH106
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
