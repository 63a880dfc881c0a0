"""Steps that stick to a node: on nodes that know each other, with processes that are killed and come back."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
import pytest_asyncio
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.policy import policy_node
from tests.integration.work.conftest import open_bench, until

from knotwork.desk.runs import rows as flow_rows
from knotwork.flow.room import open_flow
from knotwork.work import records

DO = {"do": {"capabilities": ("do", "more"), "concurrency": 4}, "else": {"capabilities": ("more",), "concurrency": 4}}


class World:
    """A server; one node that looks after runs and works on none; others that work, in processes."""

    def __init__(self, bench, node, flow):
        self.bench, self.node, self.flow = bench, node, flow

    async def worker(self, name):
        process = await self.bench.process(policy_node, name=name, agents=DO)
        await until(lambda: self.state(name) == "online")
        return process

    def state(self, name):
        return self.node.membership.directory.state(name)


@pytest_asyncio.fixture
async def world(tmp_path):
    async with open_bench(tmp_path) as bench, contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(policy_node.open_node(bench.url, bench.seed, "hub", {}))
        connection = node.work.recorder._connection
        flow = await stack.enter_async_context(open_flow(connection, node.work, node="hub"))
        await flow.shards.settled()
        yield World(bench, node, flow)


async def where(flow, run) -> dict[str, str]:
    """Return the node and agent that did each step."""
    sight = await flow.runs.look(run)
    ends = [
        (one.subject.split(".")[4], records.decode_outcome(one.data))
        for one in sight.facts
        if ".outcome." in one.subject
    ]
    return {step: f"{end.node}/{end.agent}" for step, end in ends if end.agent}


async def test_what_follows_is_done_where_the_first_was(world, tmp_path):
    flow, begun, go = world.flow, tmp_path / "begun", tmp_path / "go"
    begun.touch()
    for name in ("n1", "n2", "n3"):
        await world.worker(name)
    await define(
        flow,
        steps={
            "a": {"capability": "do", "input": {"touch": repr(str(begun)), "until": repr(str(go))}},
            "b": {"capability": "more", "depends_on": ["a"], "sticky": {"step": "a", "mode": "hard"}},
            "c": {
                "kind": "map", "capability": "more", "items": "input", "depends_on": ["b"], "sticky": {"step": "b"},
            },
            "d": {"agent": "else", "depends_on": ["c"], "sticky": {"step": "a"}},
        },
    )  # fmt: skip
    runs = [await start(flow, [1, 2, 3]) for _ in range(12)]
    await until(lambda: len({line.split()[1] for line in begun.read_text().splitlines()}) > 1)  # none can do them all
    go.touch()
    nodes = set()
    for run in runs:
        assert output(await ended(flow, run)) == [1, 2, 3]
        done = await where(flow, run)
        node = done["a"].partition("/")[0]
        assert done == {
            "a": f"{node}/do", "b": f"{node}/do", **{f"c--{n}": f"{node}/do" for n in range(3)}, "d": f"{node}/else",
        }  # fmt: skip
        nodes.add(node)
    assert len(nodes) > 1, "all on one node: it would prove nothing"


@pytest.mark.parametrize("mode", ["soft", "hard"])
async def test_a_node_that_is_gone_is_waited_for_when_it_is_hard(world, mode):
    flow = world.flow
    first = await world.worker("n1")
    await define(
        flow,
        steps={
            "a": {"capability": "do"},
            "hear": {"kind": "wait_for_signal", "signal": "go", "depends_on": ["a"]},
            "b": {"capability": "do", "depends_on": ["hear"], "sticky": {"step": "a", "mode": mode}},
        },
    )
    run = await start(flow)
    await until(lambda: (live := flow.journal.find(run)) and live.run and live.run.steps["hear"].state == "open")
    os.kill(first.pid, signal.SIGKILL)
    await world.worker("n2")
    await until(lambda: world.state("n1") == "offline")
    await flow.runs.signal(run, "go", b"1")
    if mode == "soft":
        assert output(await ended(flow, run)) == 1
        assert await where(flow, run) == {"a": "n1/do", "b": "n2/do"}
        return
    await until(lambda: "do.b" in flow.journal.find(run).run.open)
    assert "on n1" in flow_rows.waits(flow.journal.find(run).run)[0].what
    await world.worker("n1")
    assert output(await ended(flow, run)) == 1
    assert await where(flow, run) == {"a": "n1/do", "b": "n1/do"}


async def test_what_waits_for_a_node_that_goes_is_moved_when_it_is_soft(world):
    flow = world.flow
    first = await world.worker("n1")
    steps = {"a": {"capability": "do"}, "hear": {"kind": "wait_for_signal", "signal": "go", "depends_on": ["a"]}}
    for name, work in (("b", {"capability": "do"}), ("c", {"agent": "do"})):
        steps[name] = {**work, "depends_on": ["hear"], "sticky": {"step": "a"}}
    await define(flow, steps=steps)
    run = await start(flow, {})
    busy = [await start(flow, {"sleep": 600}) for _ in range(8)]  # it can do no more than four at a time
    await until(lambda: (live := flow.journal.find(run)) and live.run and live.run.steps["hear"].state == "open")
    os.kill(first.pid, signal.SIGSTOP)
    for one in busy:
        await flow.runs.cancel(one)
    await flow.runs.signal(run, "go", b"1")
    await until(lambda: {"do.b", "do.c"} <= set(flow.journal.find(run).run.open))
    await world.worker("n2")
    os.kill(first.pid, signal.SIGKILL)
    assert (await ended(flow, run)).state == "completed"
    done = await where(flow, run)
    assert (done["b"], done["c"]) == ("n2/do", "n2/do")
