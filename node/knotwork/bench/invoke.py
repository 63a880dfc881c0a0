"""What does an invocation cost beside a raw NATS request? Two processes each: a node with a caller, and an agent.

Ours goes through directory, router, admission, deadline and executor; raw is nats-py's `request` answered by a
nats-py callback, on the same server, the two in turn. Discovery and many calls at once are measured on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats

from knotwork.bench import peer
from knotwork.bench.rounds import middle
from knotwork.bus import child, codec, server
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.mesh import records
from knotwork.mesh.calls import Calls
from knotwork.mesh.directory import Directory
from knotwork.mesh.membership import join
from knotwork.sdk.router import Ask
from knotwork.trust import keys

ROUNDS = 3
AT_ONCE = 64
IN_FLIGHT = 10_000
PAYLOAD = codec.encode("x" * 98)

Work = Callable[[], Awaitable[Any]]


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`; `ours` and `raw` are calls per second with 64 in flight."""
    if sys.platform == "win32":
        return asyncio.run(_measure(seconds))
    import uvloop  # what a node runs on

    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="knotwork-bench-") as folder:
        pair = keys.generate()
        settings = server.ServerSettings(
            store_dir=Path(folder), accounts=(server.Account("default", (server.User(pair.public),)),)
        )
        async with child.guard(), server.run_server(settings) as running, _agent(running.url, pair.seed):
            return await _compare(running.url, pair.seed, seconds)


async def _compare(url: str, seed: str, seconds: float) -> dict[str, Any]:
    raw = await nats.connect(url, nkeys_seed_str=seed)
    async with (
        background() as group,
        open_connection(peer.endpoint(url, seed)) as connection,
        join(peer.member(connection, group, "caller", None)) as member,
    ):
        ask = Ask(capability="echo", here="caller")
        await _until(lambda: bool(member.directory.candidates(capability="echo")))

        async def ours() -> None:
            await member.calls.invoke(ask, PAYLOAD, timeout_s=30, caller="bench")

        async def plain() -> None:
            await raw.request(peer.RAW, PAYLOAD, timeout=30)

        slice_s = max(0.2, (seconds - 4) / (ROUNDS * 4))
        figures: dict[str, list[float]] = {key: [] for key in ("ours", "raw", "ours_ms", "raw_ms")}
        for _ in range(ROUNDS):
            figures["raw_ms"].append(await _alone(plain, slice_s))
            figures["ours_ms"].append(await _alone(ours, slice_s))
            figures["raw"].append(await _together(plain, slice_s))
            figures["ours"].append(await _together(ours, slice_s))
        flood_s = await _flood(ours)
        result = _result(figures, flood_s, await _discovery(member.calls))
    await raw.close()
    return result


def _result(figures: dict[str, list[float]], flood_s: float, discovery_ms: float) -> dict[str, Any]:
    ours, raw = middle(figures["ours"], figures["raw"])
    ours_ms, raw_ms = middle(figures["ours_ms"], figures["raw_ms"])
    return {
        "ours": round(ours),
        "raw": round(raw),
        "unit": f"calls/s, {AT_ONCE} in flight",
        "p50_ratio": round(ours_ms / raw_ms, 3),
        "ours_p50_ms": round(ours_ms, 4),
        "raw_p50_ms": round(raw_ms, 4),
        "in_flight": IN_FLIGHT,
        "in_flight_s": round(flood_s, 3),
        "discovery_1000_ms": round(discovery_ms, 4),
        "durability": "none: an invocation stores nothing",
    }


async def _alone(work: Work, slice_s: float) -> float:
    """Return the median of one call at a time, in milliseconds."""
    took: list[float] = []
    end_s = time.perf_counter() + slice_s
    while (start_s := time.perf_counter()) < end_s:
        await work()
        took.append(time.perf_counter() - start_s)
    return statistics.median(took) * 1000


async def _together(work: Work, slice_s: float) -> float:
    """Return calls per second with `AT_ONCE` in flight."""
    done, start_s = 0, time.perf_counter()
    end_s = start_s + slice_s

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end_s:
            await work()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
    return done / (time.perf_counter() - start_s)


async def _flood(work: Work) -> float:
    """Return how many seconds `IN_FLIGHT` calls started at once take until all are answered."""
    start_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())  # type: ignore[arg-type]
    return time.perf_counter() - start_s


async def _discovery(calls: Calls) -> float:
    """Return the median milliseconds to find and order the agents of a capability that 1,000 agents offer."""
    directory = Directory(time.monotonic, "caller")
    for number in range(20):
        agents = tuple(records.AgentRecord(f"agent-{number}-{one}", ("many",)) for one in range(50))
        record = records.NodeRecord(f"node-{number}", "u", "i", 0, 10.0, agents=agents)
        directory.heard(record.node, records.encode(record))
    took = []
    for _ in range(51):
        start_s = time.perf_counter()
        found = await calls.who(Ask(capability="many", here="caller"), directory)
        took.append(time.perf_counter() - start_s)
        assert len(found) == 1000  # noqa: PLR2004  20 nodes with 50 agents each
    return statistics.median(took) * 1000


@contextlib.asynccontextmanager
async def _agent(url: str, seed: str) -> AsyncIterator[None]:
    """Run the other side in a process of its own."""
    program = [sys.executable, peer.ARGUMENT] if child.frozen() else [sys.executable, "-P", "-m", "knotwork.bench.peer"]
    process = await child.spawn(*program, env={peer.URL: url, peer.SEED: seed}, own_executable=True)
    try:
        yield
    finally:
        await child.stop(process, grace_s=2.0)


async def _until(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(15.0):
        while not good():  # noqa: ASYNC110  nobody tells: the picture comes in by NATS
            await asyncio.sleep(0.01)
