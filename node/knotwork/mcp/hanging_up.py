"""Did the client of a request to `/mcp` hang up? The door takes note of it, and a call that nobody hears any more ends."""

from __future__ import annotations

import asyncio
import contextlib

LEFT = "knotwork.left"
"""Where the scope of a request keeps whether its client hung up (`Left`)."""


class Left:
    """Whether the client of one request hung up."""

    def __init__(self) -> None:
        """It is there."""
        self._told = False
        self._limits: list[asyncio.Timeout] = []

    def tell(self) -> None:
        """Take note that it hung up."""
        self._told = True
        for limit in self._limits:
            with contextlib.suppress(RuntimeError):  # the block is over
                limit.reschedule(asyncio.get_running_loop().time())

    def ends(self, limit: asyncio.Timeout) -> None:
        """End the block of a time-out when it hangs up, or did already."""
        self._limits.append(limit)
        if self._told:
            self.tell()
