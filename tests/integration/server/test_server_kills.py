"""kill -9, again and again: of nats-server under load, and of the node."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nats.errors
import psutil
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from knotwork.bus.server import run_server

KILLS = 20
LOAD = 8  # publishers


async def test_a_server_killed_under_load_is_back_and_has_lost_nothing(place, connect, until):
    async with run_server(place.settings) as server:
        client = await connect(server, "p1")
        js = client.jetstream()
        await js.add_stream(name="LOAD", subjects=["load"])
        acknowledged: list[int] = []
        stop = asyncio.Event()

        async def publish(publisher: int) -> None:
            number = publisher
            while not stop.is_set():
                try:
                    await js.publish("load", str(number).encode(), timeout=0.15)
                except (nats.errors.Error, TimeoutError, OSError):
                    await asyncio.sleep(0.01)
                else:
                    acknowledged.append(number)
                number += LOAD

        async with asyncio.TaskGroup() as group:
            for publisher in range(LOAD):
                group.create_task(publish(publisher))
            for kill in range(1, KILLS + 1):
                before = len(acknowledged)
                await until(lambda before=before: len(acknowledged) >= before + 50, 10)
                os.kill(server.pid, signal.SIGKILL)
                await until(lambda kill=kill: server.restarts == kill, 10)
                await server.wait_running(5)
            stop.set()
        assert server.restarts == KILLS
        stored = await everything(js, len(acknowledged))
    assert len(acknowledged) >= 50 * KILLS
    assert set(acknowledged) - stored == set()


async def everything(js, at_least: int) -> set[int]:
    last = (await js.stream_info("LOAD")).state.last_seq
    assert last >= at_least
    subscription = await js.pull_subscribe("load", config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    numbers: set[int] = set()
    seen = 0
    while seen < last:
        for message in await subscription.fetch(min(1000, last - seen), timeout=5):
            numbers.add(int(message.data))
            seen += 1
    return numbers


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_killed_node_leaves_nobody_and_its_store_is_free_at_once(tmp_path: Path, loop: str):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    script = Path(__file__).with_name("killed_node.py")
    slowest_s = 0.0
    for _ in range(KILLS // 2):
        with subprocess.Popen(
            [sys.executable, script, tmp_path / "store", loop], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as node:
            assert node.stdout
            assert node.stderr
            pids = [int(word) for word in node.stdout.readline().split()]
            assert len(pids) == 6, node.stderr.read().decode()
            assert not any(gone(pid) for pid in pids)
            node.kill()
            killed = time.monotonic()
            while not all(gone(pid) for pid in pids):
                assert time.monotonic() - killed < 2, [pid for pid in pids if not gone(pid)]
                time.sleep(0.002)
            slowest_s = max(slowest_s, time.monotonic() - killed)
    assert slowest_s < 2


def test_the_next_node_on_the_store_waits_for_the_dead_ones_server(tmp_path: Path):
    script = Path(__file__).with_name("killed_node.py")
    with contextlib.ExitStack() as stack:
        for _ in range(4):  # nobody waits for the leavings of the one before
            node = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, script, tmp_path / "store", "asyncio"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
            stack.callback(node.kill)
            assert node.stdout
            assert node.stderr
            assert node.stdout.readline(), node.stderr.read().decode()
            node.kill()
