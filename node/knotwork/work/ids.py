"""What is a new task called? An id that nobody else gives."""

from __future__ import annotations

import secrets

from knotwork.bus import clock


def new_run(now_ns: int | None = None) -> str:
    """Return an id that sorts by time: `t`, the milliseconds since 1970 in hex, and 64 random bits."""
    millis = (clock.now_ns() if now_ns is None else now_ns) // 1_000_000
    return f"t{millis:012x}{secrets.token_hex(8)}"
