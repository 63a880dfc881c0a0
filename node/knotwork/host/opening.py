"""Which plugins is a start waiting for? Told from a thread: one that blocks while it opens holds the whole loop up."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.sockets.slot import Slot

LOOK_EVERY_S = 0.2
NAMED_MAX = 5


class Opening:
    """The plugins that are being opened, while a node starts."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """Give what there is to say to `tell`, which may wait and may raise `OSError`."""
        self._tell = tell
        self._lock = threading.Lock()
        self._names: dict[str, None] = {}
        self._over = threading.Event()

    def changed(self, slot: Slot) -> None:
        """Take note of a slot's state; called in the loop."""
        with self._lock:
            self._names.pop(f"{slot.kind}.{slot.id}", None)
            if slot.state == "starting":
                self._names[f"{slot.kind}.{slot.id}"] = None

    def over(self) -> None:
        """End `run`."""
        self._over.set()

    def run(self) -> None:
        """Tell what is being opened, the one begun last first, until it is over; to be called in a thread."""
        while not self._over.wait(LOOK_EVERY_S):
            with self._lock:
                names = list(reversed(self._names))
            if names:
                more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
                with contextlib.suppress(OSError):  # a full disk is no reason not to start
                    self._tell(f"opening {', '.join(names[:NAMED_MAX])}{more}")
