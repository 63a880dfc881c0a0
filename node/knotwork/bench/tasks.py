"""What does a durable task cost beside the plainest queue on raw nats-py? One process each, no-op tasks, end to end.

Raw is publish (64 in flight), pull, result into a KV bucket, ack, on a server that does not sync to disk. Ours is
submit, lease, execute, outcome recorded, visible to whoever awaits it, on a server that syncs before it acknowledges.
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

import msgspec
import nats
from nats.js.api import StreamConfig

from knotwork.bench import peer
from knotwork.bench.rounds import middle, rounds
from knotwork.bus import child, server, streams
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.trust import keys
from knotwork.work import ids, records
from knotwork.work.room import open_work

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.work.room import Work

ROUNDS = 3
COUNT = 5000
AT_ONCE = 2000
"""Submitters that wait for their outcome at the same time."""
PLACES = 1000
IDLE = 100
INPUT = msgspec.Raw(b'"' + b"x" * 98 + b'"')


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`; `ours` with fsync and `raw` without are tasks per second end to end."""
    if sys.platform == "win32":
        return asyncio.run(_measure(seconds))
    import uvloop  # what a node runs on

    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> dict[str, Any]:
    figures: dict[str, list[float]] = {
        key: [] for key in ("raw", "fsync", "interval", "raw_idle", "idle", "submit", "raw_submit")
    }
    stored = 0.0
    for _ in rounds(seconds, 3 * ROUNDS):
        async with open_server(sync=False) as (url, seed):
            figures["raw"].append(await raw_queue(url, seed, figures))
        async with open_server(sync=True) as (url, seed), open_node(url, seed) as (connection, work):
            figures["fsync"].append(await drain(work, COUNT))
            await _alone(work, figures)
            stored = await _stored_per_task(connection, work)
        async with open_server(sync=False) as (url, seed), open_node(url, seed) as (_, work):
            figures["interval"].append(await drain(work, COUNT))
    return _result(figures, stored)


def _result(figures: dict[str, list[float]], stored: float) -> dict[str, Any]:
    median = {key: statistics.median(values) for key, values in figures.items()}
    ours, raw = middle(figures["fsync"], figures["raw"])
    return {
        "ours": round(ours),
        "raw": round(raw),
        "unit": "tasks/s, end to end",
        "fsync_per_s": round(ours),
        "interval_per_s": round(median["interval"]),
        "idle_p50_ms": round(median["idle"], 3),
        "raw_idle_p50_ms": round(median["raw_idle"], 3),
        "submit_p50_ms": round(median["submit"], 3),
        "raw_submit_p50_ms": round(median["raw_submit"], 3),
        "stored_messages_per_task": round(stored, 3),
        "durability": "ours: fsync before every acknowledgement (fsync_per_s) or every two minutes (interval_per_s);"
        " raw: every two minutes",
    }


@contextlib.asynccontextmanager
async def open_server(*, sync: bool) -> AsyncIterator[tuple[str, str]]:
    """Run a server of its own inside the block; gives its address and a key."""
    with tempfile.TemporaryDirectory(prefix="knotwork-bench-") as folder:
        pair = keys.generate()
        settings = server.ServerSettings(
            store_dir=Path(folder),
            accounts=(server.Account("default", (server.User(pair.public),)),),
            sync_always=sync,
        )
        async with child.guard(), server.run_server(settings) as running:
            yield running.url, pair.seed


@contextlib.asynccontextmanager
async def open_node(url: str, seed: str) -> AsyncIterator[tuple[Connection, Work]]:
    """Take part in the durable work of a project inside the block, with an agent that does nothing."""
    async with background() as group, open_connection(peer.endpoint(url, seed)) as connection:
        hosting = peer.hosting(group, "bench", "echo", places=PLACES)
        for agent in hosting.agents():
            await agent.slot.settled(10.0)
        async with open_work(connection, hosting, project="default", node="bench", agents=hosting.agents) as work:
            yield connection, work


