"""What becomes of what a plugin's process prints? Bounded lines in the node's log, and the last ones kept for the reason."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    import logging

LINE_MAX_BYTES = 2000
LINES_A_SECOND = 200
READ_BYTES = 64 * 1024


@dataclass
class Output:
    """Where the lines of one child go. `name` tells whose they are; `tail` holds its last lines."""

    log: logging.Logger
    name: str
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    _second: int = 0
    _lines: int = 0
    _dropped: int = 0

    async def follow(self, stream: asyncio.StreamReader, level: int) -> None:
        """Log the lines of `stream` until its end; binary garbage is shown escaped, long lines are cut."""
        rest, cut = b"", False
        while data := await stream.read(READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for number, line in enumerate(lines):
                if not (cut and number == 0):  # the end of a line whose beginning was shown already
                    self.line(level, line.decode("utf-8", "backslashreplace"))
            if lines:
                cut = False
            if len(rest) > LINE_MAX_BYTES:
                if not cut:
                    self.line(level, rest.decode("utf-8", "backslashreplace"))
                rest, cut = b"", True
        if rest and not cut:
            self.line(level, rest.decode("utf-8", "backslashreplace"))

    def line(self, level: int, text: str) -> None:
        """Log one line, unless this second had enough of them."""
        shown = "".join(
            char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in text[:LINE_MAX_BYTES]
        )
        if not shown.strip():
            return
        self.tail.append(shown)
        second = int(time.monotonic())
        if second != self._second:
            if self._dropped:
                self.log.warning("%s: %d lines dropped, over %d in a second", self.name, self._dropped, LINES_A_SECOND)
            self._second, self._lines, self._dropped = second, 0, 0
        self._lines += 1
        if self._lines > LINES_A_SECOND:
            self._dropped += 1
        else:
            self.log.log(level, "%s: %s", self.name, shown)
