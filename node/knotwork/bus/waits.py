"""Does an event come in time? The one way to wait for one no longer than so many seconds."""

from __future__ import annotations

import asyncio


async def set_within(event: asyncio.Event, within_s: float | None) -> bool:
    """Return whether an event is set, at the latest after `within_s` seconds; None: however long it takes."""
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
