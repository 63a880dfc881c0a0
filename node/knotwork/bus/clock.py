"""What time is it, for all who share one NATS? The server's time, as its answers tell it; not what this machine believes.

Nodes compare times that others wrote: deadlines, leases, retries, due times. A machine whose clock is wrong would begin
its timers too early or never. So what the rooms call now begins as this machine's time and is put right whenever an
answer of the server shows that it is wrong; in between it goes by a clock that nobody sets, so that setting this
machine's clock moves nothing.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from functools import lru_cache

log = logging.getLogger(__name__)
RIGHT_S = 0.05
"""An error up to here is none: the times of two machines are hardly ever closer, and no lease is that short."""
WORTH_TELLING_S = 1.0
_STEADY = getattr(time, "CLOCK_BOOTTIME", None)  # goes on while the machine sleeps, where there is one


def steady_ns() -> int:
    """Return nanoseconds by a clock that nobody sets; only differences mean something."""
    return time.monotonic_ns() if _STEADY is None else time.clock_gettime_ns(_STEADY)


class Clock:
    """A time that can be put right."""

    def __init__(self) -> None:
        """Begin with what this machine believes."""
        self._base_ns = time.time_ns() - steady_ns()

    def now_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return self._base_ns + steady_ns()

    def at(self, steady: int) -> int:
        """Return a moment of `steady_ns` in nanoseconds since 1970, by what is known of the time now."""
        return self._base_ns + steady

    def heard(self, server_ns: int, asked_ns: int, answered_ns: int) -> None:
        """Take note of the time in an answer of the server, and of when (`steady_ns`) it was asked for and had.

        When in between the answer was made is unknown, so an error below half of that says nothing.
        """
        middle_ns = (asked_ns + answered_ns) // 2
        error_ns = server_ns - (self._base_ns + middle_ns)
        if abs(error_ns) <= RIGHT_S * 1e9 + (answered_ns - asked_ns) / 2:
            return
        self._base_ns += error_ns
        if abs(error_ns) > WORTH_TELLING_S * 1e9:
            behind = "behind" if error_ns > 0 else "ahead of"
            log.warning(
                "this node's time was %.1f s %s that of NATS; it goes by NATS's now", abs(error_ns) / 1e9, behind
            )


SHARED = Clock()
"""The one of this process: it belongs to one NATS."""
now_ns, at = SHARED.now_ns, SHARED.at


def read(text: str) -> int:
    """Return a time as the server writes it in nanoseconds since 1970; 0 for what is none."""
    head, _, rest = text.rstrip("Z").partition(".")
    try:
        return _second(head) * 1_000_000_000 + int(f"{rest:0<9}"[:9] or 0)
    except ValueError:
        return 0


def written(time_ns: int) -> str:
    """Return a time in nanoseconds since 1970 as the server reads one, to the microsecond."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@lru_cache(maxsize=256)  # thousands of messages are stored in one second
def _second(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())
