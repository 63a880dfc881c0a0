"""What was acknowledged survives: a killed server, a node that vanished in the middle of it. And a hundred at a time."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest
from tests.integration.crew.conftest import ME, part, soon
from tests.integration.work.conftest import until

from knotwork.bus import reading, subjects
from knotwork.crew import settling
from knotwork.crew.plan import PARTS_MAX
from knotwork.crew.records import Round, Synthesis
from knotwork.crew.reporting import Report
from knotwork.crew.room import Spawn
from knotwork.crew.starting import run_of
from knotwork.crew.store import key
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import Invalid, KnotworkError, TooLarge
from knotwork.trust.who import Who


async def test_plans_checkpoints_and_results_survive_a_killed_server(nodes):
    node = await nodes.here()
    planned = await node.plan(part("p"))
    view = await node.spawn(part("a"), part("b", "a"))
    name = view.record.id
    found, one = await node.claim("one"), Who("a-one", "one", "default", "me")
    await node.crew.reporting.report(name, Report("a", percent=30, text="begun", tokens=7), one)
    await node.work.claims.complete(found.token, "A")
    before = node.flow.connection.reconnects
    await nodes.bench.kill_server()
    await until(lambda: node.flow.connection.reconnects > before)
    assert (await node.crew.store.get(planned.id)).parts == (part("p"),)
    view = await node.is_in(name, "a", "completed")
    assert (view.parts["a"].text, view.parts["a"].used.tokens) == ("begun", 7)
    assert await node.do("two", "B") == "b"
    await node.reaches(name, "complete")
    assert await node.output(name) == "## The a\n\nA\n\n## The b\n\nB\n"


async def test_for_results_that_are_too_large_together_stand_their_digests(nodes, monkeypatch):
    monkeypatch.setattr(settling, "LOADED_MAX_BYTES", 2_000_000)
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b"))).record.id
    for who in ("one", "two"):
        await node.do(who, {who: "x" * 1_500_000})
    view = await node.reaches(name, "complete")
    blob = view.parts["b"].blob
    assert len(await node.output(name)) < 2_000_000
    assert blob in await node.output(name)
    _, made = await node.crew.steering.synthesize(name, Synthesis("merge"), ME)
    assert (made.conflicts, (await node.output(name))["b"]) == ((), {"blob": blob})


async def test_what_cannot_be_put_together_has_failed_and_can_be_done_in_another_way(nodes, monkeypatch):
    node = await nodes.here()
    name = (await node.spawn(part("a"))).record.id

    kept = node.crew.values.keep

    async def keep(value: bytes) -> tuple[bytes, str]:
        if b"## The a" not in value:
            return await kept(value)
        raise TooLarge("It has 80000052 bytes; 67108864 can be kept.", code="blob.too_large")

    with monkeypatch.context() as patched:
        patched.setattr(node.crew.values, "keep", keep)
        await node.do("one", "A")
        view = await node.reaches(name, "failed")
    assert (view.record.error["code"], view.parts["a"].state) == ("blob.too_large", "completed")
    view, _ = await node.crew.steering.synthesize(name, Synthesis("merge"), ME)
    assert (view.phase, await node.output(name)) == ("complete", {"a": "A"})


async def test_an_agent_is_given_as_many_results_as_a_plan_can_have(nodes):
    node = await nodes.here(do={"concurrency": 50})
    parts = [part(f"p{number}") for number in range(PARTS_MAX)]
    made = await node.plan(*parts, task="x" * 25_000)  # what is done gives its input back, with the task in it twice
    await node.crew.spawn(made.id, Spawn(synthesis=Synthesis("agent", "sum")), ME)
    found = await node.claim("one", "sum")
    told = await node.crew.values.read(bytes(found.task.input), found.task.blob)
    assert list(json.loads(told)["input"]["results"]) == [one.id for one in parts]
    assert len(told) > 8_000_000
    await node.work.claims.complete(found.token, "all")
    await node.reaches(made.id, "complete")


async def test_orchestrations_end_though_the_server_is_killed_again_and_again(nodes):
    node = await nodes.here(do={"concurrency": 10})
    names: list[str] = []
    async with asyncio.TaskGroup() as group:
        planning = group.create_task(_plan(node, names, 30))
        for count in (10, 20, 30):
            await until(lambda count=count: len(names) >= count)
            await nodes.bench.kill_server()
        await planning
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_spawned(node, name))
        await until(lambda: any(phase != "spawning" for _, phase in node.told))  # some are in the midst of it
        await nodes.bench.kill_server()
    for name in names:
        await until(lambda name=name: _complete(node, name))
        assert len((await node.view(name)).runs) == 1


async def _plan(node, names: list[str], count: int) -> None:
    while len(names) < count:
        try:
            names.append((await node.plan(part("a"), part("b", "a"))).id)
        except KnotworkError:  # the server is away: nothing was promised
            await asyncio.sleep(0.05)


async def _spawned(node, name: str) -> None:
    while True:
        try:
            await node.crew.spawn(name, Spawn(), ME)
        except KnotworkError as error:
            assert error.code != "crew.not_found", "what was acknowledged is gone"
            await asyncio.sleep(0.05)
        else:
            return


async def _complete(node, name: str) -> bool:
    try:
        return (await node.view(name)).phase == "complete"
    except KnotworkError:
        return False


async def test_what_a_node_began_and_did_not_finish_another_carries_on(nodes):
    first = await nodes.here("first")
    second = await nodes.here("second")
    planned = await first.plan(part("a"))

    def spawned(one):  # the last thing that the first did: it is on record, and no run was started
        begun = Round(run_of(one.id, 0), ("a",), (), time.time_ns())
        return msgspec.structs.replace(one, phase="spawning", rounds=(begun,), node="first", spawned_ns=time.time_ns())

    await first.stack.aclose()
    await second.crew.store.change(planned.id, spawned)
    assert await second.do("one", "A") == "a"
    await second.reaches(planned.id, "complete")
    assert await second.output(planned.id) == "## The a\n\nA\n"


async def test_an_end_that_nobody_saw_is_seen_by_who_comes_next(nodes):
    first = await nodes.here("first")
    view = await first.spawn(part("a"))
    name = view.record.id
    first.crew.keeping.runs.clear()  # as if it had died at this moment
    first.crew.keeping.live.clear()
    await first.do("one", "A")
    await until(lambda: _ended(first, view))
    assert (await first.view(name)).phase in ("collection", "complete")
    second = await nodes.here("second")
    await second.reaches(name, "complete")


async def _ended(node, view) -> bool:
    return await node.flow.runs.over(view.record.rounds[0].run)


async def test_garbage_in_the_bucket_harms_nobody(nodes):
    node = await nodes.here()
    await node.crew.store.bucket.put(key("o123456789"), b"{garbage")
    await node.crew.store.bucket.put("r.o123456789", b"\xff")
    await node.crew.store.bucket.put("strange", b"1")
    view = await node.spawn(part("a"))
    assert [one.id for one in await node.crew.store.all()] == [view.record.id]
    await node.do("one")
    await node.reaches(view.record.id, "complete")
    with pytest.raises(Invalid) as bad:
        await node.crew.store.get("o123456789")
    assert bad.value.code == "crew.bad_record"


async def test_a_hundred_at_a_time(nodes):
    node = await nodes.here(do={"concurrency": 50})
    names = []
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            plans = [group.create_task(node.plan(part("a"), part("b"), part("c", "a", "b"))) for _ in range(10)]
        names += [one.result().id for one in plans]
    assert len(set(names)) == 100
    async with asyncio.TaskGroup() as group:
        spawns = [group.create_task(node.crew.spawn(name, Spawn(), ME)) for name in names]
    assert all(new for _, new in (one.result() for one in spawns))
    for name in names:
        view = await node.reaches(name, "complete")
        assert {one.agent for one in view.parts.values()} == {"do"}
    assert len([one for one in await node.crew.store.all() if one.phase == "complete"]) == 100
    for name in names:
        phases = [phase for one, phase in node.told if one == name]
        assert phases.count("complete") == 1


async def test_the_largest_plan_is_carried_out_and_put_together_by_an_agent(nodes):
    node = await nodes.here()
    ids = [f"part-{n:03d}-" + "x" * 23 for n in range(PARTS_MAX)]
    parts = [part(name, *ids[max(0, n - n % 20 - 20) : n - n % 20][:10]) for n, name in enumerate(ids)]
    view = await node.spawn(*parts, synthesis=Synthesis("agent", capability="write"))
    worker = AgentRecord("worker", ("do",), concurrency=20, attached=True)
    left = PARTS_MAX
    while left:
        claims = await node.work.claims.claim(worker, lease_s=60, wait_s=30, held_max=1000)
        for one in claims:
            await node.work.claims.complete(one.token, one.task.step)
        left -= len(claims)
    found = await node.claim("writer", "write")
    told = json.loads(await node.work.values.input_of(found.task))
    assert told["input"]["results"] == {name: name for name in ids}
    assert f"--- {ids[199]} ---\n{ids[199]}\n" in told["prompt"]
    await node.work.claims.complete(found.token, "all of it")
    await node.reaches(view.record.id, "complete")
    assert await node.output(view.record.id) == "all of it"


async def test_a_node_that_comes_back_reads_few_of_many_at_a_time(nodes, monkeypatch):
    """Of pages of 8 MiB no more than NATS lets wait for one client: it was cut off again and again, for ever."""
    first = await nodes.here("first")
    names = [(await first.spawn(part("a"))).record.id for _ in range(12)]
    await first.stack.aclose()
    gather, now, most, done = reading._gather, 0, 0, asyncio.Event()

    async def counted(connection: Any, stream: str, body: dict[str, Any], timeout_s: float) -> Any:
        nonlocal now, most
        if stream != subjects.bucket_stream(subjects.CREW_CHECKPOINTS):
            return await gather(connection, stream, body, timeout_s)
        now, seen = now + 1, body["next_by_subj"]
        most = max(most, now)
        try:
            for _ in range(20):  # turns of the loop in which the others could begin
                await asyncio.sleep(0)
            return await gather(connection, stream, body, timeout_s)
        finally:
            now -= 1
            left.discard(next(one for one in names if one in seen))
            if not left:
                done.set()

    left = {*names}
    monkeypatch.setattr(reading, "_gather", counted)
    second = await nodes.here("second")
    await soon(done.wait())
    await second.crew.looking.views([await second.crew.store.get(one) for one in names])
    assert most * reading.BATCH_MAX_BYTES < 64 * 1024 * 1024
