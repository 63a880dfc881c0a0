"""Is the process of a launch alive, how did it end, and how is all of it ended?

Every process of a launch carries the launch's id in its environment, and its first one leads a session and a group of
its own. A process is known by its number together with its start time, so that a number used again is never mistaken
for it. Everything here blocks for milliseconds, so call it in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork_plugins.executors.process import tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psutil

MARK = tree.MARK
KILLED_WITHIN_S = 10.0
POLL_S, POLL_MAX_S = 0.02, 0.2
ENDED_MAX = 100
"""So many that ended are remembered at least: how a launch ended may be asked much later, after others began."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START = 19  # of /proc/<pid>/stat, counted after the name in brackets
_TERM: int = signal.SIGTERM
_KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)

_children: dict[int, subprocess.Popen[bytes]] = {}
"""The launched processes that are children of this one: theirs is the exit code. Kept over the life of an instance."""


def start(argv: Sequence[str], env: Mapping[str, str], cwd: Path, output: int) -> int:
    """Start a command in a session of its own, its output to the file descriptor; return its number.

    Raises OSError or ValueError as the system does.
    """
    options: dict[str, Any] = {"start_new_session": True} if sys.platform != "win32" else {"creationflags": 0x200}
    child: subprocess.Popen[bytes] = subprocess.Popen(
        list(argv), env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
    )
    _children.pop(child.pid, None)  # a number that is used again goes to the end
    ended = [pid for pid, other in _children.items() if other.poll() is not None]
    for pid in ended[:-ENDED_MAX]:
        del _children[pid]
    _children[child.pid] = child
    return child.pid


def exit_code(pid: int) -> int | None:
    """Return how a child of ours ended, negative for a signal; None while it runs, and for what is not our child."""
    child = _children.get(pid)
    return None if child is None else child.poll()


def boot() -> str:
    """Return what is another text after each start of the machine; empty where that cannot be known."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def started(pid: int) -> float:
    """Return when a process began, in a unit of the system's; 0 when there is none or it is a zombie."""
    try:
        if sys.platform.startswith("linux"):
            stat = (tree.PROC / str(pid) / "stat").read_bytes()
            fields = stat[stat.rfind(b")") + 2 :].split()
            return 0.0 if fields[0] in b"ZX" else float(fields[_START])
        import psutil

        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except Exception:  # noqa: BLE001  psutil's errors need psutil, which is not always imported: whatever it is, it is not there
        return 0.0


def leader_of(mark: str) -> int:
    """Return the first process of a launch by its mark alone, 0 when there is none."""
    found = [process.pid for process in tree.living(-1, mark)]
    return next((pid for pid in sorted(found) if _group_of(pid) == pid), 0)


def living(pid: int, began: float, mark: str) -> list[psutil.Process]:
    """Return what lives of a launch: its group, as long as that is surely its own, and whatever carries its mark.

    A group keeps its number as long as it has members, so one marked member is enough to know it.
    """
    if not mark or pid <= 0:
        return []
    found = tree.living(-1, mark)
    if started(pid) == began != 0 or any(_group_of(process.pid) == pid for process in found):
        found = tree.living(pid, mark)
    return found


async def end(pid: int, began: float, mark: str, grace_s: float) -> bool:
    """End all of a launch: SIGTERM, at most `grace_s` seconds, SIGKILL; say whether nothing of it is left.

    To be awaited: it waits in the loop and only looks in threads, so that many may end at once.
    """
    await asyncio.to_thread(_signal_living, pid, began, mark, _TERM)
    if await _gone(pid, began, mark, grace_s, 0):
        return True
    return await _gone(pid, began, mark, KILLED_WITHIN_S, _KILL)


async def _gone(pid: int, began: float, mark: str, within_s: float, number: int) -> bool:
    """Wait until nothing is left, sending what is left signal `number` again and again, for what is forked meanwhile."""
    until_s, pause_s = time.monotonic() + within_s, POLL_S
    while await asyncio.to_thread(_signal_living, pid, began, mark, number):
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, POLL_MAX_S)
    exit_code(pid)  # takes the zombie away
    return True


def _signal_living(pid: int, began: float, mark: str, number: int) -> bool:
    """Signal what lives of a launch; say whether anything did."""
    found = living(pid, began, mark)
    if number:
        _signal_all(found, pid, number)
    return bool(found)


def _signal_all(processes: Sequence[psutil.Process], group: int, number: int) -> None:
    """Signal the group in one go, so that none of it forks away meanwhile, and the others one by one."""
    import psutil

    if sys.platform != "win32" and any(_group_of(process.pid) == group for process in processes):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for process in processes:
        if _group_of(process.pid) != group:
            with contextlib.suppress(psutil.Error, OSError):
                process.send_signal(number)


def _group_of(pid: int) -> int:
    if sys.platform == "win32":
        return 0
    try:
        return os.getpgid(pid)
    except OSError:
        return -1
