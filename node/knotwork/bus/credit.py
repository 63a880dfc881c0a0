"""How much of a long answer may be under way to its reader? A window of bytes: he tells what he has used, and more comes.

NATS itself holds nobody up: it ends the connection of a reader for whom 64 MB are waiting, and what was under way is
lost. So a reader names a window when he asks (`frames.WINDOW`), every frame says how many bytes were sent with it
(`frames.SENT`), and he tells now and then how many of them he has used (`op.credit.<call>`). From the same numbers he
sees what was lost on the way and what came twice. A reader that names no window gets everything at once, as before.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal

from knotwork.bus import digits, frames, subjects, wire
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Kind
    from knotwork.bus.wire import Message

WINDOW_BYTES = 2 * 1024 * 1024
"""What a reader of ours has sent to him ahead of what he has used; one more frame, at most 8 MiB, may come on top."""
_SHARE = 4
Place = Literal["next", "again", "gap"]


class Credit:
    """What one reader may still be sent: the side that answers."""

    __slots__ = ("_more", "_used", "_window", "sent")

    def __init__(self, window: int) -> None:
        """Let `window` bytes be under way."""
        self._window, self._more = window, asyncio.Event()
        self.sent = self._used = 0

    async def room(self) -> None:
        """Return when something may be sent; whoever waits is cancelled when the reader is gone."""
        while self.sent - self._used >= self._window:
            self._more.clear()
            await self._more.wait()

    def head(self, kind: Kind, size: int) -> bytes:
        """Return the header block of a frame of `size` bytes that follows what was sent."""
        return wire.header((frames.FRAME, kind), (frames.SENT, str(self.sent + size)))

    def heard(self, told: bytes) -> None:
        """Take what the reader says that he has used; what is no number, or too large, is ignored."""
        used = digits.read(told.decode("ascii", "replace"))
        if used is not None and self._used < used <= self.sent:
            self._used = used
            self._more.set()


class Reading:
    """What one reader got, and has used: the side that asks."""

    __slots__ = ("_arrived", "_call", "_connection", "_told", "_used")

    def __init__(self, connection: Connection, call: str) -> None:
        """Tell it for the call of this id."""
        self._connection, self._call = connection, call
        self._arrived = self._used = self._told = 0

    def place(self, message: Message, size: int) -> Place:
        """Return where a frame of `size` bytes (0 for a sign of life) stands, and count it; `gap`: some are missing."""
        sent = digits.read(message.header(frames.SENT))
        if sent is None:  # a node that counts nothing, or an error
            return "next"
        if sent <= self._arrived:
            return "again" if size else "next"
        before, self._arrived = self._arrived, sent
        return "next" if sent == before + size else "gap"

    def used(self, *, surely: bool = False) -> None:
        """Say that all that came was used, in steps of a share of the window; `surely`: what was said may be lost."""
        self._used = self._arrived
        if not self._used or (not surely and self._used - self._told < WINDOW_BYTES // _SHARE):
            return
        with contextlib.suppress(KnotworkError):  # no link: it is said again with the next sign of life
            self._connection.send(subjects.op_credit(self._call), str(self._used).encode())
            self._told = self._used
