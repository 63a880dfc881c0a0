"""Fixtures: nodes in this process and in others, over a nats-server of each test's own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.bus import raw_server
from tests.integration.mesh import mesh_member

from knotwork.bus import child, codec
from knotwork.sdk.router import Ask

HERE = Path(__file__).parent


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Any]:
    async with child.guard():
        made = raw_server.RawServer(tmp_path / "nats", sync_always=True)
        await made.start()
        yield made
        await made.kill()


@pytest_asyncio.fixture
async def proxy(server: Any) -> AsyncIterator[Any]:
    made = raw_server.Proxy(server.port)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def node(server: Any) -> AsyncIterator[Callable[..., Any]]:
    """Open nodes; they leave at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(name: str, fill: Any = mesh_member.fill, url: str = "", **settings: Any) -> Any:
            link = settings.pop("link", {})
            return await stack.enter_async_context(
                mesh_member.open_node(mesh_member.endpoint(url or server.url, **link), name, fill, **settings)
            )

        yield make


@pytest_asyncio.fixture
async def process(server: Any) -> AsyncIterator[Callable[..., Any]]:
    """Start nodes in processes of their own."""
    made: list[asyncio.subprocess.Process] = []

    async def start(name: str, *calls: str) -> asyncio.subprocess.Process:
        one = await child.spawn(
            sys.executable, HERE / "mesh_member.py", server.url, name, *calls, stdout=asyncio.subprocess.PIPE
        )
        made.append(one)
        async with asyncio.timeout(60):
            assert await one.stdout.readline() == b"ready\n"
        return one

    yield start
    for one in made:
        if one.returncode is None:
            one.kill()
        await one.wait()


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def invoke() -> Callable[..., Any]:
    async def call(member: Any, agent: str = "", value: Any = None, timeout_s: float = 30.0, **settings: Any) -> Any:
        ask = {key: settings.pop(key) for key in ("node", "capability", "exclude") if key in settings}
        answered = await member.calls.invoke(
            Ask(agent=agent, here=member.here, **ask),
            codec.encode(value),
            timeout_s=timeout_s,
            caller="test",
            **settings,
        )
        return codec.decode(answered.output)

    return call
