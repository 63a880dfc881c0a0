"""What do many tasks cost that wait, and what does a second node bring? A submission beside a raw publish, and beside few.

What is asked is whether anything grows with what waits, or with who works: `ours` is measured while a hundred thousand
wait, `raw` is one message that nats-py publishes to a stream of the same server meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import nats
from nats.js.api import StreamConfig

from knotwork.bench import peer, tasks, view
from knotwork.bench.rounds import rounds
from knotwork.bus import child
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.sdk.errors import Unavailable
from knotwork.view.lists import Filter
from knotwork.work import ids, records
from knotwork.work.room import open_work

if TYPE_CHECKING:
    from knotwork.view.room import View
    from knotwork.work.room import Work

FEW, MANY = 200, 100_000
"""Tasks that wait: enough for a full page, and as many as have to be borne."""
AT_ONCE = 1000
ASKED = 200
PAGE = 50
CATCH_UP_S = 600.0
COUNT, ROUNDS = 15_000, 3


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`: once what storing a hundred thousand tasks takes, then rounds of nodes that work."""
    return asyncio.run(_measure(seconds)) if sys.platform == "win32" else _on_uvloop(_measure(seconds))


def _on_uvloop(work: Any) -> dict[str, Any]:
    import uvloop  # what a node runs on

    result: dict[str, Any] = uvloop.run(work)
    return result


async def _measure(seconds: float) -> dict[str, Any]:
    began_s = time.monotonic()
    waiting = await _waiting()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in rounds(began_s + seconds - time.monotonic(), ROUNDS):
        for nodes, found in rates.items():
            found.append(await _drained(nodes))
    one, two = (statistics.median(rates[nodes]) for nodes in (1, 2))
    return {
        "ours": waiting["submit_p50_ms"], "raw": waiting["raw_p50_ms"],
        "unit": f"ms to submit a task while {MANY} wait; raw: to publish a message", **waiting,
        "one_node_per_s": round(one), "two_nodes_per_s": round(two), "nodes_ratio": round(two / one, 3),
        "rounds": len(rates[1]), "durability": "fsync before every acknowledgement, ours and raw",
    }  # fmt: skip


# -- many that wait ------------------------------------------------------------------------------------------------------


async def _waiting() -> dict[str, Any]:
    async with (
        tasks.open_server(sync=True) as (url, seed),
        tasks.open_node(url, seed) as (connection, work),
        view.open_one(connection) as (past, _),
    ):
        await _submit(work, FEW)
        few = await _cost(work, past)
        start_s = time.perf_counter()
        await _submit(work, MANY)
        stored_s = time.perf_counter() - start_s
        await past.synced(CATCH_UP_S)
        read_s = time.perf_counter() - start_s
        many = await _cost(work, past)
        raw_ms = await _raw(url, seed)
        counted = (await past.counts(("state",))).get(("pending",), 0)
    return {
        "pending": counted, "submitted_per_s": round(MANY / stored_s), "listed_after_s": round(read_s - stored_s, 3),
        "raw_p50_ms": round(raw_ms, 3),
        **{f"{name}_p50_ms": round(value, 3) for name, value in many.items()},
        **{f"few_{name}_p50_ms": round(value, 3) for name, value in few.items()},
        **{f"{name}_ratio": round(many[name] / few[name], 3) for name in many},
    }  # fmt: skip


def _task() -> records.Task:
    """Return a task that nobody takes."""
    now_ns = time.time_ns()
    return records.Task(
        run=ids.new_run(now_ns), queue="later", capability="later", input=tasks.INPUT, submitted_ns=now_ns
    )


async def _submit(work: Work, count: int) -> None:
    left = iter(range(count))

    async def submitter() -> None:
        for _ in left:
            await work.submitter.submit(_task())

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(submitter())


async def _cost(work: Work, past: View) -> dict[str, float]:
    """Return medians in milliseconds: to submit one, to list a page with what was just stored, and as it stands."""
    took: dict[str, list[float]] = {"submit": [], "list": [], "page": []}

    async def timed(name: str, doing: Any) -> None:
        start_s = time.perf_counter()
        await doing
        took[name].append(1000 * (time.perf_counter() - start_s))

    wanted = Filter(states=frozenset({"pending"}))
    for _ in range(ASKED):
        await timed("submit", work.submitter.submit(_task()))
    for _ in range(ASKED // 2):
        await timed("list", past.list(wanted, limit=PAGE))
        await timed("page", past.list(wanted, limit=PAGE, fresh_s=0))
    return {name: statistics.median(values) for name, values in took.items()}


async def _raw(url: str, seed: str) -> float:
    """Return the median of one publish after the other, in milliseconds."""
    client = await nats.connect(url, nkeys_seed_str=seed)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="RAW", subjects=["raw.>"]))
    took = []
    for _ in range(ASKED):
        start_s = time.perf_counter()
        await js.publish("raw.task", bytes(tasks.INPUT))
        took.append(1000 * (time.perf_counter() - start_s))
    await client.close()
    return statistics.median(took)


# -- nodes that work -----------------------------------------------------------------------------------------------------


async def _drained(nodes: int) -> float:
    """Return tasks per second, end to end, submitted here and carried out by so many nodes in processes of their own."""
    async with tasks.open_server(sync=True) as (url, seed), contextlib.AsyncExitStack() as stack:
        for number in range(nodes):
            await stack.enter_async_context(_worker(url, seed, f"worker{number}"))
        async with background() as group, open_connection(peer.endpoint(url, seed)) as connection:
            hosting = peer.hosting(group, "submitter", None)
            async with open_work(
                connection, hosting, project="default", node="submitter", agents=hosting.agents
            ) as work:
                return await tasks.drain(work, COUNT)


@contextlib.asynccontextmanager
async def _worker(url: str, seed: str, name: str) -> AsyncIterator[None]:
    """Run a node that works inside the block."""
    program = [sys.executable, peer.ARGUMENT] if child.frozen() else [sys.executable, "-P", "-m", "knotwork.bench.peer"]
    env = {peer.URL: url, peer.SEED: seed, peer.WORKER: name}
    process = await child.spawn(*program, env=env, own_executable=True, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            if await process.stdout.readline() != peer.READY:
                raise Unavailable("A node of the bench did not start.", code="bench.no_node")
        yield
    finally:
        await child.stop(process, grace_s=2.0)
