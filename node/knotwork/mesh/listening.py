"""How long has nobody been heard? By a clock that stands still while this process does.

Others are missed when nothing was heard of them for long enough. A process that was stopped, starved of its core or held
up by a plugin has heard nobody: what was told meanwhile lies in its sockets, and is read right after. Such time is
nobody's silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_S = 1.0
"""How often `tick` is to be called, in seconds."""
LATE_S = 0.5
"""How much later it may come before that counts as standing still."""


class Listening:
    """Seconds in which others could be heard; `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Listen from now on."""
        self._clock = clock
        self._ticked_s = clock()
        self._lost_s = 0.0

    def now_s(self) -> float:
        """Return the time of now: no later than the next tick is due, whatever the clock says."""
        return min(self._clock(), self._ticked_s + EVERY_S + LATE_S) - self._lost_s

    def tick(self) -> None:
        """Take note that this process runs."""
        now_s = self._clock()
        self._lost_s += max(0.0, now_s - self._ticked_s - EVERY_S - LATE_S)
        self._ticked_s = now_s
