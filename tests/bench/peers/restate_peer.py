"""Restate: one server with its defaults (log synced), services in this process. `RESTATE_SERVER` is its executable."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile

import httpx
import hypercorn.asyncio
import restate
from graphs import CHAIN, FAN, measure

AT_ONCE = 100
bench = restate.Service("bench")


def nothing(value: str) -> str:
    """Do nothing."""
    return value


@bench.handler()
async def chain(ctx: restate.Context, value: str) -> str:
    """Do the steps one after the other."""
    for number in range(CHAIN):
        value = await ctx.run_typed(f"s{number}", nothing, value=value)
    return value


@bench.handler()
async def echo(ctx: restate.Context, value: str) -> str:
    """Do nothing, as a call of its own: what another worker could do."""
    return value


@bench.handler()
async def fan(ctx: restate.Context, value: str) -> str:
    """Do one step, many calls beside each other, and one step at the end."""
    await ctx.run_typed("first", nothing, value=value)
    calls = [ctx.service_call(echo, arg=value) for _ in range(FAN)]
    await restate.gather(*calls)
    return await ctx.run_typed("last", nothing, value=value)


def free_port() -> int:
    """Return a port that nobody uses just now."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


async def main() -> None:
    """Start server and services, register them, measure."""
    folder = tempfile.mkdtemp()
    ingress, admin, services, node = (free_port() for _ in range(4))
    env = {
        **os.environ, "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}", "RESTATE_BASE_DIR": folder,
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}", "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RUST_LOG": "error", "RESTATE_LOG_FILTER": "error",
    }  # fmt: skip
    server = subprocess.Popen([os.environ["RESTATE_SERVER"]], env=env, cwd=folder, stdout=subprocess.DEVNULL)
    config = hypercorn.Config()
    config.bind, config.loglevel = [f"127.0.0.1:{services}"], "ERROR"
    stop = asyncio.Event()
    try:
        async with (
            asyncio.TaskGroup() as group,
            httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=AT_ONCE)) as http,
        ):
            group.create_task(hypercorn.asyncio.serve(restate.app([bench]), config, shutdown_trigger=stop.wait))
            async with asyncio.timeout(60):
                while not await registered(http, admin, services):
                    await asyncio.sleep(0.05)

            async def start(graph: str) -> object:
                answer = await http.post(f"http://127.0.0.1:{ingress}/bench/{graph}", json="x")
                answer.raise_for_status()
                return answer.json()

            await measure(start, runs=1000, at_once=AT_ONCE, alone=25)
            stop.set()
    finally:
        server.kill()
        server.wait()


async def registered(http: httpx.AsyncClient, admin: int, services: int) -> bool:
    """Return whether the server knows our services."""
    try:
        uri = {"uri": f"http://127.0.0.1:{services}"}
        return (await http.post(f"http://127.0.0.1:{admin}/deployments", json=uri)).status_code < 300
    except httpx.HTTPError:
        return False


asyncio.run(main())
