"""A demo that ends in the middle leaves nothing behind: neither a node nor its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.e2e.conftest import WAIT_S, until

from knotwork.cli import up
from knotwork.cli.files import FileOptions

DEMO = """
import asyncio, signal, sys
from knotwork.bus import client
from knotwork.cli import demo, up
from knotwork.sdk.errors import Failed

def trouble(*_):
    if sys.argv[1] == "raises":
        raise Failed("as planned", code="demo.failed")
    signal.raise_signal(int(sys.argv[1]))
    raise AssertionError("went on")

if sys.argv[2] == "between":
    demo._call = trouble
elif sys.argv[2] == "asking":
    async def call(*_, **__):
        signal.raise_signal(int(sys.argv[1]))
        await asyncio.sleep(60)
        yield
    client.call = call
else:  # while the second node is being started
    real, starts = up._ready, []
    def ready(folder, pid):
        starts.append(pid)
        return trouble() if len(set(starts)) == 2 else real(folder, pid)
    up._ready = ready
sys.exit(demo.main(quiet=True, as_json=False, keep=False))
"""


def processes(folder: Path) -> list[psutil.Process]:
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in one.info["cmdline"] or ())
    ]


@pytest.mark.parametrize(
    ("trouble", "when"),
    [("raises", "between"), (str(signal.SIGINT.value), "starting"), (str(signal.SIGTERM.value), "asking")],
)
def test_a_demo_that_ends_in_the_middle_leaves_nothing(trouble: str, when: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", DEMO, trouble, when], capture_output=True, text=True, timeout=WAIT_S * 4,
        env={**os.environ, "TMPDIR": str(tmp_path)}, check=False,
    )  # fmt: skip
    try:
        until(lambda: not processes(tmp_path), what=done.stderr)
    finally:
        for one in processes(tmp_path):
            one.kill()
    assert not list(tmp_path.iterdir()), done.stderr
    assert done.returncode
    assert trouble != "raises" or "as planned" in done.stderr
    if when == "asking":
        assert done.returncode == 128 + signal.SIGTERM
        assert "failed" not in done.stderr


def test_a_node_is_ended_that_ctrl_c_met_before_it_was_known(tmp_path: Path, monkeypatch):
    begun: list[subprocess.Popen[bytes]] = []

    def spawn(*_: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        begun.append(process)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(up, "_spawn", spawn)
    with pytest.raises(KeyboardInterrupt):
        up.start_detached(tmp_path / "data", FileOptions(), 30.0)
    try:
        assert begun[0].poll() is not None
    finally:
        begun[0].kill()
        begun[0].wait()
