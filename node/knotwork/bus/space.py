"""What if the disk is full? nats-server refuses to write and does not resume by itself when there is room again.

So whoever runs it watches the free space: once it fell below what a write needs, the server is started anew as soon as
there is room. Nothing acknowledged is lost by that: it is on disk, and clients connect again by themselves.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

log = logging.getLogger(__name__)
LOOK_S = 0.5
LOW_BYTES = 16 * 1024 * 1024
"""Less than this is as good as full: two of the largest messages."""
LOW_SHARE = 8
"""On a small disk, less than its eighth."""


ERRORS = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""What the system answers when there is no room for a file, or none for this user."""
FULL_BYTES = 64 * 1024
PASSING = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM})
"""Errors of SQLite that have nothing to do with the file."""
_OF_THE_DISK = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})


def is_full(folder: Path) -> bool:
    """Return whether next to nothing can be written to the disk of a folder; False when that cannot be seen."""
    try:
        return shutil.disk_usage(folder).free < FULL_BYTES
    except OSError:
        return False


def is_passing(error: sqlite3.Error, path: Path) -> bool:
    """Return whether a database made anew at `path` would have the same error: a full disk is told in many words."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in PASSING or (code in _OF_THE_DISK and is_full(path.parent))


def low_bytes(total_bytes: int) -> int:
    """Return below how many free bytes a disk of this size counts as full (pure)."""
    return min(LOW_BYTES, total_bytes // LOW_SHARE)


async def watch(folder: Path, on_full: Callable[[int], None], on_room: Callable[[], Awaitable[None]]) -> None:
    """Tell when the disk of `folder` is full (`on_full`, with the free bytes), and when there is room again; for ever."""
    full = False
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            disk = await asyncio.to_thread(shutil.disk_usage, folder)
        except OSError as error:
            log.debug("the free space of %s cannot be seen: %s", folder, error)
            continue
        low = low_bytes(disk.total)
        if not full and disk.free < low:
            full = True
            on_full(disk.free)
        elif full and disk.free >= 2 * low:
            full = False
            await on_room()
