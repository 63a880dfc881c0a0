"""How fast is the view of the past read from the streams, how far is it behind under load, how large does it get?

Beside it the same messages are read by nats-py's `fetch` in the same run, and thrown away. What it has to reach is the
speed of the tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
import psutil
from nats.js.api import AckPolicy, ConsumerConfig

from knotwork.bench import peer, tasks
from knotwork.bus import subjects
from knotwork.bus.commit import open_group_commit
from knotwork.bus.connection import open_connection
from knotwork.view.keeper import open_keeper
from knotwork.view.lists import Filter
from knotwork.view.room import open_view
from knotwork.work import ids, records, stores

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.view.room import View

COUNT = 30_000
"""Tasks that are stored before it begins, each as two messages; `fold` may be asked for others."""
STEP = 2_000
LIVE = 3_000
LISTS = 100
FETCH = 1_000
CATCH_UP_S = 600.0


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`: reading what is there, then keeping up with tasks that run end to end."""
    return _run(_measure(seconds))


def fold(count: int) -> dict[str, Any]:
    """Measure how `count` tasks are read, and how large the process is after a fifth of them and at the end."""
    return _run(_folded(count))


def _run(work: Any) -> dict[str, Any]:
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop  # what a node runs on

    return uvloop.run(work)


async def _measure(seconds: float) -> dict[str, Any]:
    end_s = time.monotonic() + seconds
    read = await _folded(COUNT)
    live = await _live(end_s)
    return {
        "ours": read["folded_per_s"],
        "unit": "messages/s: ours read and written to SQLite, raw only read", **read, **live,
        "durability": "none of its own: it is read from the streams again when it is lost",
    }  # fmt: skip


async def _folded(count: int) -> dict[str, Any]:
    async with tasks.open_server(sync=False) as (url, seed), open_connection(peer.endpoint(url, seed)) as connection:
        await stores.open_stores(connection)
        await _store(connection, max(STEP, count // 5))
        async with open_one(connection) as (view, process):
            await view.synced(CATCH_UP_S)
            small = process.memory_info().rss
            folded, cpu_s = view.told().folded, _cpu_s(process)
            process.suspend()  # so that all of it is there when it begins
            await _store(connection, count - max(STEP, count // 5))
            process.resume()
            begin_s = time.perf_counter()
            await view.synced(CATCH_UP_S)
            took_s, cpu_s = time.perf_counter() - begin_s, _cpu_s(process) - cpu_s
            folded = view.told().folded - folded
            listed = await _list(view)
            raw = await _only_read(url, seed)
            return {
                "raw": round(raw),
                "folded_per_s": round(folded / took_s), "folded_per_cpu_s": round(folded / cpu_s), "tasks": count,
                "list_p50_ms": listed, "small_mb": round(small / 1e6, 1),
                "large_mb": round(process.memory_info().rss / 1e6, 1),
            }  # fmt: skip


async def _store(connection: Connection, count: int) -> None:
    """Store tasks and their ends, as if they had run."""
    async with open_group_commit(connection) as facts, open_group_commit(connection) as waiting:
        for begin in range(0, count, STEP):
            stored = []
            for number in range(begin, min(count, begin + STEP)):
                now_ns = time.time_ns()
                task = records.Task(
                    run=ids.new_run(now_ns), queue="echo", capability="echo", input=tasks.INPUT,
                    submitted_ns=now_ns, labels={"team": f"t{number % 50}"},
                )  # fmt: skip
                end = records.Outcome(
                    "completed",
                    records.raw(task),
                    tasks.INPUT,
                    node="n",
                    agent="echo",
                    started_ns=now_ns,
                    ended_ns=now_ns,
                )
                stored += [
                    waiting.put(task.subject, records.encode(task)),
                    facts.put(records.outcome_subject(task.run, "task", 0, 1), records.encode(end)),
                ]
            await asyncio.wait(stored)


async def _only_read(url: str, seed: str) -> float:
    """Return how many messages per second of the same streams nats-py reads, one process, as many at once as pays."""
    client, read = await nats.connect(url, nkeys_seed_str=seed), 0
    try:
        begin_s = time.perf_counter()
        for stream in (subjects.TASKS, subjects.FACTS):
            settings = ConsumerConfig(ack_policy=AckPolicy.NONE)
            consumer = await client.jetstream().pull_subscribe(">", stream=stream, config=settings)
            left = (await consumer.consumer_info()).num_pending or 0
            while left > 0:
                found = len(await consumer.fetch(min(FETCH, left), timeout=CATCH_UP_S))
                left, read = left - found, read + found
        return read / (time.perf_counter() - begin_s)
    finally:
        await client.close()


async def _list(view: View) -> float:
    """Return how long a page of a filtered list takes, in milliseconds."""
    took = []
    for number in range(LISTS):
        begin_s = time.perf_counter()
        await view.list(Filter(labels={"team": f"t{number % 50}"}), limit=50, fresh_s=0)
        took.append((time.perf_counter() - begin_s) * 1000)
    return round(statistics.median(took), 2)


async def _live(end_s: float) -> dict[str, Any]:
    """Run tasks end to end and look how far the view is behind meanwhile."""
    behind: list[float] = []
    rates: list[float] = []
    async with (
        tasks.open_server(sync=True) as (url, seed),
        tasks.open_node(url, seed) as (connection, work),
        open_one(connection) as (view, process),
    ):
        await view.synced(CATCH_UP_S)

        async def watch() -> None:
            while True:
                await asyncio.sleep(0.05)
                behind.append(view.behind().seconds)

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            while not rates or time.monotonic() < end_s - 1:
                rates.append(await tasks.drain(work, LIVE))
            watching.cancel()
        return {
            "live_tasks_per_s": round(statistics.median(rates)), "behind_p50_s": round(statistics.median(behind), 3),
            "behind_max_s": round(max(behind), 3), "live_mb": round(process.memory_info().rss / 1e6, 1),
        }  # fmt: skip


@contextlib.asynccontextmanager
async def open_one(connection: Connection) -> AsyncIterator[tuple[View, psutil.Process]]:
    """Follow a project inside the block; gives its view and the process that writes it."""
    with tempfile.TemporaryDirectory(prefix="knotwork-bench-") as folder:
        async with open_keeper() as keeper, open_view(keeper, Path(folder), "default", connection) as view:
            keeper.begin()
            await view.synced(CATCH_UP_S)
            yield view, psutil.Process(view.pid)


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system
