"""When does memory that nobody uses any more go back to the system? A while after much of it was in use.

What C's allocator frees between what is still in use it keeps: an orchestration whose results had 32 MiB left 0.8 GB with
the node for ever, of which Python knew 50 MB. To give it back takes a tenth of a second for half a gigabyte, so it is not
done often, and beside the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S = 30.0
GROWN_BYTES = 128 * 1024 * 1024
"""How much more than at its least has to be resident before it is worth the time."""
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = mmap.PAGESIZE


async def give_back() -> None:
    """Give back what is free for as long as much more is resident than once was, for ever; nothing where it cannot be done."""
    trim = _trim()
    if trim is None:
        return
    least = resident_bytes()
    while True:
        await asyncio.sleep(LOOK_S)
        with contextlib.suppress(OSError):  # no file can be opened just now: a node does not end for that
            now = resident_bytes()
            least = min(least, now)
            if now - least > GROWN_BYTES:  # what is in use now may be free at the next look: nobody else would tell
                await asyncio.to_thread(trim, 0)


def resident_bytes() -> int:
    """Return how much memory this process has; raises `OSError` where the system does not say so in /proc."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def _trim() -> Callable[[int], int] | None:
    """Return glibc's `malloc_trim`, None where there is none."""
    try:
        resident_bytes()
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim
