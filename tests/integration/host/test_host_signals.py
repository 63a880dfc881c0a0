"""Signals in a process of their own, moment by moment: from its first line to the last of the interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOOP = """
import asyncio, os, signal, sys, time
from knotwork.host import signals

caught = signals.Signals().early()
{before}

async def main():
    stopping = signals.Stopping(caught)
    hangups = []
    stopping.on_hangup(lambda: hangups.append(1))
    {inside}
    print("hangups", len(hangups), "now", stopping.now.is_set(), flush=True)

asyncio.run(main())
{after}
"""


def program(before: str = "", inside: str = "pass", after: str = "") -> subprocess.CompletedProcess[str]:
    text = LOOP.format(before=before, inside=inside.replace("\n", "\n    "), after=after)
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False, env={**os.environ}
    )


def test_what_came_before_the_loop_is_delivered_in_it():
    done = program(
        "os.kill(os.getpid(), signal.SIGTERM)", "async with asyncio.timeout(30):\n    await stopping.asked.wait()"
    )
    assert (done.returncode, done.stdout) == (0, "hangups 0 now False\n")


def test_a_second_one_means_now():
    inside = (
        "os.kill(os.getpid(), signal.SIGTERM)\nos.kill(os.getpid(), signal.SIGINT)\n"
        "async with asyncio.timeout(30):\n    await stopping.now.wait()"
    )
    done = program(inside=inside)
    assert (done.returncode, done.stdout) == (0, "hangups 0 now True\n")


def test_a_hangup_after_the_configuration_was_read_is_not_lost():
    done = program(inside="os.kill(os.getpid(), signal.SIGHUP)\nawait asyncio.sleep(0.05)")
    assert (done.returncode, done.stdout) == (0, "hangups 1 now False\n")
    between = LOOP.replace("stopping.on_hangup", "os.kill(os.getpid(), signal.SIGHUP)\n    stopping.on_hangup")
    done = subprocess.run(
        [sys.executable, "-c", between.format(before="", inside="await asyncio.sleep(0.05)", after="")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 1


def test_a_hangup_before_the_loop_is_not_lost():
    """The configuration has been read by then, or not: to read it again harms nobody."""
    done = program("os.kill(os.getpid(), signal.SIGHUP)", inside="await asyncio.sleep(0.05)")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 1


def test_a_hangup_after_the_loop_does_not_kill():
    done = program(after="os.kill(os.getpid(), signal.SIGHUP)\ncaught.over()\nos.kill(os.getpid(), signal.SIGHUP)")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("signals", [1, 5])
def test_work_that_never_gives_the_loop_back_is_ended_by_force(signals):
    before = "signals.PATIENCE_S = signals.NOW_S = 1.0\ncaught.limit_s = lambda: 1.0"
    inside = f"for _ in range({signals}):\n    os.kill(os.getpid(), signal.SIGTERM)\nprint('blocks', flush=True)\nwhile True: pass"
    began_s = time.monotonic()
    done = program(before, inside)
    assert done.returncode == 143
    assert "ended by force" in done.stderr
    assert time.monotonic() - began_s >= 1.0


def test_work_is_cancelled_when_the_end_is_asked_for_first():
    inside = (
        "async def work():\n    try:\n        await asyncio.sleep(3600)\n    except asyncio.CancelledError:\n"
        "        print('cancelled', flush=True)\n        raise\n"
        "asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)\n"
        "async with asyncio.timeout(30):\n    await stopping.before(work())\nprint('asked', stopping.asked.is_set())"
    )
    done = program(inside=inside)
    assert done.stdout.splitlines()[:2] == ["cancelled", "asked True"], done.stderr


def test_work_that_fails_says_so():
    inside = (
        "async def work():\n    raise ValueError('broken')\ntry:\n    await stopping.before(work())\n"
        "except* ValueError as group:\n    print('told', group.exceptions[0])"
    )
    assert program(inside=inside).stdout.startswith("told broken")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
@pytest.mark.parametrize("first", [(), ("--data-dir", "elsewhere"), ("-q", "--output=json", "--data-dir", "up")])
def test_up_holds_hangups_before_it_loads_anything(tmp_path, request, first):
    """The first thing `knotwork up` does; how soon is written down."""
    bit = 1 << (signal.SIGHUP - 1)
    began_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "knotwork", *first, "up", "--data-dir", str(tmp_path / "data"), "--set", "node.nmae=x"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    try:
        while True:
            assert time.monotonic() - began_s < 60
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            held = int(status["SigIgn"], 16) | int(status["SigCgt"], 16)
            if held & bit:
                break
            assert process.poll() is None, "it ended before it held them"
        request.node.user_properties.append(("hangups_held_after_s", round(time.monotonic() - began_s, 3)))
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        assert "pydantic_core" not in loaded  # nor anything else that takes its time
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 78
    finally:
        process.kill()
        process.communicate()
