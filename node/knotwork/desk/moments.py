"""How is a moment written for people and other programs? In UTC, to the millisecond."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

from knotwork.bus import clock


def rfc3339(time_ns: int | None) -> str:
    """Return a time (nanoseconds since 1970; None is now) as RFC 3339 in UTC, to the millisecond."""
    second, rest_ns = divmod(clock.now_ns() if time_ns is None else time_ns, 1_000_000_000)
    return f"{_second(second)}.{rest_ns // 1_000_000:03d}Z"


def moment(time_ns: int) -> str:
    """Return a time in the same way, "" for none (0)."""
    return rfc3339(time_ns) if time_ns else ""


@functools.lru_cache(maxsize=1024)
def _second(second: int) -> str:
    """Return a whole second; times that are told together are often of the same few."""
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds")[:19]
