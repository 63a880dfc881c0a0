"""What does a workflow cost? No-op steps on one node that syncs to disk, beside the plainest queue on raw nats-py.

Raw is what `bench tasks` compares with: publish, pull, result into a KV bucket, ack, without fsync; one step of ours is
set beside one message of it. The runs are started, awaited and looked after in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from knotwork.bench.rounds import middle, rounds
from knotwork.bench.tasks import open_node, open_server, raw_queue
from knotwork.bus import streams
from knotwork.flow.definitions import parsed
from knotwork.flow.room import open_flow
from knotwork.flow.runs import Wanted

if TYPE_CHECKING:
    from knotwork.flow.room import Flow

ROUNDS = 3
CHAIN = 5
FAN = 50
RUNS = 1500
AT_ONCE = 300
ALONE = 40
ITEMS = 10_000


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`; `ours` is steps per second, `raw` tasks per second of the plainest queue."""
    if sys.platform == "win32":
        return asyncio.run(_measure(seconds))
    import uvloop  # what a node runs on

    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> dict[str, Any]:
    figures: dict[str, list[float]] = {key: [] for key in ("raw", "runs", "chain", "fanout", "map", "stored")}
    for _ in rounds(seconds, ROUNDS):
        async with open_server(sync=False) as (url, seed):
            figures["raw"].append(await raw_queue(url, seed))
        async with open_engine() as flow:
            figures["chain"].append(await _alone(flow, "chain"))
            figures["fanout"].append(await _alone(flow, "fan"))
            figures["runs"].append(await _together(flow))
            figures["map"].append(await _map(flow))
            figures["stored"].append(await _stored_per_step(flow))
    median = {key: statistics.median(values) for key, values in figures.items()}
    ours, raw = middle(figures["runs"], figures["raw"])
    return {
        "ours": round(CHAIN * ours),
        "raw": round(raw),
        "unit": f"steps/s in chains of {CHAIN}, {AT_ONCE} runs at a time",
        "steps_per_s": round(CHAIN * ours),
        "runs_per_s": round(ours),
        "chain_p50_ms": round(median["chain"], 3),
        "fanout_p50_ms": round(median["fanout"], 3),
        "map_10000_s": round(median["map"], 3),
        "stored_messages_per_step": round(median["stored"], 3),
        "rounds": len(figures["raw"]),
        "durability": "ours: fsync before every acknowledgement; raw: every two minutes",
    }


@contextlib.asynccontextmanager
async def open_engine() -> AsyncIterator[Flow]:
    """Look after runs inside the block, on a server of its own, with an agent that does nothing."""
    async with (
        open_server(sync=True) as (url, seed),
        open_node(url, seed) as (connection, work),
        open_flow(connection, work, node="bench") as flow,
    ):
        step = {"capability": "echo"}
        chain = {f"s{n}": {**step, "depends_on": [f"s{n - 1}"] if n else []} for n in range(CHAIN)}
        fan = {f"f{n}": {**step, "depends_on": ["first"]} for n in range(FAN)}
        for name, steps in (
            ("chain", chain),
            ("fan", {"first": step, **fan, "last": {"kind": "join", "depends_on": list(fan)}}),
            ("map", {"each": {**step, "kind": "map", "max_items": ITEMS, "parallelism": 1000}}),
        ):
            await flow.definitions.put(parsed({"name": name, "steps": steps}), now_ns=time.time_ns())
        async with asyncio.timeout(30):
            await flow.shards.settled()
            await _one(flow, "chain")
        yield flow


async def _one(flow: Flow, workflow: str, value: bytes = b'"x"') -> None:
    begun = await flow.runs.start(Wanted(workflow, value))
    async with asyncio.timeout(60):
        finish = await flow.runs.ended(begun.id)
    assert finish.state == "completed", finish


async def _alone(flow: Flow, workflow: str) -> float:
    """Return how long one run takes when there is no other, in milliseconds."""
    took = []
    for _ in range(ALONE):
        start_s = time.perf_counter()
        await _one(flow, workflow)
        took.append(1000 * (time.perf_counter() - start_s))
    return statistics.median(took)


async def _together(flow: Flow) -> float:
    """Return how many chains are started and finished in a second, `AT_ONCE` at a time."""
    left = iter(range(RUNS))

    async def starter() -> None:
        for _ in left:
            await _one(flow, "chain")

    start_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(starter())
    return RUNS / (time.perf_counter() - start_s)


async def _map(flow: Flow) -> float:
    """Return how long a map over `ITEMS` items takes, in seconds."""
    start_s = time.perf_counter()
    await _one(flow, "map", b"[" + b",".join(str(n).encode() for n in range(ITEMS)) + b"]")
    return time.perf_counter() - start_s


async def _stored_per_step(flow: Flow) -> float:
    """Return how many messages the streams store for one step of a chain, its run's start and end not counted."""

    async def stored() -> int:
        answers = [await streams.api(flow.connection, f"STREAM.INFO.{name}") for name in ("FACTS", "TASKS", "TIMERS")]
        return sum(int(answer["state"]["last_seq"]) for answer in answers)

    before = await stored()
    for _ in range(20):
        await _one(flow, "chain")
    return ((await stored() - before) / 20 - 2) / CHAIN
