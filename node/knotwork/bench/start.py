"""How long until a node is ready, and what does it hold then? Beside a bare nats-server and one client of it, in the same run.

Every figure is the median of several starts, each in a folder of its own. `ratio` is large by nature: a node does more
at its start than a server does. What counts are the milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import psutil

from knotwork.bench.rounds import rounds
from knotwork.bus import binary, child, server_fault
from knotwork.sdk.errors import Unavailable

ROUNDS_MAX = 10
READY_S = 20.0
_LOOK_EVERY_S = 0.002


def run(seconds: float) -> dict[str, Any]:
    """Measure for about `seconds`: start and stop a node and its verbs, then a bare server; once at least."""
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="knotwork-bench-") as folder:
        for number in rounds(seconds, ROUNDS_MAX):
            place = Path(folder) / str(number)
            place.mkdir()
            rows.append({**_node(place / "data"), "raw": _bare(place)})
    found = {name: round(statistics.median(row[name] for row in rows), 1) for name in rows[0]}
    return {
        "ours": found["ready_ms"],
        "unit": "ms until ready: ours a node with all it has, raw nats-server with JetStream and a nats-py client",
        **found, "rounds": len(rows), "durability": "always",
    }  # fmt: skip


def _node(data: Path) -> dict[str, float]:
    """Start a node and stop it; milliseconds, and MB that it holds beside nats-server."""
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [*child.program(), "up", "--quiet", "--data-dir", str(data)], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=child.self_env(), start_new_session=True,
    )  # fmt: skip
    try:
        _await_ready(process, data)
        ready_ms = _since_ms(began_s)
        verb_ms = _took_ms("agents", "--data-dir", str(data))
        version_ms = _took_ms("--version")
        idle_mb = psutil.Process(process.pid).memory_info().rss / 1e6
        began_s = time.perf_counter()
        process.terminate()
        process.wait(READY_S)
        return {
            "ready_ms": ready_ms, "stop_ms": _since_ms(began_s), "idle_mb": idle_mb, "version_ms": version_ms,
            "client_verb_ms": verb_ms,
        }  # fmt: skip
    finally:
        process.kill()  # nothing to do for one that is gone
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], data: Path) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s and process.poll() is None:
        with suppress(FileNotFoundError):
            if json.loads((data / "run" / "node.json").read_bytes())["state"] == "ready":
                return
        time.sleep(_LOOK_EVERY_S)
    raise Unavailable("The node that was to be measured did not start.", code="bench.no_node", retry_after_s=1.0)


def _took_ms(*words: str) -> float:
    began_s = time.perf_counter()
    subprocess.run(
        [*child.program(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=child.self_env(),
        timeout=READY_S, check=True,
    )  # fmt: skip
    return _since_ms(began_s)


def _since_ms(began_s: float) -> float:
    return (time.perf_counter() - began_s) * 1000


def _bare(place: Path) -> float:
    """Return the milliseconds from the start of a bare server until a nats-py client has an answer of JetStream."""
    port = server_fault.free_port("127.0.0.1")
    began_s = time.perf_counter()
    server = subprocess.Popen(
        [str(binary.find().path), "-js", "-sd", str(place / "bare"), "-a", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        asyncio.run(_connected(port))
        return _since_ms(began_s)
    finally:
        server.terminate()
        server.wait(READY_S)


async def _connected(port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            with suppress(OSError):  # before that nats-py would only wait for two seconds
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        await client.jetstream().account_info()
        await client.close()
