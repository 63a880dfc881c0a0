"""Fixtures: a nats-server of each test's own (synced), and nodes that see to triggers, here and in processes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest_asyncio
from tests.integration.trigger import trigger_node
from tests.integration.work.conftest import PATIENCE_S, open_bench

from knotwork.flow import listing
from knotwork.flow.definitions import parsed
from knotwork.flow.room import Flow
from knotwork.trigger import source
from knotwork.trigger.room import Triggers

DO = {"do": {"concurrency": 20}}


class Nodes:
    """A server, and nodes on it."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench

    async def here(self, name: str = "here", *, sources: Any = None, **agents: dict[str, Any]) -> tuple[Flow, Triggers]:
        """Be a node in this process."""
        opened = trigger_node.open_node(self.bench.url, self.bench.seed, name, agents or DO, sources=sources)
        return await self.bench.stack.enter_async_context(opened)

    async def process(self, name: str, *, lines: str = "", **agents: dict[str, Any]) -> asyncio.subprocess.Process:
        """Start a node in a process of its own; returns when it sees to triggers."""
        return await self.bench.process(trigger_node, name=name, agents=agents or DO, lines=lines)


@pytest_asyncio.fixture
async def nodes(tmp_path):
    async with open_bench(tmp_path) as bench:
        yield Nodes(bench)


async def define(flow: Flow, name: str = "w", **workflow: Any) -> None:
    """Register a workflow; its one step gives its input back, when nothing else is said."""
    made = parsed({"name": name, "steps": {"a": {"capability": "do"}}, **workflow})
    await flow.definitions.put(made, now_ns=time.time_ns())


async def keep(triggers: Triggers, name: str = "t", **fields: Any) -> None:
    """Keep a trigger of the workflow `w`."""
    await triggers.put(source.trigger({"id": name, "workflow": "w", **fields}))


async def runs_of(flow: Flow, name: str = "t") -> dict[str, str]:
    """Return the runs that a trigger started: their ids by their keys."""
    return {start.key: run for run, start, _ in await listing.runs(flow.connection) if start.trigger == name}


async def output(flow: Flow, run: str) -> Any:
    """Return what a run gave."""
    async with asyncio.timeout(PATIENCE_S):
        finish = await flow.runs.ended(run)
    assert finish.state == "completed", finish
    return json.loads(bytes(finish.output))
