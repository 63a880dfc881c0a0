"""Fixtures: a nats-server of each test's own (synced), a book of agents in memory, and nodes that talk over them.

The book stands in for the sessions of a project, which lie above a real mesh; `tests/e2e` has both.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest_asyncio
from tests.integration.work.conftest import open_bench

from knotwork.bus.connection import Connection, open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import NotFound
from knotwork.talk.room import Talk, open_talk
from knotwork.trust.who import Who, person

ANN = Who("a0000000-0000-4000-8000-000000000001", "ann", "default", "olga", node="here")
BOB = Who("b0000000-0000-4000-8000-000000000002", "bob", "default", "olga", node="here")
CYD = Who("c0000000-0000-4000-8000-000000000003", "cyd", "default", "carl", node="there")
OLGA = person("olga", "default", "here")


class Book:
    """Agents by id and handle; what they are told is kept."""

    def __init__(self, *known: Who) -> None:
        self.known = {who.id: who for who in known}
        self.capabilities: dict[str, list[Who]] = {}
        self.told: list[tuple[str, dict[str, Any]]] = []

    def look(self, name: str, by: Who | None = None) -> Who | None:
        return next((who for who in self.known.values() if name in (who.id, who.name)), None)

    def find(self, name: str, by: Who | None = None) -> Who:
        found = self.look(name)
        if found is not None:
            return found
        raise NotFound(f"There is no agent {name!r}.", code="agent.not_found")

    def with_capability(self, capability: str, by: Who, scope: str = "team") -> list[Who]:
        return self.capabilities.get(capability, [])

    def tell(self, agent: str, notice: dict[str, Any]) -> bool:
        self.told.append((agent, notice))
        return agent in self.known


class Nodes:
    """A server, and nodes on it."""

    def __init__(self, bench: Any, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.book = Book(ANN, BOB, CYD, OLGA)

    async def connection(self) -> Connection:
        endpoint = Endpoint(
            (self.bench.url,), seed=self.bench.seed, inbox_prefix="_NODE", pause_min_s=0.05, pause_max_s=0.3
        )
        return await self.bench.stack.enter_async_context(open_connection(endpoint))

    @contextlib.asynccontextmanager
    async def open(self, name: str = "here"):
        """Take part inside the block, with an index of one's own."""
        opened = open_talk(await self.connection(), self.book, project="default", folder=self.folder / name)
        async with opened as talk:
            yield talk

    async def here(self, name: str = "here") -> Talk:
        return await self.bench.stack.enter_async_context(self.open(name))


@pytest_asyncio.fixture
async def nodes(tmp_path):
    async with open_bench(tmp_path) as bench:
        yield Nodes(bench, tmp_path / "talk")


@pytest_asyncio.fixture
async def talk(nodes):
    return await nodes.here()
