"""How much of the past is kept, by age and size, changed while the node runs; and definitions that cannot be followed."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from tests.integration.flow.conftest import define, ended, flow_node, start
from tests.integration.work.conftest import until

from knotwork.bus import streams
from knotwork.flow import history, listing
from knotwork.flow.definitions import Named, digest_of
from knotwork.flow.history import Keeps
from knotwork.flow.room import open_flow
from knotwork.host.flows import FlowDesk
from knotwork.sdk.errors import Invalid, NotFound


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
        await until(
            lambda: _forgotten(flow, runs[0])
        )  # also for those who ask for its end, its events, or wish something
        for wish in (flow.runs.ended(runs[0]), flow.runs.cancel(runs[0]), flow.runs.fork(runs[0])):
            with pytest.raises(NotFound) as caught:
                await wish
            assert (caught.value.code, "kept for 1 s" in caught.value.hint) == ("flow.forgotten", True)
        with pytest.raises(NotFound) as caught:
            await flow.runs.look("w" + "z" * 22)
        assert caught.value.code == "flow.no_run"


async def _forgotten(flow, run) -> bool:
    with pytest.raises(NotFound) as caught:
        await flow.runs.look(run)
    return caught.value.code == "flow.forgotten"


async def test_a_definition_of_another_version_can_be_read_and_not_started(flows):
    flow = await flows.here()
    await define(flow, steps={"s": {"kind": "sleep", "duration": 0}})
    text = json.dumps({"name": "newer", "description": "What will be", "steps": {
        "a": {"kind": "sleep", "duration": 0, "when": "tomorrow(input)"}}}).encode()  # fmt: skip
    digest = digest_of(text)
    await flow.definitions._bucket.put(f"def.{digest}", text)
    await flow.definitions._bucket.put("name.newer", msgspec.json.encode(Named([digest])))
    desk = FlowDesk(flow, None, lambda: "")
    rows = {one.name: one for one in await desk.workflows()}
    assert (rows["w"].problem, rows["newer"].description, rows["newer"].steps) == ("", "What will be", 1)
    assert "there is no function tomorrow()" in rows["newer"].problem
    shown = await desk.workflow("newer")
    assert (shown.definition, shown.digest) == (json.loads(text), digest)
    for asked in (start(flow, workflow="newer"), start(flow, workflow=digest), desk.drawn("newer", "ascii")):
        with pytest.raises(Invalid, match="there is no function tomorrow") as caught:
            await asked
        assert caught.value.code == "flow.not_here"
    assert (await ended(flow, await start(flow))).state == "completed"


async def _kept(flow, runs, count) -> bool:
    return sum([await history.is_kept(flow.connection, run) for run in runs]) == count


async def _fewer(flow, count) -> bool:
    return 0 < len(await listing.runs(flow.connection)) < count


async def _is(found, wanted) -> bool:
    return await found == wanted
