"""A full disk refuses new tasks at once, loses none that were acknowledged, and is over by itself when there is room."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import until

SHOUT = """
[web]
port = 0
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 160 MB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)], capture_output=True, check=False
    ) if sys.platform == "linux" else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: that needs Linux and root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_at_once_loses_nothing_and_resumes_by_itself(nodes, small_disk):
    node = nodes.node(SHOUT)
    node.data = small_disk / "data"
    node.up("--data-dir", str(node.data))
    kept = [node.ask("task.submit", capability="later", input=number)["id"] for number in range(20)]
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:  # leave 4 MB
        free = int(
            subprocess.run(
                ["df", "--output=avail", "-B1", small_disk], capture_output=True, text=True, check=True
            ).stdout.split()[1]
        )
        file.write(b"\0" * (free - 4 * 1024 * 1024))
    refused = until(lambda: (answer := node.call("task.submit", capability="later")).status == 503 and answer, 60.0)
    assert refused.json["code"] == "work.store_full"
    health = node.ask("node.health")
    assert not health["ready"]
    assert [one["why"] for one in health["checks"] if not one["ok"]] == ["its disk is full"]
    assert node.get("/readyz").status == 503
    assert node.ask("task.get", id=kept[0])["state"] == "pending"
    start_s = time.monotonic()
    cancelled = node.call("task.cancel", ids=[kept[1]])
    assert (cancelled.status, cancelled.json["code"]) == (503, "work.store_full")
    assert float(cancelled.headers["retry-after"]) > 0
    assert time.monotonic() - start_s < 45, "it waited for room"
    ballast.unlink()
    until(lambda: node.get("/readyz").status == 200, 60.0)
    again = until(
        lambda: (answer := node.call("task.submit", capability="shout", input="x")).status == 200 and answer, 60.0
    )
    assert until(lambda: node.ask("task.get", id=again.json["id"])["state"] == "completed", 60.0)
    for one in kept:
        assert until(lambda one=one: node.call("task.get", id=one).json.get("state") == "pending", 60.0)
