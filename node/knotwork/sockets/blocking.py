"""What becomes of a plugin that blocks the loop while it opens or ends? It is interrupted where it stands.

A call that waits without `await` holds up everything: no time-out of the loop can end it. So a thread looks at what the
loop's thread is doing, and when that has been one plugin for longer than it may take, a signal raises the plugin's error
inside it: sleeping, waiting for a socket, a lock or a process, and computing in Python all end by that. What cannot be
interrupted (a library that computes without Python) is told to `stuck`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from knotwork.sdk import PluginFailed
from knotwork.sockets.slot import BLOCKS, Slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

LOOK_EVERY_S = 0.25
GRACE_S = 1.0
"""What a plugin may take beyond its time-out, which ends whatever waits with `await`."""
PATIENCE_S = 5.0
"""How long an interruption may take to be felt."""
NUMBER = getattr(signal, "SIGVTALRM", None)
_LIVING = Slot._live.__code__  # noqa: SLF001  in whose frame a plugin is entered and left
_HINT = (
    "Await what takes long, or run the plugin in a process of its own: `hosted = true`; `up --safe-mode` leaves it out."
)


class Blocking:
    """The watch over plugins that hold up the loop; `stuck(slot, message)` is called in its thread, once for each."""

    def __init__(self, stuck: Callable[[Slot, str], None]) -> None:
        """Watch nobody yet."""
        self._stuck = stuck
        self._busy: set[Slot] = set()
        self._some = threading.Event()
        self._over = False
        self._main = threading.main_thread()
        self._due: tuple[Slot, str] | None = None

    def begin(self) -> None:
        """Begin to watch, in a thread; called in the main thread, whose loop it is."""
        if NUMBER is not None:
            signal.signal(NUMBER, self._interrupt)
        threading.Thread(target=self._run, name="blocking", daemon=True).start()

    def end(self) -> None:
        """Watch no more."""
        self._over = True
        self._some.set()

    def changed(self, slot: Slot) -> None:
        """Take note of a slot's state; called in the loop."""
        if slot.state in ("starting", "stopping"):
            self._busy.add(slot)
            self._some.set()
        else:
            self._busy.discard(slot)

    def _run(self) -> None:
        seen: Slot | None = None
        since_s = asked_s = 0.0
        while not self._over:
            if not self._busy:
                self._some.clear()
                self._some.wait(None if not self._busy else 0.0)
                continue
            time.sleep(LOOK_EVERY_S)
            slot, now_s = self._standing(), time.monotonic()
            if slot is None or slot is not seen:
                seen, since_s, asked_s = slot, now_s, 0.0
                continue
            if asked_s:
                if now_s - asked_s > PATIENCE_S:
                    self._stuck(slot, self._told(slot, now_s - since_s))
                    asked_s = float("inf")  # once
            elif now_s - since_s > _limit_s(slot) + GRACE_S:
                asked_s = now_s
                self._due = (slot, self._told(slot, now_s - since_s))
                if NUMBER is not None and self._main.ident is not None:
                    signal.pthread_kill(self._main.ident, NUMBER)

    def _standing(self) -> Slot | None:
        """Return whose plugin the loop's thread is in just now."""
        frame = sys._current_frames().get(self._main.ident or 0)  # noqa: SLF001  the way to see another thread
        return _slot_of(frame)

    def _told(self, slot: Slot, took_s: float) -> str:
        doing = "ends" if slot.state == "stopping" else "opens"
        frame = sys._current_frames().get(self._main.ident or 0)  # noqa: SLF001
        return f"it holds up the whole node while it {doing}: not back after {took_s:.0f} s{place(frame)}"

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        due, self._due = self._due, None
        if due is not None and _slot_of(frame) is due[0]:
            raise PluginFailed(due[1], code=BLOCKS, hint=_HINT)


def _limit_s(slot: Slot) -> float:
    return slot.instance.stop_timeout_s if slot.state == "stopping" else slot.instance.start_timeout_s


def _slot_of(frame: FrameType | None) -> Slot | None:
    while frame is not None:
        if frame.f_code is _LIVING:
            slot = frame.f_locals.get("self")
            return slot if isinstance(slot, Slot) else None
        frame = frame.f_back
    return None


def place(frame: FrameType | None) -> str:
    """Return where a plugin stands: the innermost line that is neither Python's own nor ours."""
    first = ""
    here, library = os.path.dirname(os.path.dirname(__file__)), os.path.dirname(os.__file__)  # noqa: PTH120
    while frame is not None and frame.f_code is not _LIVING:
        place = f", at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        first = first or place
        foreign = not frame.f_code.co_filename.startswith((here, "<"))
        if foreign and (
            not frame.f_code.co_filename.startswith(library) or "site-packages" in frame.f_code.co_filename
        ):
            return place
        frame = frame.f_back
    return first
