"""Fixtures: a nats-server of each test's own, and nodes with policies in this process or in their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio
from tests.integration.policy import policy_node
from tests.integration.work.conftest import ROOT

from knotwork.bus import child, server
from knotwork.trust import keys

PATIENCE_S = 60.0


@dataclass
class Mesh:
    """A server, and the nodes on it."""

    url: str
    seed: str
    stack: contextlib.AsyncExitStack
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def node(self, name: str = "here", agents: dict[str, Any] | None = None, **settings: Any) -> Any:
        """Open a node in this process."""
        return await self.stack.enter_async_context(
            policy_node.open_node(self.url, self.seed, name, agents or {}, **settings)
        )

    async def process(self, name: str, agents: dict[str, Any], **settings: Any) -> asyncio.subprocess.Process:
        """Start a node in a process of its own; returns when it works."""
        told = {"url": self.url, "seed": self.seed, "name": name, "agents": agents, **settings}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            policy_node.__name__,
            json.dumps(told),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.processes.append(process)
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"ready\n"
        return process


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    pair = keys.generate()
    settings = server.ServerSettings(
        store_dir=tmp_path / "store", accounts=(server.Account("default", (server.User(pair.public),)),)
    )
    async with child.guard(), server.run_server(settings) as running, contextlib.AsyncExitStack() as stack:
        made = Mesh(running.url, pair.seed, stack)
        try:
            yield made
        finally:
            for process in made.processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


async def until(found: Any) -> Any:
    """Return the first true value of `found`, which may be awaited."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            value = found()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)
