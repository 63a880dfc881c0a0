"""Ten minutes of workflows, one after the other without a pause: nothing grows, and what is over leaves the live stream.

`python -m pytest -n0 -s -m slow tests/bench/test_bench_flow_soak.py`; `KNOTWORK_SOAK_S` makes it shorter.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import psutil
import pytest

from knotwork.bench import flow as bench
from knotwork.bus import streams

SOAK_S = float(os.environ.get("KNOTWORK_SOAK_S", "600"))
AT_ONCE = 300
LOOK_S = 5.0
GROWTH_MAX = 1.5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SOAK_S + 240)]


async def test_nothing_grows_over_ten_minutes_of_runs():
    async with bench.open_engine() as flow:
        begun_s, done, seen = time.monotonic(), 0, []

        async def starter() -> None:
            nonlocal done
            while time.monotonic() - begun_s < SOAK_S:
                await bench._one(flow, "chain")
                done += 1

        async def look() -> None:
            while True:
                await asyncio.sleep(LOOK_S)  # what it looks at changes slowly
                live = (await streams.api(flow.connection, "STREAM.INFO.FACTS"))["state"]["messages"]
                server = [one for one in psutil.Process().children(recursive=True) if "nats-server" in one.name()]
                sizes = [psutil.Process().memory_info().rss, sum(one.memory_info().rss for one in server)]
                seen.append((time.monotonic() - begun_s, done, live, *(size / 1e6 for size in sizes)))

        async with asyncio.TaskGroup() as group:
            looking = group.create_task(look())
            async with asyncio.TaskGroup() as starters:
                for _ in range(AT_ONCE):
                    starters.create_task(starter())
            took_s = time.monotonic() - begun_s
            async with asyncio.timeout(120):
                while (await streams.api(flow.connection, "STREAM.INFO.FACTS"))["state"]["messages"]:
                    await asyncio.sleep(0.05)
            looking.cancel()
    early = [one for one in seen if one[0] < SOAK_S / 5]
    for at_s, count, live, node_mb, server_mb in seen[:: max(1, len(seen) // 20)]:
        sys.stderr.write(
            f"{at_s:6.0f} s  {count:>8} runs  {live:>6} facts  node {node_mb:.0f} MB  server {server_mb:.0f} MB\n"
        )
    sys.stderr.write(f"{done} runs, {done / took_s:.0f} a second, {bench.CHAIN * done / took_s:.0f} steps a second\n")
    assert max(one[3] for one in seen) < GROWTH_MAX * max(one[3] for one in early)
