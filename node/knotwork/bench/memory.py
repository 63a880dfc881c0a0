"""How fast is memory? To remember alone and many at once, and to recall ten thousand memories; beside raw publishes.

All of it as ops, from JSON to JSON, on a server that syncs before every acknowledgement. The raw figures are nats-py's
JetStream publishes of messages of the same size to the same server, in the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats

from knotwork.bench import peer, tasks
from knotwork.bench.rounds import rounds
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.desk.memory import MemoryDesk
from knotwork.host.memory_buckets import MemoryBuckets
from knotwork.memory.remembering import open_remembering
from knotwork.memory.settings import Settings
from knotwork.ops import serve
from knotwork.ops.op import Caller
from knotwork.sdk.testing import make_context
from knotwork.sockets import loading
from knotwork.sockets.catalog import CatalogSettings
from knotwork.trust.who import Who

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.memory.settings import Slot

KNOWN, PART, ALONE, RECALLS, ROUNDS_MAX, WINDOW = 10_000, 1_000, 100, 40, 20, 64
BYTES = 420
"""What a memory of this bench takes as it is stored."""
WHO = Who("bench-agent", "bench", "default", "bench", node="bench")


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`: how fast ten thousand memories are kept, then rounds of one after the other."""
    work = _measure(seconds)
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop  # what a node runs on

    return uvloop.run(work)


async def _measure(seconds: float) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    end_s = time.monotonic() + seconds

    def note(name: str, figure: float) -> None:
        found.setdefault(name, []).append(figure)

    async with (
        tasks.open_server(sync=True) as (url, seed),
        open_connection(peer.endpoint(url, seed)) as connection,
        _opened(connection) as asked,
        _raw(url, seed) as raw,
    ):
        for written in range(0, KNOWN, PART):
            note("many_per_s", await _many(asked, written))
            note("raw_many_per_s", await raw.many())  # side by side: the machine may be another a moment later
        for number in rounds(end_s - time.monotonic(), ROUNDS_MAX):
            note("raw_ms", await raw.alone())
            note("remember_ms", await _alone(asked, number))
            note("recall_ms", await _recalls(asked, {}))
            note("search_ms", await _recalls(asked, {"search": "databases word77"}))
            note("by_tag_ms", await _recalls(asked, {"tags": ["t7"]}))
        counts = (await asked.ask("memory.recall"))["counts"]
    middle = {name: round(statistics.median(figures), 3) for name, figures in found.items()}
    return {
        "ours": middle["many_per_s"], "raw": middle["raw_many_per_s"],
        "unit": f"memories/s, {WINDOW} at once, as ops; raw: publishes of {BYTES} bytes",
        **middle, "rounds": len(found["raw_ms"]), "memories": counts["total"],
        "durability": "fsync before every acknowledgement, ours and raw",
    }  # fmt: skip


class _Asked:
    """What a door is to a node, without its transport."""

    def __init__(self, desk: MemoryDesk) -> None:
        self._desk = desk
        self._caller = Caller("bench", may="write", who=WHO)

    def memories(self, _project: str) -> MemoryDesk:
        """Return the memory (`ops.ports.NodeControl`, as far as it is needed)."""
        return self._desk

    async def ask(self, op: str, **fields: Any) -> Any:
        """Ask an op as a door does, from JSON to JSON."""
        node: Any = self
        async for frame in serve.dispatch(op, json.dumps(fields).encode(), self._caller, node):
            answer = json.loads(frame.data)
            if frame.kind == "error":
                raise RuntimeError(answer)
        return answer


class _Around:
    """Settings as they come, and one plugin."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin

    def settings(self) -> Settings:
        """Return the defaults."""
        return Settings()

    def slot(self, _instance: str) -> Slot:
        """Return the one there is."""
        return self

    def lease(self) -> AbstractContextManager[Any]:
        """Give the plugin."""
        return contextlib.nullcontext(self.plugin)


@contextlib.asynccontextmanager
async def _opened(connection: Connection) -> AsyncIterator[_Asked]:
    """Remember over a connection inside the block, with the bundled plugin."""
    factory = loading.load(CatalogSettings(safe_mode=True)).find("memories", "kv").factory
    with tempfile.TemporaryDirectory(prefix="knotwork-bench-") as folder:
        index = Path(folder, "index.db")
        async with background() as group, contextlib.AsyncExitStack() as stack:
            context = make_context(buckets=MemoryBuckets(lambda _project: connection, group), folder=Path(folder))
            plugin = await stack.enter_async_context(factory.open(factory.config(), context))
            around: Any = _Around(plugin)
            async with open_remembering("default", around, node="bench", index=index, common=lambda: False) as rooms:
                yield _Asked(MemoryDesk(rooms))


async def _many(asked: _Asked, start: int) -> float:
    """Return how many memories a second are kept, `WINDOW` at once."""
    places = asyncio.Semaphore(WINDOW)

    async def one(number: int) -> None:
        about = ("cats", "dogs", "databases", "deployments")[number % 4]
        async with places:
            await asked.ask(
                "memory.remember", content=f"memory number {number} about {about} and word{number % 997}",
                category="longterm", tags=[f"t{number % 50}"],
            )  # fmt: skip

    begin_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(start, start + PART):
            group.create_task(one(number))
    return PART / (time.perf_counter() - begin_s)


async def _alone(asked: _Asked, turn: int) -> float:
    """Return the median of one memory after the other, in milliseconds."""
    took = []
    for number in range(ALONE):
        begin_s = time.perf_counter()
        await asked.ask("memory.remember", content=f"one by itself, {turn} {number}")
        took.append((time.perf_counter() - begin_s) * 1000)
    return statistics.median(took)


async def _recalls(asked: _Asked, fields: dict[str, Any]) -> float:
    """Return the median of a recall of fifty, in milliseconds."""
    took = []
    for _ in range(RECALLS):
        begin_s = time.perf_counter()
        await asked.ask("memory.recall", **fields)
        took.append((time.perf_counter() - begin_s) * 1000)
    return statistics.median(took)


class _Raw:
    """The same server by nats-py alone."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._payload = stream, b"x" * BYTES

    async def many(self) -> float:
        """Return how many publishes a second are acknowledged, `WINDOW` at once."""
        places = asyncio.Semaphore(WINDOW)

        async def one(number: int) -> None:
            async with places:
                await self._stream.publish(f"raw.{number}", self._payload)

        begin_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(PART):
                group.create_task(one(number))
        return PART / (time.perf_counter() - begin_s)

    async def alone(self) -> float:
        """Return the median of one publish after the other, in milliseconds."""
        took = []
        for number in range(ALONE):
            begin_s = time.perf_counter()
            await self._stream.publish(f"raw.{number}", self._payload)
            took.append((time.perf_counter() - begin_s) * 1000)
        return statistics.median(took)


@contextlib.asynccontextmanager
async def _raw(url: str, seed: str) -> AsyncIterator[_Raw]:
    client = await nats.connect(url, nkeys_seed_str=seed)
    try:
        await client.jetstream().add_stream(name="RAW", subjects=["raw.>"])
        yield _Raw(client.jetstream())
    finally:
        await client.close()
