"""What workers start under a budget: on a real server, by agents that came in, over several nodes, with crashes."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.desk.runs import rows as flow_rows
from knotwork.flow import facts
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
