"""What every peer is measured with: a chain of 5 steps alone, chains together, a fan-out of 50 with a join.

A peer hands in `start(graph)`, which runs one workflow to its end; the figures are those of `knotwork bench flow`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

CHAIN, FAN = 5, 50


async def measure(start: Callable[[str], Awaitable[object]], *, runs: int, at_once: int, alone: int) -> None:
    """Print the figures as one JSON object; the first few runs are not counted."""
    await _alone(start, "chain", 3)
    figures = {"chain_p50_ms": await _alone(start, "chain", alone), "fanout_p50_ms": await _alone(start, "fan", alone)}
    left = iter(range(runs))

    async def starter() -> None:
        for _ in left:
            await start("chain")

    start_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(starter())
    per_s = runs / (time.perf_counter() - start_s)
    figures |= {"runs_per_s": round(per_s, 1), "steps_per_s": round(CHAIN * per_s)}
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


async def _alone(start: Callable[[str], Awaitable[object]], graph: str, count: int) -> float:
    took = []
    for _ in range(count):
        start_s = time.perf_counter()
        await start(graph)
        took.append(1000 * (time.perf_counter() - start_s))
    return round(statistics.median(took), 2)
