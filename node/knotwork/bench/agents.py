"""What does it cost an agent to talk, to claim, to remember? A real node, real bridges over stdio, everything synced to disk.

Single calls are measured as an agent makes them: a tool of `knotwork mcp`, from the line written to the line read. Many
at once are measured as ops over NATS. Raw is nats-py publishing the same bytes to a stream of the same server,
`AT_ONCE` in flight; claims are set beside what it makes with as many in flight as there are workers, since each claim is
stored, and synced, before it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import psutil

from knotwork.bench.rounds import middle, rounds
from knotwork.bus import child, codec, frames, streams, subjects
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.mesh import session_records
from knotwork.sdk.errors import Internal
from knotwork.talk.stores import INBOX_MAX
from knotwork.trust import keys

ROUNDS = 3
AT_ONCE = 512
CLAIMED_AT_ONCE = 16
ALONE = 60
AGENTS, MEMORIES, MESSAGES, WORKERS, CLAIMS = 1001, 10_000, 50, 4, 1000
WORDS = ("knot", "thread", "node", "agent", "queue", "fact", "stream", "memory", "lease", "channel", "token", "router")
TEXT = "a message of one hundred bytes, as agents send them to each other: short, plain, and said only once"
Ask = Callable[..., Coroutine[Any, Any, Any]]


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`; `ours` is channel messages per second, `raw` publishes per second."""
    if sys.platform == "win32":
        return asyncio.run(measure(seconds))
    import uvloop  # what a node runs on

    return uvloop.run(measure(seconds))


async def measure(seconds: float) -> dict[str, Any]:
    """Return what `run` returns."""
    keys = ("raw", "raw of few", "channel", "direct", "memory", "claims", "claims of more")
    many: dict[str, list[float]] = {key: [] for key in keys}
    began_s = time.monotonic()
    async with (
        child.guard(),
        open_node() as place,
        asking(place) as ask,
        Bridge.open(place, "one") as one,
        Bridge.open(place, "other") as other,
    ):
        await _fill(place, ask)
        alone = await _tools(one, other, ask)
        slice_s = max(0.5, (seconds - 25) / (ROUNDS * 6))
        for _ in range(ROUNDS):  # before much is said: a node has to do for a while then
            many["claims"].append(await claims(ask))
            many["claims of more"].append(await claims(ask, at_once=CLAIMED_AT_ONCE))
            many["raw of few"].append(await _raw(place, slice_s, at_once=WORKERS))
        for _ in rounds(began_s + seconds - time.monotonic(), ROUNDS):
            many["raw"].append(await _raw(place, slice_s))
            many["channel"].append(
                await _together(lambda _: ask("channel.send", channel="errors", text=TEXT), slice_s)
            )  # fmt: skip
            await _empty(place)
            many["direct"].append(await direct(ask, others(), slice_s, held=INBOX_MAX))
            many["memory"].append(
                await _together(lambda n: ask("memory.remember", content=f"{n} {time.time_ns()}"), slice_s)
            )  # fmt: skip
        bridge_mb = psutil.Process(one.pid).memory_info().rss / 1e6
    return _told(alone, many) | {"bridge_mb": round(bridge_mb, 1)}


def _told(alone: dict[str, float], many: dict[str, list[float]]) -> dict[str, Any]:
    """Return what was measured, as it is told: medians of milliseconds, and of rounds."""
    median = {key: statistics.median(values) for key, values in many.items()}
    ours, plain = middle(many["channel"], many["raw"])
    return {
        "ours": round(ours),
        "raw": round(plain),
        "unit": f"channel messages/s, {AT_ONCE} in flight",
        **{f"{name}_p50_ms": round(took, 3) for name, took in alone.items()},
        "direct_per_s": round(median["direct"]),
        "memory_writes_per_s": round(median["memory"]),
        "claims_per_s": round(median["claims"]),
        f"claims_of_{CLAIMED_AT_ONCE}_per_s": round(median["claims of more"]),
        f"raw_of_{WORKERS}_per_s": round(median["raw of few"]),
        "agents": AGENTS,
        "memories": MEMORIES,
        "rounds": len(many["raw"]),
        "durability": "ours and raw: fsync before every acknowledgement",
    }


