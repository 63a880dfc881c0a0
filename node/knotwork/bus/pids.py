"""Which process does a number mean, now and later? Numbers are given again; the moment of birth tells them apart.

Imports nothing that costs time: the thin command line asks, too.
"""

from __future__ import annotations

import functools
from pathlib import Path


def alive(pid: int, born_then: str = "") -> bool:
    """Return whether process `pid` runs (a zombie does not count) and, when given, is the one born then."""
    if pid <= 0:
        return False
    try:
        state, born_now = _stat(pid)
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists() and _alive_elsewhere(pid, born_then)
    except OSError:
        return True
    return state not in ("Z", "X") and born_then in ("", born_now)


def born(pid: int) -> str:
    """Return what no other process of this number has, on this machine, ever; "" for none that runs."""
    try:
        return _stat(pid)[1]
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else _born_elsewhere(pid)
    except OSError:
        return ""


def _stat(pid: int) -> tuple[str, str]:
    """Return state and birth from /proc (fields 3 and 22 of proc(5)), with the boot the ticks are counted from."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[0].decode(), f"{_boot()}/{fields[19].decode()}"


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _born_elsewhere(pid: int) -> str:
    import psutil  # no /proc: macOS and Windows

    try:
        return f"{psutil.Process(pid).create_time():.3f}"
    except psutil.Error:
        return ""


def _alive_elsewhere(pid: int, born_then: str) -> bool:
    import psutil  # no /proc: macOS and Windows

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and born_then in ("", _born_elsewhere(pid))
    except psutil.Error:
        return False