# -- ours ----------------------------------------------------------------------------------------------------------------


def _task() -> records.Task:
    now_ns = time.time_ns()
    return records.Task(run=ids.new_run(now_ns), queue="echo", capability="echo", input=INPUT, submitted_ns=now_ns)


async def _one(work: Work) -> records.Outcome:
    task = _task()
    async with work.waiters.expected(task.run) as coming:
        await work.submitter.submit(task)
        return await coming


async def drain(work: Work, count: int) -> float:
    """Return tasks per second, end to end, with `AT_ONCE` waiting for their outcomes."""
    await _one(work)
    left = iter(range(count))

    async def submitter() -> None:
        for _ in left:
            outcome = await _one(work)
            assert outcome.state == "completed", outcome

    start_s = time.perf_counter()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(submitter())
    return count / (time.perf_counter() - start_s)


async def _alone(work: Work, figures: dict[str, list[float]]) -> None:
    """Measure one task at a time: until it is durable, and until its agent has begun it, in milliseconds."""
    submits, idles = [], []
    for _ in range(IDLE):
        task, start_ns = _task(), time.time_ns()
        start_s = time.perf_counter()
        async with work.waiters.expected(task.run) as coming:
            await work.submitter.submit(task)
            submits.append(1000 * (time.perf_counter() - start_s))
            outcome = await coming
        idles.append((outcome.started_ns - start_ns) / 1e6)
    figures["submit"].append(statistics.median(submits))
    figures["idle"].append(statistics.median(idles))


async def _stored_per_task(connection: Connection, work: Work) -> float:
    """Return how many messages the streams store for one task, by the server's own counters."""

    async def stored() -> int:
        names = ("FACTS", "TASKS", "TIMERS", "DEAD")
        answers = [await streams.api(connection, f"STREAM.INFO.{name}") for name in names]
        return sum(int(answer["state"]["last_seq"]) for answer in answers)

    before = await stored()
    await drain(work, 499)  # and one to warm up
    return (await stored() - before) / 500


# -- raw -----------------------------------------------------------------------------------------------------------------


async def raw_queue(url: str, seed: str, figures: dict[str, list[float]] | None = None) -> float:
    """Return tasks per second of the plainest queue; into `figures` goes one at a time, in milliseconds."""
    client = await nats.connect(url, nkeys_seed_str=seed)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="RAW", subjects=["raw.>"]))
    results = await js.create_key_value(bucket="RAW_RESULTS")
    consumer = await js.pull_subscribe("raw.task", durable="raw")
    payload = bytes(INPUT)
    left = iter(range(COUNT))

    async def publisher() -> None:
        for _ in left:
            await js.publish("raw.task", payload)

    async def finish(message: Any) -> None:
        await results.put(str(message.metadata.sequence.stream), message.data)
        await message.ack()

    start_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(publisher())
    done = 0
    while done < COUNT:
        messages = await consumer.fetch(256, timeout=5)
        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(finish(message))
        done += len(messages)
    per_s = COUNT / (time.perf_counter() - start_s)
    if figures is not None:
        await _raw_alone(js, consumer, finish, figures)
    await client.close()
    return per_s


async def _raw_alone(js: Any, consumer: Any, finish: Any, figures: dict[str, list[float]]) -> None:
    took: list[float] = []
    submits: list[float] = []
    for _ in range(IDLE):
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(consumer.fetch(1, timeout=5))
            await asyncio.sleep(0.002)  # the worker waits already
            start_s = time.perf_counter()
            await js.publish("raw.task", bytes(INPUT))
            submits.append(1000 * (time.perf_counter() - start_s))
        took.append(1000 * (time.perf_counter() - start_s))
        await finish(fetching.result()[0])
    figures["raw_idle"].append(statistics.median(took))
    figures["raw_submit"].append(statistics.median(submits))
