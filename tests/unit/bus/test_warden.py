"""The warden alone, with a stand-in for the node: a process that holds the other end of its pipe."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from knotwork.bus import child, warden

SLEEPER = "import time; time.sleep(300)"
FAMILY = """
import subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(300)"]
own_session = subprocess.Popen(sleeper, start_new_session=True)
bare = subprocess.Popen(sleeper, start_new_session=True, env={})
print(own_session.pid, bare.pid, flush=True)
time.sleep(300)
"""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait(timeout=30)
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


class Ward:
    def __init__(self, started: list[subprocess.Popen[bytes]]) -> None:
        self.token = secrets.token_hex(16)
        self._started = started

    def warden(self, *options: str) -> subprocess.Popen[bytes]:
        return self._start([sys.executable, "-I", "-S", warden.__file__, self.token, *options], {}, stdin=True)

    def child(self, script: str) -> subprocess.Popen[bytes]:
        return self._start([sys.executable, "-c", script], {"KNOTWORK_WARD": self.token})

    def _start(self, command: list[str], env: dict[str, str], *, stdin: bool = False) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stdin=subprocess.PIPE if stdin else None, start_new_session=True
        )
        self._started.append(process)
        return process


@pytest.fixture
def ward(started: list[subprocess.Popen[bytes]]) -> Ward:
    return Ward(started)


def test_a_closed_pipe_ends_the_carriers_and_all_they_started(ward: Ward):
    watching = ward.warden()
    family = ward.child(FAMILY)
    assert family.stdout
    own_session, bare = (int(word) for word in family.stdout.readline().split())
    bystander = Ward(ward._started).child(SLEEPER)
    assert watching.stdin
    watching.stdin.close()
    assert family.wait(timeout=30) == -signal.SIGKILL
    assert until(lambda: not alive(own_session) and not alive(bare))
    assert watching.wait(timeout=30) == 0
    assert alive(bystander.pid)


def test_the_death_of_the_node_is_seen_even_when_somebody_else_holds_the_pipe(ward: Ward):
    node = Ward(ward._started).child(SLEEPER)
    watching = ward.warden("--node", str(node.pid))
    carrier = ward.child(SLEEPER)
    node.kill()
    node.wait(timeout=30)
    assert carrier.wait(timeout=30) == -signal.SIGKILL
    assert watching.wait(timeout=30) == 0


def test_the_visible_process_takes_the_node_and_the_unpacked_folder_with_it(ward: Ward, tmp_path: Path):
    unpacked = tmp_path / "_MEIabc"
    (unpacked / "lib").mkdir(parents=True)
    (unpacked / "lib" / "x.so").write_text("x")
    (unpacked / "link").symlink_to(tmp_path)
    visible, node = (Ward(ward._started).child(SLEEPER) for _ in range(2))
    watching = ward.warden("--node", str(node.pid), "--also", str(visible.pid), "--sweep", str(unpacked))
    carrier = ward.child(SLEEPER)
    visible.kill()
    visible.wait(timeout=30)
    assert node.wait(timeout=30) == -signal.SIGKILL
    assert carrier.wait(timeout=30) == -signal.SIGKILL
    assert watching.wait(timeout=30) == 0
    assert not unpacked.exists()
    assert tmp_path.exists()


def test_no_other_folder_is_swept(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "_MEIlink").symlink_to(tmp_path / "data")
    warden.sweep(str(tmp_path / "data"))
    warden.sweep(str(tmp_path / "_MEIlink"))
    warden.sweep("")
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_polite_signals_do_not_end_it(ward: Ward, number: int):
    watching = ward.warden()
    assert until(lambda: ignores(watching.pid, number))
    watching.send_signal(number)
    carrier = ward.child(SLEEPER)
    assert watching.stdin
    watching.stdin.close()
    assert carrier.wait(timeout=30) == -signal.SIGKILL


def ignores(pid: int, number: int) -> bool:
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def test_it_is_small_and_alone(ward: Ward):
    watching = ward.warden("--node", str(os.getpid()))
    assert until(lambda: ignores(watching.pid, signal.SIGTERM))
    process = psutil.Process(watching.pid)
    assert process.memory_info().rss < 12 * 1024 * 1024
    assert process.net_connections() == []
    assert process.num_threads() == 1


@pytest.mark.skipif(not shutil.which("ps"), reason="this system has no ps")
def test_processes_found_by_ps_are_the_same(ward: Ward):
    carrier = ward.child(SLEEPER)
    assert until(lambda: carrier.pid in warden.carriers(ward.token))
    marked, parents = warden._scan_ps(f"KNOTWORK_WARD={ward.token}")
    assert marked == {carrier.pid}
    assert parents[carrier.pid] == os.getpid()


async def test_a_killed_warden_is_replaced_and_the_new_one_works():
    async with child.guard():
        seen = {child.warden_pid()}
        for _ in range(3):
            os.kill(child.warden_pid(), signal.SIGKILL)
            assert until(lambda: child.warden_pid() not in seen and alive(child.warden_pid()))
            seen.add(child.warden_pid())
        last = child.warden_pid()
        left = await child.spawn(sys.executable, "-c", SLEEPER)
    assert await left.wait() == -signal.SIGKILL
    assert child.warden_pid() == 0
    assert not [pid for pid in (*seen, last) if alive(pid)]


async def test_nested_guards_share_one_warden():
    async with child.guard():
        first = child.warden_pid()
        async with child.guard():
            assert child.warden_pid() == first
        assert alive(first)
    assert not alive(first)


def test_an_empty_scan_ends_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warden, "_KILL_FOR_S", 3600.0)  # it would be noticed
    assert not warden.kill_all(secrets.token_hex(16), [])
