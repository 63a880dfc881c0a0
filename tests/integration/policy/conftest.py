"""Fixtures: a nats-server of each test's own, and nodes with policies in this process or in their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio
from tests.integration.policy import policy_node
from tests.integration.work.conftest import Bench, open_bench


@dataclass
class Mesh:
    """A server, and the nodes on it."""

    bench: Bench

    async def node(self, name: str = "here", agents: dict[str, Any] | None = None, **settings: Any) -> Any:
        """Open a node in this process."""
        return await self.bench.stack.enter_async_context(
            policy_node.open_node(self.bench.url, self.bench.seed, name, agents or {}, **settings)
        )

    async def process(self, name: str, agents: dict[str, Any], **settings: Any) -> asyncio.subprocess.Process:
        """Start a node in a process of its own; returns when it works."""
        return await self.bench.process(policy_node, name=name, agents=agents, **settings)


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with open_bench(tmp_path) as bench:
        yield Mesh(bench)
