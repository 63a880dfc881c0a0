"""Fixtures: a nats-server of each test's own, a link to it that can be cut, and a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.bus import raw_server

from knotwork.bus import child
from knotwork.bus.connection import Connection, open_connection
from knotwork.bus.endpoint import Endpoint


@pytest_asyncio.fixture
async def make_server(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start servers with any config text; they are killed at the end."""
    made: list[Any] = []
    async with child.guard():

        async def make(extra: str = "", **settings: Any) -> Any:
            server = raw_server.RawServer(tmp_path / f"nats{len(made)}", extra, **settings)
            made.append(server)
            await server.start()
            return server

        yield make
        for server in made:
            await server.kill()


@pytest_asyncio.fixture
async def server(make_server: Callable[..., Any]) -> Any:
    return await make_server()


@pytest_asyncio.fixture
async def proxy(server: Any) -> AsyncIterator[Any]:
    made = raw_server.Proxy(server.port)
    await made.start()
    yield made
    await made.stop()


def quick(url: str, **settings: Any) -> Endpoint:
    """Return an endpoint that is tried again soon."""
    return Endpoint((url,), **{"pause_min_s": 0.02, "pause_max_s": 0.1, "connect_timeout_s": 20.0, **settings})


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Callable[..., Any]]:
    """Open connections that are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(url: str, on_state: Any = None, wait_first: bool = True, **settings: Any) -> Connection:
            return await stack.enter_async_context(
                open_connection(quick(url, **settings), on_state=on_state, wait_first=wait_first)
            )

        yield make


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
