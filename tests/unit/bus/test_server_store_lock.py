import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from knotwork.bus import store_lock
from knotwork.sdk.errors import Conflict, Denied

HOLDER = "import sys, time; print('up', flush=True); time.sleep(300)"


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=60)
    return process.pid


async def test_a_living_owner_is_named_at_once(tmp_path: Path):
    held = await store_lock.acquire(tmp_path / "s", "alpha")
    with pytest.raises(Conflict, match="alpha") as caught:
        async with asyncio.timeout(30):
            await store_lock.acquire(tmp_path / "s", "beta", wait_s=300)
    assert caught.value.code == "bus.store_locked"
    assert caught.value.detail["pid"] == os.getpid()
    assert str(os.getpid()) in str(caught.value)
    held.release()
    held.release()
    (await store_lock.acquire(tmp_path / "s", "beta")).release()
    assert store_lock.read_owner(tmp_path / "s").node == "beta"


async def test_a_server_that_outlives_its_node_keeps_the_lock(tmp_path: Path):
    held = await store_lock.acquire(tmp_path, "alpha")
    with subprocess.Popen([sys.executable, "-c", HOLDER], pass_fds=(held.fileno,), stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        held.release()
        (tmp_path / "lock").write_text(json.dumps({"pid": dead_pid(), "node": "alpha"}))
        with pytest.raises(Conflict, match="whose node is gone"):
            await store_lock.acquire(tmp_path, "beta", wait_s=0.1)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(store_lock.acquire(tmp_path, "beta", wait_s=60))
            await asyncio.sleep(0)
            server.kill()
        waiting.result().release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": -1}', "\x00" * 5000])
async def test_what_the_file_says_is_not_believed(tmp_path: Path, text: str):
    (tmp_path / "lock").write_text(text)
    held = await store_lock.acquire(tmp_path, "alpha")
    (tmp_path / "lock").write_text(text)
    with pytest.raises(Conflict):
        await store_lock.acquire(tmp_path, "beta", wait_s=0.05)
    held.release()


async def test_a_place_that_is_no_folder_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for store in (tmp_path / "file", tmp_path / "file" / "s", Path("/proc/nope")):
        with pytest.raises(Denied) as caught:
            await store_lock.acquire(store, "alpha")
        assert caught.value.code == "bus.store_unreadable"
