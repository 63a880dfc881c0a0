"""DBOS on SQLite with a write-ahead log and full sync: the fastest of its settings that syncs each commit."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

from dbos import DBOS
from graphs import CHAIN, FAN, measure

FILE = Path(tempfile.mkdtemp()) / "dbos.sqlite"
with sqlite3.connect(FILE) as made:
    made.execute("PRAGMA journal_mode=WAL")
DBOS(config={
    "name": "peer", "system_database_url": f"sqlite:///{FILE}", "log_level": "ERROR", "run_admin_server": False,
})  # fmt: skip


@DBOS.step()
async def step(value: str) -> str:
    """Do nothing."""
    return value


@DBOS.workflow()
async def chain(value: str) -> str:
    """Do the steps one after the other."""
    for _ in range(CHAIN):
        value = await step(value)
    return value


@DBOS.workflow()
async def fan(value: str) -> str:
    """Do one step, many beside each other, and one at the end."""
    await step(value)
    await asyncio.gather(*(step(value) for _ in range(FAN)))  # noqa: TID251  what its users write
    return await step(value)


async def start(graph: str) -> object:
    """Run one workflow."""
    handle = await DBOS.start_workflow_async({"chain": chain, "fan": fan}[graph], "x")
    return await handle.get_result()


async def main() -> None:
    """Measure."""
    DBOS.launch()
    await measure(start, runs=300, at_once=32, alone=15)
    sys.stdout.flush()
    os._exit(0)  # its threads would take seconds


asyncio.run(main())
