"""Fixtures: a nats-server of each test's own (synced), work rooms in this process, and worker nodes in their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest_asyncio
from tests.integration.work import work_node

from knotwork.bus import child, server
from knotwork.trust import keys
from knotwork.work import ids, queues, records
from knotwork.work.room import Work

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[3]
"""Where `-m tests.…` is found."""


@dataclass
class Bench:
    """A server, and what works on it."""

    url: str
    seed: str
    server: server.Server
    stack: contextlib.AsyncExitStack
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def room(self, name: str = "here", lease_s: float = 2.0, **agents: dict[str, Any]) -> Work:
        """Open a work room in this process, with these agents."""
        return await self.stack.enter_async_context(
            work_node.open_node(self.url, self.seed, name, agents, lease_s=lease_s)
        )

    async def worker(
        self, name: str, lease_s: float = 2.0, *, view: str = "", ahead_s: float = 0.0, **agents: dict[str, Any]
    ) -> asyncio.subprocess.Process:
        """Start a worker node in a process of its own; returns when it works. `view`: the folder of its view.

        The clock of its machine is `ahead_s` seconds ahead of ours.
        """
        return await self.process(work_node, name=name, agents=agents, lease_s=lease_s, view=view, ahead_s=ahead_s)

    async def process(self, module: Any, **told: Any) -> asyncio.subprocess.Process:
        """Start the node that a module is, which is told this, in a process of its own; returns when it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module.__name__,
            json.dumps({"url": self.url, "seed": self.seed, **told}),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.processes.append(process)
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"ready\n"
        return process

    async def kill_server(self) -> None:
        """End nats-server with kill -9; it is started again by its keeper."""
        pid = self.server.pid
        if pid:  # 0 while it is down already; and to kill 0 would be to kill ourselves
            with contextlib.suppress(ProcessLookupError):  # it was killed before, and its keeper has not seen it yet
                os.kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def open_bench(folder: Path, *, max_storage: int = 0, **settings_: Any) -> AsyncIterator[Bench]:
    """Run a server inside the block; `settings_` are fields of `ServerSettings`, `max_storage` bounds the project."""
    pair = keys.generate()
    account = server.Account("default", (server.User(pair.public),), max_storage=max_storage)
    settings = server.ServerSettings(store_dir=folder / "store", accounts=(account,), **settings_)
    async with child.guard(), server.run_server(settings) as running, contextlib.AsyncExitStack() as stack:
        made = Bench(running.url, pair.seed, running, stack)
        try:
            yield made
        finally:
            await made.close()


def task(capability: str = "do", value: Any = None, **fields: Any) -> records.Task:
    """Return a task for `capability`."""
    routed = queues.routed(capability, fields.get("agent", ""), fields.get("node", ""))
    return records.Task(
        run=fields.pop("run", "") or ids.new_run(), queue=routed, capability=capability,
        input=msgspec.Raw(json.dumps(value).encode()), submitted_ns=time.time_ns(), **fields,
    )  # fmt: skip


async def ended(work: Work, run: str, timeout_s: float = PATIENCE_S) -> records.Outcome:
    """Return the final outcome of a run."""
    async with asyncio.timeout(timeout_s):
        return await work.waiters.ended(run)


async def until(found: Callable[[], Any]) -> Any:
    """Return the first true value of `found`, which may be awaited."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            value = found()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)
