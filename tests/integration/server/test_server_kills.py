"""kill -9, again and again: of nats-server under load, and of the node."""

import asyncio
import contextlib
import json
import os
import shutil
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
                    await js.publish("load", str(number).encode(), timeout=0.5)
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
                await until(lambda before=before: len(acknowledged) >= before + 50)
                os.kill(server.pid, signal.SIGKILL)
                await until(lambda kill=kill: server.restarts == kill)
                await server.wait_running(30)
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
        for message in await subscription.fetch(min(1000, last - seen), timeout=30):
            numbers.add(int(message.data))
            seen += 1
    return numbers


@contextlib.contextmanager
def small_node(store: Path, **env: str):
    """Start a node in small; yields it and the processes it has, in the order that it names them."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("killed_node.py"), store, "uvloop"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env},
    ) as node:  # fmt: skip
        try:
            assert node.stdout
            assert node.stderr
            pids = [int(word) for word in node.stdout.readline().split()]
            assert len(pids) == 6, node.stderr.read().decode()
            yield node, pids
        finally:
            node.kill()


def kill_with_warden(node: subprocess.Popen[bytes], warden: int) -> None:
    """Kill both at the same moment: a node that stands still cannot put another warden in the place of a dead one."""
    node.send_signal(signal.SIGSTOP)
    os.kill(warden, signal.SIGKILL)
    node.kill()
    node.wait(timeout=30)


def wait_gone(pids: list[int], timeout_s: float = 30.0) -> None:
    end_s = time.monotonic() + timeout_s
    while left := [pid for pid in pids if not gone(pid)]:
        assert time.monotonic() < end_s, left
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_killed_node_leaves_nobody_and_its_store_is_free_at_once(tmp_path: Path, loop: str, record_property):
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
            killed_s = time.monotonic()
            while not all(gone(pid) for pid in pids):
                assert time.monotonic() - killed_s < 60, [pid for pid in pids if not gone(pid)]
                time.sleep(0.002)
            slowest_s = max(slowest_s, time.monotonic() - killed_s)
    record_property("all_gone_after_kill_s", round(slowest_s, 3))


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


@pytest.mark.skipif(not shutil.which("setpriv"), reason="this system cannot tie a child to its parent")
def test_a_server_dies_with_its_node_even_when_nobody_is_left_to_end_it(tmp_path: Path):
    with small_node(tmp_path / "store") as (node, pids):
        kill_with_warden(node, pids[-1])
        wait_gone(pids[:1])
        for pid in pids[1:-1]:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("tied", [True, False])
def test_the_next_node_ends_what_is_left_when_node_and_warden_died_together(tmp_path: Path, tied: bool):
    env = {}
    if not tied:  # a system without setpriv
        for name in ("sh", "sleep", "setsid"):
            (tmp_path / name).symlink_to(shutil.which(name) or "")
        env["PATH"] = str(tmp_path)
    for _ in range(3):
        with small_node(tmp_path / "store", **env) as (node, pids):
            kill_with_warden(node, pids[-1])
            *rest, warden = pids
            wait_gone([warden])
            assert not all(gone(pid) for pid in rest)  # there was something to do
            assert tied or not gone(rest[0])
        with small_node(tmp_path / "store", **env) as (node, _):
            wait_gone(rest)
            node.kill()
            node.wait(timeout=30)


def test_a_process_that_took_the_number_of_a_dead_node_is_not_taken_for_it(tmp_path: Path):
    store = tmp_path / "store"
    with small_node(store) as (node, _):
        node.kill()
        node.wait(timeout=30)
    with subprocess.Popen(["sleep", "300"]) as stranger:  # stands in for the next process of that number
        said = json.loads((store / "lock").read_text())
        (store / "lock").write_text(json.dumps({**said, "pid": stranger.pid}))
        try:
            with small_node(store):
                assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_server_of_unknown_origin_is_left_alone_and_named(tmp_path: Path):
    store = tmp_path / "store"
    with small_node(store) as (node, pids):
        said = json.loads((store / "lock").read_text())
        del said["ward"]  # as a version wrote it that knew nothing of this
        (store / "lock").write_text(json.dumps(said))
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, store / "lock"], stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            kill_with_warden(node, pids[-1])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            second = subprocess.run(
                [sys.executable, Path(__file__).with_name("killed_node.py"), store, "uvloop"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert "bus.store_locked" in second.stderr or "is in use" in second.stderr
            assert f"kill {holder.pid}" in second.stderr
            assert holder.poll() is None
        finally:
            holder.kill()
            holder.wait(timeout=30)
            assert holder.stdout
            holder.stdout.close()
            for pid in pids[1:-1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(300)
"""
