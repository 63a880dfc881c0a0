"""Half a million tasks leave nothing behind: memory of node and server stays flat, and streams forget what is finished.

It takes minutes: `python -m pytest -n0 -s -m slow tests/bench/test_bench_soak.py`. It prints what it saw.
"""

from __future__ import annotations

import asyncio
import sys
import time

import psutil
import pytest

from knotwork.bench import tasks, view
from knotwork.bus import streams

COUNT, ROUND = 500_000, 10_000
WARM = 150_000
"""By then everything that is kept for a while is as large as it gets: an outcome stays in FACTS for 20 s after it was packed."""
NODE_MAX_MB, SERVER_MAX_MB = 60.0, 120.0
FORGET_S = 120.0


def _mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


async def _soak() -> None:
    async with (
        tasks.open_server(sync=True) as (url, seed),
        tasks.open_node(url, seed) as (connection, work),
        view.open_one(connection) as (past, viewing),
    ):
        node = psutil.Process()
        server = next(one for one in node.children(recursive=True) if "nats-server" in one.name())

        async def stored(stream: str) -> int:
            return int((await streams.api(connection, f"STREAM.INFO.{stream}"))["state"]["messages"])

        sizes: list[tuple[float, float, float]] = []
        began_s = time.monotonic()
        for done in range(0, COUNT, ROUND):
            rate = await tasks.drain(work, ROUND)
            sizes.append((_mb(node), _mb(server), _mb(viewing)))
            if (done + ROUND) % 50_000 == 0:
                left = [await stored(stream) for stream in ("TASKS", "FACTS", "ARCHIVE")]
                told = "node {:.0f} MB, server {:.0f} MB, view {:.0f} MB".format(*sizes[-1])
                sys.stderr.write(f"{done + ROUND}: {rate:.0f}/s, {told}, TASKS FACTS ARCHIVE {left}\n")
        sys.stderr.write(f"{COUNT} tasks in {time.monotonic() - began_s:.0f} s\n")
        ended_s = time.monotonic()
        async with asyncio.timeout(FORGET_S):
            while await stored("TASKS"):
                await asyncio.sleep(0.1)  # a pause between two looks
            sys.stderr.write(f"TASKS is empty {time.monotonic() - ended_s:.1f} s after the last end\n")
            while await stored("FACTS") > ROUND:
                await asyncio.sleep(0.5)  # likewise
        sys.stderr.write(f"FACTS is packed {time.monotonic() - ended_s:.1f} s after it\n")
        await past.synced(FORGET_S)
        assert (await past.counts(("state",)))["completed",] >= COUNT
        for name, place, limit_mb in (("node", 0, NODE_MAX_MB), ("server", 1, SERVER_MAX_MB), ("view", 2, NODE_MAX_MB)):
            warm, later = (
                max(size[place] for size in part) for part in (sizes[: WARM // ROUND], sizes[WARM // ROUND :])
            )
            assert later - warm < limit_mb, f"{name}: {warm:.0f} MB in the beginning, {later:.0f} MB later"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_half_a_million_tasks_leave_nothing_behind():
    import uvloop  # what a node runs on

    uvloop.run(_soak())
