"""The NATS door of ops against real clients that are killed, lose their link, or whose answer is ready while NATS is away."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from knotwork.bus import child, way
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.host.doors import NatsDoor
from knotwork.ops import replies

TESTS = Path(__file__).parents[2]
WAIT_S = 30.0


def load(path: Path) -> Any:
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    return sys.modules[path.stem]


raw_server = load(TESTS / "integration" / "bus" / "raw_server.py")
stand_in = load(TESTS / "unit" / "ops" / "stand_in.py")


class Mesh(stand_in.StandInMesh):
    """Stands in for the node behind the door: a call answers when it is released, and tells when it was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.release, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def invoke(self, call, caller):
        self.started.set()
        try:
            await self.release.wait()
            for number in range(5 if call.stream else 0):
                yield replies.Chunk(data=number)
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped.set()
            raise
        yield replies.Answer(output="kept", agent="here/echo")


class Control(stand_in.StandInNode):
    def __init__(self) -> None:
        super().__init__(one_mesh=Mesh())
        self.watchers = 0

    async def events(self, names, project):
        self.watchers += 1
        try:
            async for row in super().events(names, project):
                yield row
        finally:
            self.watchers -= 1


async def until(condition, timeout_s: float = WAIT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def server(tmp_path):
    async with child.guard():
        made = raw_server.RawServer(tmp_path / "nats")
        await made.start()
        yield made
        await made.kill()


@pytest.fixture
async def door(server):
    control = Control()
    endpoint = Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1, inbox_prefix="_NODE")
    async with open_connection(endpoint) as connection, background() as group:
        made = NatsDoor(connection, control, "default", "here")
        await made.open(group)
        made.control, made.connection = control, connection
        yield made


@pytest.fixture
async def ask():
    """Start a client process; it is gone at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(url: str, op: str, request: str, timeout_s: float = 600.0):
            process = await child.spawn(
                sys.executable, TESTS / "integration" / "host" / "asking.py", url, op, request, str(timeout_s),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip

            async def end() -> None:
                if process.returncode is None:
                    process.kill()
                await process.wait()

            stack.push_async_callback(end)
            return process

        yield start


def idle(door) -> bool:
    return door._running == 0 and not door._tasks and len(door.connection._inbox) == 0


async def test_a_killed_client_stops_its_work(server, door, ask):
    client = await ask(server.url, "agents.invoke", '{"target": "echo", "input": 1}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    client.kill()
    began_s = time.monotonic()
    async with asyncio.timeout(WAIT_S):
        await mesh.stopped.wait()
    took_s = time.monotonic() - began_s
    await until(lambda: idle(door))
    assert took_s < WAIT_S / 2  # far less than the ten minutes it may take


async def test_a_killed_watcher_of_events_is_let_go(server, door, ask):
    client = await ask(server.url, "node.events", "{}")
    async with asyncio.timeout(WAIT_S):
        assert b"chunk" in await client.stdout.readline()
    assert door.control.watchers == 1
    client.kill()
    await until(lambda: door.control.watchers == 0)
    await until(lambda: idle(door))


async def test_a_client_that_is_there_is_never_given_up(server, door, ask):
    client = await ask(server.url, "agents.invoke", '{"target": "echo", "input": 1}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await asyncio.sleep(4.0)  # longer than a caller that is gone is given
    assert not mesh.stopped.is_set()
    mesh.release.set()
    async with asyncio.timeout(WAIT_S):
        out = await client.stdout.read()
    assert b'"kept"' in out
    await until(lambda: idle(door))


async def test_a_client_whose_link_was_cut_for_a_moment_keeps_its_work(server, door, ask, monkeypatch):
    monkeypatch.setattr(way, "GONE_AFTER_S", 4.0)  # on a slow machine it needs more than a second to come back
    proxy = raw_server.Proxy(server.port)
    await proxy.start()
    client = await ask(proxy.url, "agents.invoke", '{"target": "echo", "input": 1}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await asyncio.sleep(5.2)  # a link that was steady is made again at once
    proxy.cut()
    await until(lambda: proxy.accepted == 2)
    await asyncio.sleep(6.0)  # longer than a caller that is gone is given
    assert not mesh.stopped.is_set()
    mesh.release.set()
    async with asyncio.timeout(WAIT_S):
        assert b'"kept"' in await client.stdout.read()
    await proxy.stop()


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_what_is_ready_while_nats_is_away_arrives_when_it_is_back(server, door, ask, stream):
    """The client comes back later than the node: what is sent in between would be lost."""
    client = await ask(server.url, "agents.invoke", f'{{"target": "echo", "input": 1, "stream": {stream}}}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await server.kill()
    await until(lambda: door.connection.state != "connected")
    mesh.release.set()
    await asyncio.sleep(0.1)  # the answer is ready now, and cannot be sent
    await server.start()
    async with asyncio.timeout(WAIT_S):
        out = (await client.stdout.read()).decode().splitlines()
    assert [line.partition(" ")[0] for line in out] == ["chunk"] * (5 if stream == "true" else 0) + ["result"], out
    assert '"kept"' in out[-1]
    assert [f'"data":{n}' in line.replace(" ", "") for n, line in enumerate(out[:-1])] == [True] * (len(out) - 1)
    await until(lambda: idle(door))


async def test_an_answer_nobody_waits_for_any_more_is_dropped(server, door, ask):
    client = await ask(server.url, "agents.invoke", '{"target": "echo", "input": 1}', 600.0)
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await server.kill()
    await until(lambda: door.connection.state != "connected")
    client.kill()
    mesh.release.set()
    await server.start()
    await until(lambda: idle(door), 60)
