"""Which processes belong to a command, and how much memory do they hold together?

Everything here blocks for milliseconds (it reads the process table), so call it in a thread.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

MARK = "KNOTWORK_ATTEMPT_MARK"
PROC = Path("/proc")
_STATE, _PPID, _GROUP, _SESSION, _RSS_PAGES = 0, 1, 2, 3, 21  # of /proc/<pid>/stat, counted after the name in brackets


def living(group: int, mark: str) -> list[psutil.Process]:
    """Return the processes in process group `group`, and all others whose environment carries `mark`.

    The mark finds descendants in sessions of their own. Zombies are not alive, whoever may have to reap them;
    processes of other users cannot be looked into and are left out.
    """
    # Imported late: the catalog imports this file at every start, psutil is needed when something must be killed.
    import psutil

    linux = sys.platform.startswith("linux")
    found: list[psutil.Process] = []
    for pid in psutil.pids():
        try:
            if _lives_linux(pid, group, mark) if linux else _lives_portable(pid, group, mark):
                found.append(psutil.Process(pid))
        except (psutil.Error, OSError):
            continue  # it ended while we looked, or it is not ours
    return found


def _lives_linux(pid: int, group: int, mark: str) -> bool:
    fields = _stat(PROC / str(pid) / "stat")
    if fields[_STATE] in b"ZX":
        return False
    if int(fields[_GROUP]) == group:
        return True
    return f"{MARK}={mark}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")


def _lives_portable(pid: int, group: int, mark: str) -> bool:
    import psutil

    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    return (sys.platform != "win32" and os.getpgid(pid) == group) or process.environ().get(MARK) == mark


def _stat(path: Path) -> list[bytes]:
    stat = path.read_bytes()
    return stat[stat.rfind(b")") + 2 :].split()


class MemoryTable:
    """Memory per process tree, read for all attempts of one instance at once.

    One look at the process table costs some milliseconds, so all who ask within `max_age_s` share one.
    """

    def __init__(self, max_age_s: float = 0.1) -> None:
        """Start empty."""
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._taken_s = float("-inf")
        self._rows: dict[int, tuple[int, int, int]] = {}

    def resident_bytes(self, pid: int) -> int:
        """Return the resident memory of `pid`, its session and all its descendants, in bytes.

        Pages shared by several of them count once for each. 0 when nothing is left.
        """
        with self._lock:
            if time.monotonic() - self._taken_s > self._max_age_s:
                self._rows = _read_linux() if sys.platform.startswith("linux") else _read_portable()
                self._taken_s = time.monotonic()
            rows = self._rows
        inside = {pid}
        inside.update(other for other, (_, session, _) in rows.items() if session == pid)
        grown = True
        while grown:
            more = {other for other, (parent, _, _) in rows.items() if parent in inside} - inside
            inside |= more
            grown = bool(more)
        return sum(rows[member][2] for member in inside if member in rows)


def _read_linux() -> dict[int, tuple[int, int, int]]:
    """Return parent, session and resident bytes of every process."""
    page = os.sysconf("SC_PAGE_SIZE")
    rows: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir(PROC):  # noqa: PTH208 - names only; Path objects would double the time of this loop
        if not name.isdigit():
            continue
        try:
            fields = _stat(PROC / name / "stat")
        except OSError:
            continue  # it ended between the listing and the reading
        rows[int(name)] = (int(fields[_PPID]), int(fields[_SESSION]), int(fields[_RSS_PAGES]) * page)
    return rows


def _read_portable() -> dict[int, tuple[int, int, int]]:
    """Return the same where there is no /proc; sessions are unknown there (0)."""
    import psutil

    rows: dict[int, tuple[int, int, int]] = {}
    for process in psutil.process_iter(["ppid", "memory_info"]):
        memory = process.info["memory_info"]
        if memory is not None:
            rows[process.pid] = (process.info["ppid"] or 0, 0, memory.rss)
    return rows
