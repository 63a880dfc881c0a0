"""How much of the past is kept: by age and size, changed while the node runs."""

from __future__ import annotations

import contextlib

from tests.integration.flow.conftest import define, ended, flow_node, start
from tests.integration.work.conftest import until

from knotwork.bus import streams
from knotwork.flow import history, listing
from knotwork.flow.history import Keeps
from knotwork.flow.room import open_flow


async def config(flow) -> tuple[int, int]:
    told = (await streams.api(flow.connection, "STREAM.INFO.HISTORY"))["config"]
    return int(told["max_age"]) // 10**9, int(told["max_bytes"])


async def test_the_past_is_kept_as_long_and_as_large_as_is_said_now(flows, monkeypatch):
    monkeypatch.setattr(history, "KEEP_S", 0.05)
    wanted = [Keeps(3600.0)]
    bench = flows.bench
    async with contextlib.AsyncExitStack() as stack:
        opened = flow_node.work_node.open_node(bench.url, bench.seed, "here", {"do": {"concurrency": 5}}, lease_s=2.0)
        work = await stack.enter_async_context(opened)
        flow = await stack.enter_async_context(
            open_flow(work.recorder._connection, work, node="here", keeps=lambda: wanted[0])
        )
        await flow.shards.settled()
        assert await config(flow) == (3600, -1)
        await define(flow, steps={"s": {"capability": "do"}})
        runs = [await start(flow, "x" * 20_000) for _ in range(12)]
        for run in runs:
            assert (await ended(flow, run)).state == "completed"
        await until(lambda: _kept(flow, runs, 12))

        wanted[0] = Keeps(3600.0, 400 * 1024)
        await until(lambda: _is(config(flow), (3600, 400 * 1024)))
        await until(lambda: _fewer(flow, 12))
        assert (await flow.runs.look(runs[-1])).finish is not None, "the oldest go first"

        wanted[0] = Keeps(1.0)
        await until(lambda: _is(config(flow), (1, -1)))
        await until(lambda: _kept(flow, runs, 0))
        assert await listing.runs(flow.connection) == []


async def _kept(flow, runs, count) -> bool:
    return sum([await history.is_kept(flow.connection, run) for run in runs]) == count


async def _fewer(flow, count) -> bool:
    return 0 < len(await listing.runs(flow.connection)) < count


async def _is(found, wanted) -> bool:
    return await found == wanted
