"""What becomes of an answer there is no room for yet? It waits a while for the reader, and is never dropped in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.sdk.errors import Busy, KnotworkError, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.frames import Kind

WAIT_S = 10.0
POLL_S = 0.05


def is_full(error: KnotworkError) -> bool:
    """Return whether something was not sent because too much waits to be sent."""
    return error.code == "bus.buffer_full"


def comes_again(error: Unreachable, kind: Kind) -> bool:
    """Return whether a frame that was not sent must be tried again: without it the answer would have a hole."""
    return kind == "chunk" or (is_full(error) and kind in ("result", "continue", "error"))


def too_slow() -> Busy:
    """Return the error a call ends with whose reader does not keep up."""
    return Busy(
        "The reader is too slow: a part of the answer could not be sent.",
        code="call.reader_too_slow",
        hint="Read faster, or ask for less output.",
    )
