"""`stop` asks a process where the node itself cannot answer, and whoever asks hears that it is gone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from knotwork.cli import after, local, trouble
from knotwork.cli.options import Shared
from knotwork.sdk.errors import Failed, TimedOut, Unreachable

WAIT_S = 60.0
STANDS = """
import os, signal, sys

def caught(number, frame):
    os.write(1, b"%d\\n" % number)  # a print inside another one is refused

signal.signal(signal.SIGTERM, caught)
signal.signal(signal.SIGINT, caught)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process():
    """A process that tells which signals it gets, until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", STANDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == "ready\n"
        yield made
        made.kill()


@pytest.fixture
def shared(tmp_path, process):
    """The folder of a node that is this process."""
    file = local.node_file(tmp_path)
    file.parent.mkdir()
    file.write_text(json.dumps({"pid": process.pid, "node": "here"}))
    return Shared(data_dir=str(tmp_path), timeout_s=WAIT_S)


def gone(shared: Shared, process: subprocess.Popen[str]) -> None:
    local.node_file(local.data_dir(shared.data_dir)).unlink()
    process.kill()
    process.wait(WAIT_S)


@pytest.mark.parametrize("code", ["node.unreachable", "node.not_running", "node.lost"])
def test_a_node_that_went_while_it_was_asked_to_stop_has_stopped(shared, process, code):
    leaving = after.watch("node.stop", shared, {})
    assert leaving is not None
    gone(shared, process)
    reply = after.rescue("node.stop", shared, Unreachable("Nobody is there.", code=code), leaving)
    assert reply == {"pid": process.pid, "node": "here", "running": 0}
    leaving.wait(reply)
    with pytest.raises(Unreachable, match="No node is running"):
        after.watch("node.stop", shared, {})


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("now", "signals"), [(False, ["15"]), (True, ["15", "2"])])
def test_a_node_that_hangs_is_sent_a_signal_and_another_one_when_it_shall_end_now(shared, process, now, signals):
    leaving = after.watch("node.stop", shared, {"now": now})
    assert after.rescue("node.stop", shared, TimedOut("It hangs.", code="node.lost"), leaving)["node"] == "here"
    assert sorted(process.stdout.readline().strip() for _ in signals) == sorted(signals)
    process.stdin.close()
    leaving.wait({})
    assert process.stdout.read() == ""


def test_of_a_node_that_is_gone_nothing_else_is_told(shared, process):
    gone(shared, process)
    with pytest.raises(Unreachable, match="Nobody"):
        after.rescue("node.status", shared, Unreachable("Nobody.", code="node.unreachable"), None)


def test_the_code_of_an_error_plays_no_tricks_on_a_terminal(capsys):
    assert trouble.tell(Failed("no", code="\x1b[2Jgone\n"), as_json=False) == 1
    assert capsys.readouterr().err == "error: no\n  (�[2Jgone )\n"
