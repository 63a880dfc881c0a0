"""How much of the past is kept, by age and size, changed while the node runs; and definitions that cannot be followed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import types

import msgspec
import pytest
from tests.integration.flow.conftest import define, ended, flow_node, start
from tests.integration.work.conftest import until

from knotwork.bus import publisher, streams
from knotwork.desk.runs.desk import FlowDesk
from knotwork.flow import facts, history, listing
from knotwork.flow.definitions import Named, digest_of
from knotwork.flow.history import Keeps
from knotwork.flow.room import open_flow
from knotwork.flow.runs import keyed_run, new_run
from knotwork.ops.flow_ports import RunFilter
from knotwork.ops.replies import Progress
from knotwork.ops.run_copies import WRITTEN
from knotwork.ops.run_words import read_cursor
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
        for never, code in ((new_run(time.time_ns()), "flow.no_run"), (keyed_run("w", "x"), "flow.forgotten")):
            with pytest.raises(NotFound) as caught:
                await flow.runs.look(never)
            assert caught.value.code == code


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


async def test_a_sub_workflow_that_is_not_there_is_warned_of(flows):
    flow = await flows.here()
    await define(flow, name="there", steps={"s": {"kind": "sleep", "duration": 0}})
    desk = FlowDesk(flow, None, lambda: "")
    starts = {"capability": "x", "children": {"workflows": ["there", "gone"]}}
    steps = {name: {"kind": "workflow", "workflow": name} for name in ("there", "later", "self")} | {"w": starts}
    verdict = await desk.check({"name": "self", "steps": steps})
    assert (verdict.ok, [one.partition(";")[0] for one in verdict.warnings]) == (
        True, ["steps.later: the workflow 'later' is not there", "steps.w: the workflow 'gone' is not there"]
    )  # fmt: skip
    assert (await desk.register({"name": "self", "steps": steps})).warnings == verdict.warnings
    await define(flow, name="later", steps={"s": {"kind": "sleep", "duration": 0}})
    assert [one[:8] for one in (await desk.check({"name": "self", "steps": steps})).warnings] == ["steps.w:"]


async def test_the_example_of_an_import_is_a_whole_run(flows):
    flow = await flows.here()
    desk = FlowDesk(flow, None, lambda: "")
    assert (await desk.imported(WRITTEN)).changed
    assert (await desk.replay(WRITTEN["id"])).same


async def _kept(flow, runs, count) -> bool:
    return sum([await history.is_kept(flow.connection, run) for run in runs]) == count


async def _fewer(flow, count) -> bool:
    return 0 < len(await listing.runs(flow.connection)) < count


async def _is(found, wanted) -> bool:
    return await found == wanted


NEWER = {"name": "newer", "steps": {"a": {"kind": "sleep", "duration": 0, "when": "tomorrow(input)"}}}


async def of_newer(flow, **more) -> tuple[str, str]:
    """Start a run of a definition that this version cannot follow, as a newer node would; return it and its digest."""
    text = json.dumps(NEWER).encode()
    digest = digest_of(text)
    await flow.definitions._bucket.put(f"def.{digest}", text)
    run = new_run(time.time_ns())
    begun = facts.Start(
        "newer", digest, msgspec.Raw(b'{"n":5}'), by="ann", labels={"team": "x"}, started_ns=time.time_ns()
    )
    await put(flow, run, "start", **msgspec.json.decode(msgspec.json.encode(begun)), **more)
    return run, digest


async def put(flow, run, *what, **body) -> None:
    await publisher.publish(flow.connection, facts.subject(run, *what), json.dumps(body).encode())


async def test_a_run_that_only_newer_nodes_can_follow_is_shown_as_far_as_its_facts_tell(flows):
    flow = await flows.here()
    run, digest = await of_newer(flow)
    view = types.SimpleNamespace(ended_runs=lambda **_: asyncio.sleep(0, []))
    desk = FlowDesk(flow, view, lambda: "")
    await put(flow, run, "started", "b", "0", "1", "1", node="n2")
    await put(flow, run, "outcome", "a", "0", "1", state="completed", output=[1], started_ns=5, ended_ns=6)
    await put(flow, run, "pause", "p1", by="ann")

    shown = await desk.run(run)
    assert (shown.id, shown.workflow, shown.state, shown.by, shown.labels) == (
        run,
        "newer",
        "paused",
        "ann",
        {"team": "x"},
    )
    assert (shown.input, shown.digest, shown.facts, bool(shown.started_at)) == ({"n": 5}, digest, 4, True)
    assert [(one.id, one.state, one.output) for one in shown.progress] == [("b", "open", None), ("a", "completed", [1])]
    assert "there is no function tomorrow()" in shown.problem
    assert "ask a node of the version that started it" in shown.problem
    assert (await desk.run(run, up_to=3)).state == "running"
    assert [one.what for one in await desk.events(run)] == ["start", "started", "outcome", "pause"]
    why = await desk.why(run)
    assert [one.step for one in why.waits] == ["", "b", ""]
    assert "a node that can follow it" in why.waits[0].what
    (listed,) = (await desk.runs(RunFilter(), 10)).runs
    assert (listed.id, listed.state, listed.problem) == (run, "paused", shown.problem)
    with pytest.raises(Invalid, match="tomorrow") as caught:  # what needs the definition says so
        await flow.runs.fork(run)
    assert caught.value.code == "flow.not_here"

    await flow.runs.cancel(run)
    assert (await desk.run(run)).state == "stopping"
    await put(flow, run, "ended", state="failed", error={"code": "x.y", "message": "no"}, ended_ns=time.time_ns())
    over = await desk.ended(run, 30.0)
    assert (over.state, over.code, over.error.message) == ("failed", "x.y", "no")
    assert (await desk.why(run)).waits == []
    pieces = [piece async for piece in desk.watch(run, 30.0, tree=True)]
    assert next(piece.text for piece in pieces if isinstance(piece, Progress)) == "start"
    (written,) = [piece async for piece in desk.exported(run)]
    assert (written.definition, len(written.facts)) == (NEWER, 6)


async def test_a_list_goes_on_behind_runs_that_are_hidden(flows):
    flow = await flows.here()
    past = [
        {
            **dict.fromkeys(("workflow", "digest", "submitter", "trigger", "first", "next", "code", "message"), ""),
            "id": f"w{number}", "state": "completed", "number": 0, "started_ns": number, "ended_ns": number,
            "labels": {"orchestration": "o1"} if number % 4 else {},
        }
        for number in range(40, 0, -1)
    ]  # fmt: skip

    asked: list[int] = []

    async def ended_runs(*, limit, below, **_):
        asked.append(limit)
        return [one for one in past if below is None or (one["started_ns"], one["id"]) < below][:limit]

    seen: list[str] = []
    cursor = None
    while cursor is None or cursor:
        wanted = RunFilter(below=read_cursor(cursor) if cursor else None)
        listed = await FlowDesk(flow, types.SimpleNamespace(ended_runs=ended_runs), str, ("x",)).runs(wanted, 3)
        cursor, seen = listed.next, seen + [one.id for one in listed.runs]
    assert seen == [f"w{number}" for number in range(40, 0, -4)]
    asked.clear()
    past[:] = [one for one in past if one["labels"]]
    assert (
        await FlowDesk(flow, types.SimpleNamespace(ended_runs=ended_runs), str, ("x",)).runs(RunFilter(), 1)
    ).runs == []
    assert len(asked) < len(past) / 4, "it is not gone through one by one"


async def test_a_fact_of_a_newer_version_is_told_and_not_passed_over_in_silence(flows):
    flow = await flows.here()
    await define(flow, steps={"s": {"kind": "wait_for_signal", "signal": "go"}})
    run = await start(flow)
    await put(flow, run, "teleported", "s", by="x")
    desk = FlowDesk(flow, None, lambda: "")
    shown = await desk.run(run)
    assert (shown.state, shown.progress[0].state) == ("running", "open")
    assert "kinds that this version does not know: teleported" in shown.problem
    assert [one.what for one in await desk.events(run)] == ["start", "teleported"]
    assert "a node that can follow it" in (await desk.why(run)).waits[0].what


async def test_a_run_whose_start_cannot_be_read_has_its_events(flows):
    flow = await flows.here()
    run, _ = await of_newer(flow, priority=11)
    desk = FlowDesk(flow, None, lambda: "")
    with pytest.raises(Invalid, match="cannot be read by this version") as caught:
        await desk.run(run)
    assert caught.value.code == "flow.not_here"
    assert [one.what for one in await desk.events(run)] == ["start"]