# -- a node and what asks it ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_node() -> AsyncIterator[Place]:
    """Run a node of its own inside the block."""
    with tempfile.TemporaryDirectory(prefix="knotwork-bench-") as name:
        folder = Path(name)
        config = folder / "knotwork.toml"
        await asyncio.to_thread(config.write_text, "[web]\nenabled = false\n", encoding="utf-8")
        words = ("up", "--quiet", "--data-dir", str(folder), "--config", str(config))
        process = await child.spawn(*child.program(), *words, own_executable=True)
        try:
            async with asyncio.timeout(60):
                about = await _ready(folder)
            yield Place(folder, about["url"], about["node"])
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _ready(folder: Path) -> dict[str, Any]:
    while True:
        about = await asyncio.to_thread(_about, folder)
        if about.get("state") == "ready":
            return about
        await asyncio.sleep(0.05)


def _about(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        told: dict[str, Any] = json.loads((folder / "run" / "node.json").read_text(encoding="utf-8"))
        return told
    return {}


@dataclass(frozen=True, slots=True)
class Place:
    """A node: its data folder, where its NATS is, and its name."""

    folder: Path
    url: str
    name: str

    def seed(self, role: str) -> str:
        """Return the key of `local` doors or of the `node` itself."""
        return keys.load(self.folder / "keys" / f"{role}-default.nk").seed


@contextlib.asynccontextmanager
async def asking(place: Place) -> AsyncIterator[Ask]:
    """Yield what asks ops as local doors do, over one connection."""
    endpoint = Endpoint((place.url,), name="bench", seed=place.seed("local"))
    async with open_connection(endpoint) as connection:

        async def ask(op: str, **fields: Any) -> Any:
            subject = subjects.op(op, place.name)
            frame = frames.read(await connection.request(subject, codec.encode(fields), timeout_s=60))
            if frame.kind == "error":
                raise frames.read_error(frame.data)
            return codec.decode(frame.data)

        yield ask


class Bridge:
    """A `knotwork mcp` and its client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self.pid = process, process.pid
        self._count = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, place: Place, label: str) -> AsyncIterator[Bridge]:
        """Be an agent inside the block, with every tool."""
        process = await child.spawn(
            *child.program(), "mcp", "--toolset", "all", "--session", label, "--data-dir", str(place.folder),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, own_executable=True,
        )  # fmt: skip
        made = cls(process)
        client = {"name": "bench", "version": "1"}
        await made.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=client)
        try:
            yield made
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def ask(self, method: str, **params: Any) -> Any:
        """Ask, and return the result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        told = {"jsonrpc": "2.0", "id": self._count, "method": method, "params": params}
        self._process.stdin.write(codec.encode(told) + b"\n")
        while True:
            line = await self._process.stdout.readline()
            if not line:
                raise Internal("the bridge ended", code="bench.bridge")
            answer = codec.decode(line)
            if isinstance(answer, dict) and answer.get("id") == self._count:
                return answer["result"]

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool, and return what it answers as data."""
        answer = await self.ask("tools/call", name=tool, arguments=arguments)
        if answer["isError"]:
            raise Internal(f"{tool}: {answer['content'][0]['text']}", code="bench.bridge")
        return answer["structuredContent"]


# -- what there is to be found -------------------------------------------------------------------------------------------


def others() -> list[str]:
    """Return the handles of the agents that are only there to be found and written to."""
    return [f"other-{number}" for number in range(AGENTS - 1)]


async def _fill(place: Place, ask: Ask) -> None:
    """Let there be agents and memories to look among."""
    endpoint = Endpoint((place.url,), name="bench", seed=place.seed("node"), inbox_prefix="_NODE")
    async with open_connection(endpoint) as connection:
        for name in others():
            now_ns = time.time_ns()
            agent = session_records.identity("default", "bench", "elsewhere", "/", name, "")
            record = session_records.AgentSession(
                agent, name, "default", "bench", place.name, "", capabilities=("look",), registered=True,
                registered_ns=now_ns, seen_ns=now_ns,
            )  # fmt: skip
            message = await connection.request(f"$KV.AGENTS.agent.{agent}", session_records.encode(record))
            assert b'"seq"' in message.data, message.data
    chance = random.Random(7)  # noqa: S311  words, not secrets
    for start in range(0, MEMORIES, 100):
        texts = [" ".join(chance.choices(WORDS, k=12)) + f" number {start + number}" for number in range(100)]
        await ask(
            "memory.remember_bulk",
            memories=[{"content": text, "scope": "team", "category": "learnings"} for text in texts],
        )


# -- one at a time, as an agent does it ----------------------------------------------------------------------------------


async def _tools(one: Bridge, other: Bridge, ask: Ask) -> dict[str, float]:
    """Return the median of each call in milliseconds."""
    await one.call("register_agent", agentType="bench", capabilities=["claim"])
    there = (await other.call("register_agent", agentType="bench", capabilities=["rest"]))["guid"]
    for number in range(MESSAGES):
        await one.call("send_message", channel="roadmap", message=f"{TEXT} {number}")
    for number in range(ALONE):
        await ask("task.submit", capability="claim", input=number)
    calls: dict[str, Callable[[int], Awaitable[Any]]] = {
        "send": lambda number: one.call("send_message", channel="roadmap", message=f"{TEXT} {number}"),
        "direct": lambda number: one.call("send_direct_message", recipientGuid=there, message=f"{TEXT} {number}"),
        "read": lambda _: one.call("read_messages", channel="roadmap", limit=MESSAGES),
        "claim": lambda _: one.call("claim_work", capability="claim"),
        "discover": lambda _: one.call("discover_agents", capability="look", includeOffline=True),
        "remember": lambda number: one.call("remember", content=f"{TEXT} {number}"),
        "recall": lambda number: one.call("recall_context", search=" ".join(WORDS[number % 9 : number % 9 + 2])),
    }
    found = {}
    for name, call in calls.items():
        took = []
        for number in range(ALONE):
            start_s = time.perf_counter()
            said = await call(number)
            took.append(1000 * (time.perf_counter() - start_s))
            if name == "claim":  # an agent holds only so many at once
                await one.call("complete_work", work_id=said["work_id"], result=None)
        found[name] = statistics.median(took)
    return found


# -- many at once --------------------------------------------------------------------------------------------------------


async def _raw(place: Place, slice_s: float, at_once: int = AT_ONCE) -> float:
    """Return how many messages raw nats-py publishes to a stream in a second, `at_once` in flight."""
    link = await nats.connect(place.url, nkeys_seed_str=place.seed("node"), inbox_prefix=b"_NODE")
    stream = link.jetstream()
    await stream.add_stream(name="BENCH", subjects=["bench.>"])
    payload = TEXT.encode()
    try:
        return await _together(lambda _: stream.publish("bench.raw", payload), slice_s, at_once=at_once)
    finally:
        await stream.delete_stream("BENCH")
        await link.close()


async def _empty(place: Place) -> None:
    """Let nothing be in any inbox."""
    endpoint = Endpoint((place.url,), name="bench", seed=place.seed("node"), inbox_prefix="_NODE")
    async with open_connection(endpoint) as connection:
        await streams.api(connection, f"STREAM.PURGE.{subjects.INBOXES}")


async def direct(ask: Ask, to: Sequence[str], slice_s: float, *, held: int) -> float:
    """Return how many messages are sent in a second to many in turn, whose inboxes are empty and hold `held` each.

    Nobody reads them meanwhile, so it is over as soon as all are full.
    """
    return await _together(
        lambda number: ask("message.send", to=to[number % len(to)], text=TEXT), slice_s, most=held * len(to)
    )


async def _together(
    call: Callable[[int], Awaitable[Any]], slice_s: float, *, most: int = sys.maxsize, at_once: int = AT_ONCE
) -> float:
    """Return calls per second with `at_once` in flight, for a while or until it were `most`."""
    done, start_s = 0, time.perf_counter()
    end_s = start_s + slice_s

    async def worker() -> None:
        nonlocal done
        while done < most and time.perf_counter() < end_s:
            done += 1
            await call(done)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return done / (time.perf_counter() - start_s)


async def claims(ask: Ask, at_once: int = 1) -> float:
    """Return how many tasks `WORKERS` claim in a second, `at_once` in one call each.

    It ends with the last claim: who asks for another one then waits in vain, and that is no part of it.
    """
    async with asyncio.TaskGroup() as group:
        for number in range(CLAIMS):
            group.create_task(ask("task.submit", capability="many", input=number))
    held: list[str] = []
    start_s = last_s = time.perf_counter()

    async def worker(name: str) -> None:
        nonlocal last_s
        while len(held) < CLAIMS:
            told = await ask("work.claim", worker=name, capabilities=["many"], max_tasks=at_once, wait_s=0.5)
            if told["tasks"]:
                held.extend(task["claim"] for task in told["tasks"])
                last_s = time.perf_counter()

    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(worker(f"claimer-{number}"))
    async with asyncio.TaskGroup() as group:
        for claim in held:
            group.create_task(ask("work.complete", claim=claim, output=None))
    return CLAIMS / (last_s - start_s)
