"""Prefect on its own server with SQLite, its default."""

from __future__ import annotations

import asyncio
import os
import tempfile

os.environ |= {
    "PREFECT_HOME": tempfile.mkdtemp(), "PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_TO_API_ENABLED": "false",
}  # fmt: skip

from graphs import CHAIN, FAN, measure
from prefect import flow, task


@task
async def step(value: str) -> str:
    """Do nothing."""
    return value


@flow
async def chain(value: str) -> str:
    """Do the steps one after the other."""
    for _ in range(CHAIN):
        value = await step(value)
    return value


@flow
async def fan(value: str) -> str:
    """Do one step, many beside each other, and one at the end."""
    await step(value)
    await asyncio.gather(*(step(value) for _ in range(FAN)))  # noqa: TID251  what its users write
    return await step(value)


async def start(graph: str) -> object:
    """Run one flow."""
    return await {"chain": chain, "fan": fan}[graph]("x")


asyncio.run(measure(start, runs=20, at_once=8, alone=3))
