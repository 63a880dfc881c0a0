"""Does the loop turn? A thread asks it for a turn now and then, and says where it stands when none comes.

Blocking work never runs in the loop, but plugins of others do. While one holds it up, nothing else on the node moves; who
looks for the reason finds the line in the log, and health is answered by whoever stands in (`meanwhile`).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.sockets.blocking import place

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)
ASK_EVERY_S = 0.5
HELD_UP_S = 1.0
"""A loop that does not turn for that long is held up."""
TELL_S = 2.0
"""One that does not for that long is worth a line in the log."""


Meanwhile = Callable[[threading.Event, Callable[[], float]], None]
"""`meanwhile(turned, held_s)` is called in a thread of its own when the loop is held up, and returns when it has `turned`;
`held_s()` returns for how many seconds it has not."""


class Pulse:
    """The watch over one loop, from `begin` to `end`."""

    def __init__(self, meanwhile: Meanwhile) -> None:
        """Watch nothing yet."""
        self._meanwhile = meanwhile
        self._over = threading.Event()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch; called in the thread of the loop."""
        main = threading.get_ident()
        threading.Thread(target=self._run, args=(loop, main), name="pulse", daemon=True).start()

    def end(self) -> None:
        """Watch no more."""
        self._over.set()

    def _run(self, loop: asyncio.AbstractEventLoop, main: int) -> None:
        while not self._over.wait(ASK_EVERY_S):
            turned = threading.Event()
            asked_s = time.monotonic()
            try:
                loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # closed
                return
            # twice: a machine that stood still lets one wait end at once, and the loop shall have had a chance by then
            if not turned.wait(HELD_UP_S / 2) and not turned.wait(HELD_UP_S / 2):
                self._held_up(turned, asked_s, main)

    def _held_up(self, turned: threading.Event, asked_s: float, main: int) -> None:
        def held_s() -> float:
            return time.monotonic() - asked_s

        threading.Thread(target=self._meanwhile, args=(turned, held_s), name="standby", daemon=True).start()
        if turned.wait(TELL_S - HELD_UP_S) or self._over.is_set():
            return
        where = place(sys._current_frames().get(main))  # noqa: SLF001  the way to see another thread
        log.warning("nothing has moved for %.0f s%s; what waits without await holds up the whole node", held_s(), where)
        while not turned.wait(ASK_EVERY_S):
            if self._over.is_set():
                return
        log.warning("all moves again, after %.1f s", held_s())
