"""Fixtures: a nats-server of each test's own with two projects and COMMONS, and nodes that remember."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio
from tests.integration.memory import memory_node

from knotwork.bus import child, server
from knotwork.trust import keys

PATIENCE_S = 60.0
ACCOUNTS = ("default", "other", "COMMONS")


@dataclass
class Bench:
    """A server, and the nodes on it."""

    server: server.Server
    seeds: dict[str, str]
    folder: Path
    stack: contextlib.AsyncExitStack = field(repr=False)

    async def node(self, name: str = "n1", project: str = "default", *, commons: bool = True, **more: Any) -> Any:
        """Open a node that remembers for a project."""
        seeds = {account: seed for account, seed in self.seeds.items() if commons or account != "COMMONS"}
        return await self.stack.enter_async_context(
            memory_node.open_node(self.server.url, seeds, self.folder, name=name, project=project, **more)
        )

    def kill_server(self) -> None:
        """End nats-server with kill -9; its keeper starts it again."""
        if pid := self.server.pid:
            os.kill(pid, signal.SIGKILL)


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    pairs = {name: keys.generate() for name in ACCOUNTS}
    accounts = tuple(server.Account(name, (server.User(pair.public),)) for name, pair in pairs.items())
    settings = server.ServerSettings(store_dir=tmp_path / "store", accounts=accounts, sync_always=True)
    async with child.guard(), server.run_server(settings) as running, contextlib.AsyncExitStack() as stack:
        yield Bench(running, {name: pair.seed for name, pair in pairs.items()}, tmp_path, stack)


@pytest_asyncio.fixture
async def node(bench: Bench) -> Any:
    return await bench.node()


async def until(found: Callable[[], Any]) -> Any:
    """Return the first true value of `found`, which may be awaited."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            value = found()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)
