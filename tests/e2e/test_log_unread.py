"""Nobody reads what a node says on standard error: a pager stands, Ctrl-S was pressed. The node goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading

import pytest
from tests.e2e.conftest import COPY, WAIT_S, Node, Nodes, begin, until

SAID = 200
AGENT = f"""
import logging

async def tell(text):
    for number in range({SAID}):
        logging.getLogger("teller").warning("line %d %s", number, "x" * 400)
    return text
"""
TABLE = '[executors.teller]\ntype = "python"\nfunction = "./teller.py:tell"\n'
F_SETPIPE_SZ = 1031


def unread(nodes: Nodes) -> Node:
    """Return a node that runs, and whose pipe, a small one, nobody reads."""
    node = nodes.node()
    node.write(AGENT, "teller.py")
    node.write(TABLE)
    node.process = begin(COPY, "up", cwd=node.folder, env=node.env, stdout=subprocess.DEVNULL)
    fcntl.fcntl(node.process.stderr.fileno(), getattr(fcntl, "F_SETPIPE_SZ", F_SETPIPE_SZ), 4096)
    until(node._is_ready)
    return node


@pytest.mark.timeout(180)
def test_a_node_goes_on_when_nobody_reads_its_log(nodes):
    node = unread(nodes)
    process, out = node.process, node.process.stderr
    for answer in ("one", "two", "three"):  # many times more than the pipe takes
        assert node.invoke("teller", answer) == answer
    told: list[bytes] = []
    reading = threading.Thread(target=lambda: told.extend(iter(lambda: os.read(out.fileno(), 65536), b"")), daemon=True)
    reading.start()
    until(lambda: b"".join(told).count(f" line {SAID - 1} ".encode()) == 3)
    assert b"".join(told).count(b" WARNING line ") == 3 * SAID
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    reading.join(WAIT_S)
    out.close()
    assert b"".join(told).rstrip().endswith(b" stopped")


@pytest.mark.timeout(180)
def test_a_node_ends_when_nobody_reads_its_log(nodes):
    node = unread(nodes)
    process = node.process
    assert node.invoke("teller", "told") == "told"  # more than the pipe takes
    process.send_signal(signal.SIGTERM)
    with process.stderr:
        assert process.wait(WAIT_S) == 0


@pytest.mark.timeout(180)
def test_a_node_goes_on_and_ends_well_when_the_reader_of_its_log_went(nodes):
    node = unread(nodes)
    process = node.process
    process.stderr.close()
    assert node.invoke("teller", "told") == "told"
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
