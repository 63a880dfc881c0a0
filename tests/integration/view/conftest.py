"""Fixtures: a nats-server of each test's own with the streams of durable work, and views of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.bus import raw_server
from tests.integration.view import past

from knotwork.bus.connection import Connection, open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.view.keeper import open_keeper
from knotwork.view.room import View, open_view
from knotwork.work import stores


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Any]:
    async with raw_server.running(tmp_path / "nats") as made:
        yield made


def endpoint(url: str) -> Endpoint:
    return Endpoint((url,), pause_min_s=0.02, pause_max_s=0.1, connect_timeout_s=20.0)


@pytest_asyncio.fixture
async def connection(server: Any) -> AsyncIterator[Connection]:
    async with open_connection(endpoint(server.url)) as made:
        await stores.open_stores(made)
        yield made


@pytest_asyncio.fixture
async def write(connection: Connection) -> Any:
    """Write what durable work would: tasks, their ends, segments of the archive."""
    return past.Past(connection)


@pytest_asyncio.fixture
async def open_one(connection: Connection, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Open views, each with a process of its own: `await open_one() -> (view, keeper)`; closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(stack: contextlib.AsyncExitStack = stack, project: str = "default") -> tuple[View, Any]:
            keeper = await stack.enter_async_context(open_keeper())
            view = await stack.enter_async_context(open_view(keeper, tmp_path / "view", project, connection))
            keeper.begin()
            return view, keeper

        yield make


@pytest_asyncio.fixture
async def view(open_one: Callable[..., Any]) -> View:
    made, _ = await open_one()
    return made


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.01)

    return wait
