"""What every peer that answers calls is measured with: 100 bytes there and back, one at a time and 64 in flight.

A peer hands in `call()`, which makes one call to another process and awaits the answer; the figures are those of
`knotwork bench invoke`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

PAYLOAD = b'"' + b"x" * 98 + b'"'
AT_ONCE, ROUNDS, SLICE_S, READY_S = 64, 3, 2.0, 30.0
SERVE = "serve"
"""The word that makes a peer the side that answers."""

Call = Callable[[], Awaitable[object]]


async def measure(call: Call) -> None:
    """Print the figures as one JSON object, once the other side answers."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                await call()
            except Exception:  # each library has its own for "nobody is there yet"
                await asyncio.sleep(0.05)
            else:
                break
    alone, together = [], []
    for _ in range(ROUNDS):
        alone.append(await _alone(call))
        together.append(await _together(call))
    figures = {"p50_ms": round(statistics.median(alone), 4), "calls_per_s": round(statistics.median(together))}
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


async def _alone(call: Call) -> float:
    took = []
    end_s = time.perf_counter() + SLICE_S
    while (start_s := time.perf_counter()) < end_s:
        await call()
        took.append(time.perf_counter() - start_s)
    return 1000 * statistics.median(took)


async def _together(call: Call) -> float:
    done, start_s = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < start_s + SLICE_S:
            await call()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(caller())
    return done / (time.perf_counter() - start_s)
