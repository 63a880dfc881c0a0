"""What becomes of an answer that cannot be sent yet? It waits a while for room or for NATS, and is never dropped in silence."""

from __future__ import annotations

from knotwork.bus import clock, way
from knotwork.sdk.errors import Busy, KnotworkError, TooLarge

WAIT_S = 10.0
POLL_S, POLL_MAX_S = 0.02, 0.25


def is_full(error: KnotworkError) -> bool:
    """Return whether something was not sent because too much waits to be sent."""
    return error.code == "bus.buffer_full"


def keep_s(timeout_s: float | None, arrived_ns: int) -> float:
    """Return for how many seconds an answer is kept while NATS is away: as long as the caller waits, within reason."""
    if timeout_s is None:
        return way.KEEP_S
    waited_s = (clock.now_ns() - arrived_ns) / 1e9
    return max(0.0, min(way.KEEP_S, timeout_s - waited_s))


def too_large(agent: str, why: TooLarge) -> TooLarge:
    """Return the error a call ends with whose output does not fit into a message: `why`."""
    return TooLarge(
        f"The output of {agent} does not fit into the answer of a call. {why.message}",
        code="bus.message_too_large",
        hint="Give it the work as a task, whose output may be larger, or let it answer with an address.",
        detail={"agent": agent},
    )


def too_slow() -> Busy:
    """Return the error a call ends with whose reader does not keep up."""
    return Busy(
        "The reader is too slow: a part of the answer could not be sent.",
        code="call.reader_too_slow",
        hint="Read faster, or ask for less output.",
    )
