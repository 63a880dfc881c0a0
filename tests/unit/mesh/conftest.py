"""Fixtures: agents made of a function, with real slots, hosting and admission."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from knotwork.bus import frames
from knotwork.bus.background import background
from knotwork.mesh.admission import Admission
from knotwork.mesh.hosting import HostedAgent, Hosting
from knotwork.mesh.records import AgentRecord
from knotwork.mesh.schemas import Schema
from knotwork.sdk import Factory, PluginConfig
from knotwork.sdk.errors import KnotworkError
from knotwork.sockets import catalog, loading
from knotwork.sockets.slot import Instance, Slot
from knotwork.telemetry.emitter import Emitter
from knotwork.telemetry.measure import Meter

SOURCE = loading.load(catalog.CatalogSettings(safe_mode=True)).find("routers", "capability").source


class Answer:
    """Keeps the frames a caller gets (`hosting.Answering`)."""

    def __init__(self, size_max: int = 10**9) -> None:
        self.frames: list[tuple[str, bytes]] = []
        self.size_max = size_max
        self.over = asyncio.Event()

    def frame(self, kind: str, data: bytes) -> None:
        from knotwork.sdk.errors import TooLarge

        if len(data) > self.size_max:
            raise TooLarge(f"{len(data)} bytes", code="bus.message_too_large")
        self.frames.append((kind, data))
        if kind in frames.LAST:
            self.over.set()

    def close(self) -> None:
        self.closed = True

    @property
    def last(self) -> list[tuple[str, bytes]]:
        return [frame for frame in self.frames if frame[0] in frames.LAST]

    async def wait(self, timeout_s: float = 30.0) -> tuple[str, bytes]:
        async with asyncio.timeout(timeout_s):
            await self.over.wait()
        return self.last[0]

    async def error(self, timeout_s: float = 30.0) -> KnotworkError:
        kind, data = await self.wait(timeout_s)
        assert kind == "error", (kind, data)
        return frames.read_error(data)


class Works:
    """An executor made of a function."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self.execute = function


class Bench:
    """A hosting with agents made of functions."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.group = group
        emitter = Emitter("n1")
        self.hosting = Hosting(group, emitter, Meter(emitter), node="n1")
        self.answers: list[Answer] = []
        self._numbers = iter(range(10**6))

    def slot(self, name: str, function: Callable[..., Awaitable[Any]]) -> Slot:
        @contextlib.asynccontextmanager
        async def opened(_config: PluginConfig, _context: Any) -> AsyncIterator[Works]:
            yield Works(function)

        factory = Factory(name=name, config=PluginConfig, open=opened)
        entry = catalog.Entry("executors", name, factory, SOURCE)
        slot = Slot(Instance("executors", name, entry, factory.config()), factory, None, lambda _slot: None)
        slot.start(self.group)
        return slot

    async def agent(self, function: Callable[..., Awaitable[Any]], name: str = "a", **settings: Any) -> HostedAgent:
        slot = self.slot(name, function)
        assert await slot.settled(30.0) == "running"
        schemas = [settings.pop(key, None) for key in ("input_schema", "output_schema")]
        admission = settings.pop("admission", None)
        made = {"concurrency": 1, "queue_max": 10, "timeout_s": 60.0, **settings}
        record = AgentRecord(name, (name,), executor="test", **made)
        agent = HostedAgent(
            record,
            frozenset({"default"}),
            slot,
            admission or Admission(made["concurrency"], made["queue_max"]),
            *(Schema(schema, "schema") if schema else None for schema in schemas),
        )
        others = [one for one in self.hosting.agents() if one.record.name != name]
        self.hosting.replace([*others, agent])
        return agent

    def call(self, data: bytes = b"1", name: str = "a", size_max: int = 10**9, **envelope: Any) -> Answer:
        answer = Answer(size_max)
        self.answers.append(answer)
        made = {"id": f"c{next(self._numbers)}", "plain": False, **envelope}
        answer.id = made["id"]
        self.hosting.arrive("default", name, data, frames.Envelope(**made), answer)
        return answer

    async def settled(self, timeout_s: float = 30.0) -> None:
        """Return when nothing runs any more; then every place must be free and every call answered once."""
        async with asyncio.timeout(timeout_s):
            await self.hosting.idle.wait()
        for agent in self.hosting.agents():
            assert (agent.admission.running, agent.admission.queued) == (0, 0)
        assert not self.hosting._jobs
        assert not self.hosting._by_id
        assert [len(answer.last) for answer in self.answers] == [1] * len(self.answers)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with background() as group:
        yield Bench(group)


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.002)

    return wait
