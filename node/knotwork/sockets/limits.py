"""How much may a process of a plugin take? Limits that it sets itself, before any code of the plugin runs."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

MIB = 1024 * 1024
_LIKED_BY_THE_KILLER = b"500"


def limit_memory(memory_mb: int) -> None:
    """Allow this process `memory_mb` MiB of address space above what it has now; 0 sets no limit."""
    if not memory_mb or sys.platform == "win32":
        return
    import resource  # not on Windows

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return  # no Linux: the node watches the memory of hosted plugins instead
    limit = pages * resource.getpagesize() + memory_mb * MIB
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def leave_no_core() -> None:
    """Let a crash of this process write no core file: crashing is what is tried here."""
    if sys.platform != "win32":
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def go_first() -> None:
    """Let the system choose this process rather than the node when memory runs out (Linux)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_LIKED_BY_THE_KILLER)
