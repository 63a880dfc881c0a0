"""Fixtures: a nats-server of each test's own (synced), and nodes that look after runs, here and in processes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest_asyncio
from tests.integration.flow import flow_node
from tests.integration.work.conftest import PATIENCE_S, open_bench

from knotwork.flow.definitions import parsed
from knotwork.flow.facts import Finish
from knotwork.flow.room import Flow
from knotwork.flow.runs import Wanted


class Flows:
    """A server, and nodes on it."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench

    async def here(self, name: str = "here", **agents: dict[str, Any]) -> Flow:
        """Be a node in this process."""
        opened = flow_node.open_node(self.bench.url, self.bench.seed, name, agents)
        _, flow = await self.bench.stack.enter_async_context(opened)
        return flow

    async def process(self, name: str, lease_s: float = 2.0, **agents: dict[str, Any]) -> asyncio.subprocess.Process:
        """Start a node in a process of its own; returns when it looks after runs."""
        return await self.bench.process(flow_node, name=name, agents=agents, lease_s=lease_s)


@pytest_asyncio.fixture
async def flows(tmp_path):
    async with open_bench(tmp_path) as bench:
        yield Flows(bench)


async def define(flow: Flow, **workflow: Any) -> str:
    """Register a workflow called `w` (or `name`) and return its name."""
    made = parsed({"name": "w", **workflow})
    await flow.definitions.put(made, now_ns=time.time_ns())
    return made.name


async def start(flow: Flow, value: Any = None, workflow: str = "w", **more: Any) -> str:
    """Start a run and return its id."""
    return (await flow.runs.start(Wanted(workflow, json.dumps(value).encode(), **more))).id


async def ended(flow: Flow, run: str) -> Finish:
    """Return the end of a run."""
    async with asyncio.timeout(PATIENCE_S):
        return await flow.runs.ended(run)


def output(finish: Finish) -> Any:
    """Return what a run gave; it must have completed."""
    assert finish.state == "completed", finish
    return json.loads(bytes(finish.output))
