"""What if the disk is full? nats-server refuses to write and does not resume by itself when there is room again.

So whoever runs it watches the free space: once it fell below what a write needs, the server is started anew as soon as
there is room. Nothing acknowledged is lost by that: it is on disk, and clients connect again by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

log = logging.getLogger(__name__)
LOOK_S = 0.5
LOW_BYTES = 16 * 1024 * 1024
"""Less than this is as good as full: two of the largest messages."""
LOW_SHARE = 8
"""On a small disk, less than its eighth."""


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
