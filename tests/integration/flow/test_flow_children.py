"""What workers start under a budget: on a real server, by agents that came in, over several nodes, with crashes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from types import SimpleNamespace

import msgspec
import pytest
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.bus import clock
from knotwork.desk.runs import rows as flow_rows
from knotwork.flow import children, facts
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import Conflict, Denied, NotFound

DO = {"do": {"concurrency": 20}}
GUEST = AgentRecord("guest", ("lead",), concurrency=1, attached=True)


async def held(flow):
    (one,) = await flow.runs._work.claims.claim(GUEST, lease_s=60, wait_s=30, held_max=20)
    return one


async def leading(flow, value=None, **children):
    """Start a run whose one step is in our hands."""
    await define(flow, name="piece", steps={"p": {"capability": "do"}})
    grant = {"workflows": ["piece"], "capabilities": ["do"], **children}
    await define(flow, name="lead", steps={"a": {"capability": "lead", "children": grant}})
    run = await start(flow, value, "lead")
    return run, await held(flow)


async def test_children_are_started_once_seen_and_waited_for(flows):
    flow = await flows.here(**DO)
    run, one = await leading(flow)
    first, new, left = await flow.children.spawn(one.token, workflow="piece", capability="", value=b"7", key="k")
    assert (first.run, first.step, new, left) == (run, "a--c1", True, 9)
    again = await flow.children.spawn(one.token, workflow="piece", capability="", value=b"7", key="k")
    assert again == (first, False, 9)
    with pytest.raises(Conflict):
        await flow.children.spawn(one.token, workflow="piece", capability="", value=b"8", key="k")
    second, _, _ = await flow.children.spawn(one.token, workflow="", capability="do", value=b'{"x": 1}')
    child = facts.child_run(run, first.step)
    assert output(await ended(flow, child)) == 7
    await until(lambda: _known(flow, run, 2))
    shown = flow_rows.info(await flow.runs.look(run))
    assert [(kid.step, kid.what, kid.run, kid.state, kid.output) for kid in shown.children] == [
        ("a--c1", "piece", child, "completed", 7), ("a--c2", "do", "", "completed", {"x": 1}),
    ]  # fmt: skip
    assert (await flow.runs.look(child)).start.tree == facts.Parent(run, "a")
    slow, _, _ = await flow.children.spawn(one.token, workflow="", capability="do", value=b'{"sleep": 0.5}')
    await flow.runs._work.claims.complete(one.token, "done")
    assert output(await ended(flow, run)) == "done"
    end = (await flow.runs.look(run)).run.spawned[slow.step].end
    assert end is not None
    assert (second.step, end.state) == ("a--c2", "completed")


async def _known(flow, run, count) -> bool:
    kids = (await flow.runs.look(run)).run.spawned.values()
    return sum(kid.end is not None for kid in kids) == count


async def test_what_is_not_granted_is_denied(flows):
    flow = await flows.here(**DO)
    _, one = await leading(flow)
    for workflow, capability in (("lead", ""), ("", "secret"), ("nobody", "")):
        with pytest.raises(Denied) as refused:
            await flow.children.spawn(one.token, workflow=workflow, capability=capability, value=b"1")
        assert refused.value.code == "flow.no_grant"
    _, short = await leading(flow, seconds=0.2)
    await asyncio.sleep(0.3)  # longer than the budget holds
    with pytest.raises(Denied) as refused:
        await flow.children.spawn(short.token, workflow="piece", capability="", value=b"1")
    assert refused.value.code == "flow.budget_spent"

    await define(flow, name="bare", steps={"a": {"capability": "lead"}})
    await start(flow, 1, "bare")
    other = await held(flow)
    with pytest.raises(Denied) as refused:
        await flow.children.spawn(other.token, workflow="piece", capability="", value=b"1")
    assert refused.value.code == "flow.no_grant"
    await flow.runs._work.claims.complete(other.token, 1)
    with pytest.raises(Conflict):
        await flow.children.spawn(other.token, workflow="piece", capability="", value=b"1")
    _, third = await leading(flow, workflows=["gone"])
    with pytest.raises(NotFound):
        await flow.children.spawn(third.token, workflow="gone", capability="", value=b"1")


async def test_a_budget_holds_exactly_whoever_asks_and_wherever(flows):
    one, two = await flows.here("one", **DO), await flows.here("two", **DO)
    run, mine = await leading(one, max=5)
    found: list[str] = []

    async def ask(flow) -> None:
        try:
            place, _, _ = await flow.children.spawn(mine.token, workflow="", capability="do", value=b"1")
            found.append(place.step)
        except Denied as error:
            found.append(error.code)

    async with asyncio.TaskGroup() as group:
        for number in range(24):
            group.create_task(ask((one, two)[number % 2]))
    assert sorted(found) == [f"a--c{number}" for number in range(1, 6)] + ["flow.budget_spent"] * 19
    await one.runs._work.claims.complete(mine.token, 1)
    assert output(await ended(one, run)) == 1


async def test_a_tree_has_one_budget_and_a_depth(flows):
    flow = await flows.here(**DO)
    grant = {"workflows": ["tree"], "max": 4, "depth": 2}
    await define(flow, name="tree", steps={"a": {"capability": "lead", "children": grant}})
    root = await start(flow, 0, "tree")
    top = await held(flow)
    for count in (1, 2):
        await flow.children.spawn(top.token, workflow="tree", capability="", value=str(count).encode())
    below = [await held(flow), await held(flow)]
    for one in below:
        await flow.children.spawn(one.token, workflow="tree", capability="", value=b"9")
    with pytest.raises(Denied) as refused:
        await flow.children.spawn(below[0].token, workflow="tree", capability="", value=b"9")
    assert (refused.value.code, refused.value.detail["run"]) == ("flow.budget_spent", root)
    deepest = [await held(flow), await held(flow)]
    with pytest.raises(Denied) as refused:
        await flow.children.spawn(deepest[0].token, workflow="tree", capability="", value=b"9")
    assert "2 deep" in refused.value.message
    runs = [one.task.run for one in (*below, *deepest)]
    await flow.runs.cancel(root)
    assert [(await ended(flow, one)).state for one in (root, *runs)] == ["cancelled"] * 5


async def test_children_survive_the_node_that_took_the_wish(flows):
    first = await flows.process("first")
    flow = await flows.here("second", **DO)
    run, one = await leading(flow, max=40)
    for number in range(30):
        await flow.children.spawn(one.token, workflow="piece", capability="", value=json.dumps(number).encode())
        if number == 15:
            os.kill(first.pid, signal.SIGKILL)
    await until(lambda: _known(flow, run, 30))
    await flow.runs._work.claims.complete(one.token, 1)
    assert output(await ended(flow, run)) == 1
    kids = (await flow.runs.look(run)).run.spawned.values()
    assert sorted(json.loads(bytes(kid.end.output)) for kid in kids) == list(range(30))


async def test_a_task_that_was_spawned_is_on_the_account_of_its_step(flows):
    flow = await flows.here(**DO)
    grant = {"capabilities": ["lead"], "workflows": ["piece"], "max": 4, "depth": 2}
    run, top = await leading(flow, **grant)
    first, _, left = await flow.children.spawn(top.token, workflow="", capability="lead", value=b"1")
    assert left == 3
    one = await held(flow)
    assert (one.task.run, one.task.step) == (run, first.step)
    places = [await flow.children.spawn(one.token, workflow="", capability="lead", value=b"2", key="k") for _ in "12"]
    assert [(new, left) for _, new, left in places] == [(True, 2), (False, 2)]
    deepest = await held(flow)
    for kind in ({"workflow": "piece", "capability": ""}, {"workflow": "", "capability": "lead"}):
        with pytest.raises(Denied) as refused:
            await flow.children.spawn(deepest.token, value=b"3", **kind)
        assert (refused.value.code, "2 deep" in refused.value.message) == ("flow.budget_spent", True)
    kid, _, _ = await flow.children.spawn(one.token, workflow="piece", capability="", value=b"4")
    await until(lambda: _begun(flow, facts.child_run(run, kid.step)))
    start = (await flow.runs.look(facts.child_run(run, kid.step))).start
    assert (start.tree, start.tree_depth) == (facts.Parent(run, "a"), 2)
    await flow.children.spawn(top.token, workflow="", capability="lead", value=b"5")
    for asker in (top, one):
        with pytest.raises(Denied) as refused:
            await flow.children.spawn(asker.token, workflow="", capability="lead", value=b"6")
        assert refused.value.code == "flow.budget_spent"
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"
    assert await flow.runs.replay(run) is None


async def test_a_handler_may_start_what_it_is_granted_for_a_time(flows):
    flow = await flows.here(**DO)
    await define(flow, name="piece", steps={"p": {"capability": "do"}})
    grant = {"workflows": ["piece"], "seconds": 60}
    mend = {"capability": "lead", "children": grant}
    await define(flow, name="lead", steps={"a": {"capability": "lead", "on_failure": "h"}, "h": mend})
    run = await start(flow, 1, "lead")
    failed = (await held(flow)).token
    await flow.runs._work.claims.fail(failed, "no", code="x.y", retriable=False, retry_after_s=None)
    one = await held(flow)
    kid, _, _ = await flow.children.spawn(one.token, workflow="piece", capability="", value=b"7")
    child = facts.child_run(run, kid.step)
    await until(lambda: _begun(flow, child))
    assert output(await ended(flow, child)) == 7
    await flow.runs._work.claims.complete(one.token, "mended")
    assert output(await ended(flow, run)) == "mended"


async def test_what_was_started_stands_when_nothing_more_may_be(flows, monkeypatch):
    flow = await flows.here(**DO)
    run, top = await leading(flow, capabilities=["lead"], max=5, depth=3, seconds=60)
    await flow.children.spawn(top.token, workflow="", capability="lead", value=b"1")
    one = await held(flow)
    wanted = {"workflow": "", "capability": "lead", "value": b"1"}
    first, new, left = await flow.children.spawn(one.token, key="k", **wanted)
    assert (new, left) == (True, 3)
    monkeypatch.setattr(children, "clock", SimpleNamespace(now_ns=lambda: clock.now_ns() + 61 * 10**9))
    assert await flow.children.spawn(one.token, key="k", **wanted) == (first, False, 0)
    with pytest.raises(Denied) as refused:
        await flow.children.spawn(one.token, **wanted)
    assert "it held for 60 s" in refused.value.message
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"


async def test_what_a_handler_is_granted_for_a_time_is_over_for_what_it_started_too(flows, monkeypatch):
    flow = await flows.here(**DO)
    grant = {"capabilities": ["lead"], "max": 9, "depth": 3, "seconds": 60}
    mend = {"capability": "lead", "children": grant}
    await define(flow, name="lead", steps={"a": {"capability": "lead", "on_failure": "h"}, "h": mend})
    run = await start(flow, 1, "lead")
    failed = (await held(flow)).token
    await flow.runs._work.claims.fail(failed, "no", code="x.y", retriable=False, retry_after_s=None)
    wanted = {"workflow": "", "capability": "lead", "value": b"1"}
    await flow.children.spawn((await held(flow)).token, **wanted)
    below = await held(flow)
    later, claimed = 61 * 10**9, flow.children._held

    async def a_minute_later(claim):
        sight, one = await claimed(claim)
        return sight, msgspec.structs.replace(one, started_ns=one.started_ns + later)

    monkeypatch.setattr(flow.children, "_held", a_minute_later)
    monkeypatch.setattr(children, "clock", SimpleNamespace(now_ns=lambda: clock.now_ns() + later))
    with pytest.raises(Denied) as refused:
        await flow.children.spawn(below.token, **wanted)
    assert "it held for 60 s" in refused.value.message
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"


async def test_what_is_started_below_stays_in_the_boundary_unless_it_names_one(flows):
    flow = await flows.here(**DO)
    for name, more in (("plain", {}), ("own", {"boundary": "office"})):
        await define(flow, name=name, steps={"p": {"kind": "sleep", "duration": "1h"}}, **more)
    grant = {"workflows": ["plain", "own"], "max": 5}
    below = {name: {"kind": "workflow", "workflow": name} for name in ("plain", "own")}
    steps = {"a": {"capability": "lead", "boundary": "vault", "children": grant}, **below}
    await define(flow, name="lead", steps=steps, boundary="house")
    run = await start(flow, 1, "lead")
    one = await held(flow)
    found = {name: facts.child_run(run, name) for name in below}
    for name in below:
        place, _, _ = await flow.children.spawn(one.token, workflow=name, capability="", value=b"1")
        found[f"spawned {name}"] = facts.child_run(run, place.step)
    for child in found.values():
        await until(lambda child=child: _begun(flow, child))
    kept = {name: (await flow.runs.look(child)).start.boundary for name, child in found.items()}
    assert kept == {"plain": "house", "own": "", "spawned plain": "vault", "spawned own": ""}
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"


async def _begun(flow, run) -> bool:
    try:
        return bool(await flow.runs.look(run))
    except NotFound:
        return False


async def test_a_budget_in_the_middle_of_a_tree_holds_as_well(flows):
    flow = await flows.here(**DO)
    for name, grant in (
        ("low", {"workflows": ["piece"], "capabilities": ["do"], "max": 5}),
        ("middle", {"workflows": ["low", "piece"], "max": 2, "depth": 2}),
        ("high", {"workflows": ["middle"], "max": 9, "depth": 8}),
    ):
        await define(flow, name=name, steps={"a": {"capability": "lead", "children": grant}})
    await define(flow, name="piece", steps={"p": {"capability": "do"}})
    high = await start(flow, 1, "high")
    top = await held(flow)
    await flow.children.spawn(top.token, workflow="middle", capability="", value=b"1")
    middle = await held(flow)
    await flow.children.spawn(middle.token, workflow="low", capability="", value=b"1")
    low = await held(flow)
    _, _, left = await flow.children.spawn(low.token, workflow="", capability="do", value=b"1")
    assert left == 0
    for _ in range(9):  # a refusal is on nobody's account
        with pytest.raises(Denied) as refused:
            await flow.children.spawn(low.token, workflow="piece", capability="", value=b"1")
        assert (refused.value.code, refused.value.detail["run"]) == ("flow.budget_spent", middle.task.run)
    with pytest.raises(Denied):
        await flow.children.spawn(middle.token, workflow="piece", capability="", value=b"1")
    _, _, left = await flow.children.spawn(top.token, workflow="middle", capability="", value=b"2")
    assert left == 5
    await flow.runs.cancel(high)
    assert (await ended(flow, high)).state == "cancelled"
