"""Whoever waits at the shell waits over a restart of the node; large values come whole; what hangs is told as it is."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from tests.e2e.conftest import until
from tests.e2e.test_task_faults import kill_everything
from tests.e2e.test_tasks import PATIENCE_S, state, submit, up_hub

WAITS = """
name = "waits"
[steps.hold]
kind = "wait_for_signal"
signal = "go"
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("gently", [True, False])
def test_whoever_waits_survives_a_restart_of_the_node(nodes, gently):
    hub = up_hub(nodes)
    gate = {"attempts": [1], "delay_s": 300}
    run = submit(hub, "script", gate, {"done": "after"}, max_crashes=9)
    assert hub.run("workflow", "register", f"@{hub.write(WAITS, 'waits.toml')}")[0] == 0
    flow = hub.ask("run.start", workflow="waits")["id"]
    until(lambda: state(hub, run) == "running", PATIENCE_S)
    script = json.dumps({"steps": [gate, {"done": "mine"}]})
    waiting = {
        "await": hub.start("task", "await", run),
        "watch": hub.start("task", "watch", run),
        "run": hub.start("run", "await", flow, "--timeout", "5m"),
        "submit": hub.start("submit", "script", script, "--wait", "--max-crashes", "9"),
    }
    own = waiting["submit"].stderr.readline().strip()
    until(lambda: state(hub, own) == "running", PATIENCE_S)
    time.sleep(2)  # the others say nothing when they have begun to wait: they start within that
    if gently:
        hub.stop()
    else:
        kill_everything(nodes)
    hub.up()
    hub.ask("run.signal", id=flow, signal="go", payload=1)
    told = {}
    for name, process in waiting.items():
        out, err = process.communicate(timeout=PATIENCE_S)
        told[name] = (process.returncode, out, err)
    assert {name: code for name, (code, _, _) in told.items()} == dict.fromkeys(waiting, 0), told
    assert (told["await"][1], told["watch"][1], told["submit"][1]) == ("after\n", "after\n", "mine\n"), told


def test_a_submit_that_waits_tells_the_id_first_and_ctrl_c_leaves_the_task_alone(nodes):
    hub = up_hub(nodes)
    process = hub.start("submit", "script", json.dumps({"steps": [{"delay_s": 300}]}), "--wait")
    run = process.stderr.readline().strip()
    until(lambda: state(hub, run) == "running", PATIENCE_S)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert state(hub, run) == "running"


def test_a_node_that_hangs_is_told_within_the_time_allowed_and_can_be_ended(nodes):
    hub = up_hub(nodes)
    began = time.monotonic()
    hub.signal(signal.SIGSTOP)
    try:
        code, told = hub.refused("status", "--timeout", "2s")
        assert (code, told["code"]) == (75, "call.timed_out")
        assert "within 2 s" in told["message"]
        assert time.monotonic() - began < PATIENCE_S / 3  # it used to wait for 20 s more
        stopping = hub.start("stop", "--timeout", "10s")
        until(lambda: _pending(hub.pid, signal.SIGTERM) or stopping.poll() is not None, PATIENCE_S)
        assert _pending(hub.pid, signal.SIGTERM), stopping.communicate()
    finally:
        hub.signal(signal.SIGCONT)
    told = stopping.communicate(timeout=PATIENCE_S)
    assert (stopping.returncode, hub.ended()) == (0, 0), told


def _pending(pid: int, number: int) -> bool:
    """Return whether a signal was sent to a process and waits for it."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


@pytest.mark.timeout(240)
def test_a_value_of_60_megabytes_is_read_at_the_shell(nodes):
    hub = up_hub(nodes)
    text = json.dumps(os.urandom(30_000_000).hex())
    (hub.folder / "large.json").write_text(text)
    code, digest, err = hub.run("blob", "put", "@large.json", timeout_s=PATIENCE_S)
    assert code == 0, err
    code, out, err = hub.run("blob", "get", digest.strip(), timeout_s=PATIENCE_S)
    assert code == 0, err
    assert out == text
