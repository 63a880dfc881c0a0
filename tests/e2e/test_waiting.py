"""Whoever waits at the shell waits over a restart of the node; large values come whole; what hangs is told as it is."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import MARK, marked, until
from tests.e2e.test_task_faults import kill_everything
from tests.e2e.test_tasks import PATIENCE_S, state, submit, up_hub

HUB = """
[node]
name = "hub"
[work]
lease_s = 6
[executors.gate]
type = "process"
command = ["sh", "-c", "until [ -e go ]; do sleep 0.1; done; cat"]
cwd = "{folder}"
concurrency = 3
"""
WAITS = """
name = "waits"
[steps.hold]
kind = "wait_for_signal"
signal = "go"
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("gently", [True, False])
def test_whoever_waits_survives_a_restart_of_the_node(nodes, gently):
    hub = nodes.node(name="hub")
    hub.write(HUB.replace("{folder}", str(hub.folder)))
    hub.up()
    run = submit(hub, "gate", max_crashes=9)
    assert hub.run("workflow", "register", f"@{hub.write(WAITS, 'waits.toml')}")[0] == 0
    flow = hub.ask("run.start", workflow="waits")["id"]
    until(lambda: state(hub, run) == "running", PATIENCE_S)
    apart = {MARK: f"{nodes.mark}-waiting"}  # they live on when every process of the node is killed
    waiting = {
        "await": hub.start("task", "await", run, **apart),
        "watch": hub.start("task", "watch", run, **apart),
        "run": hub.start("run", "await", flow, "--timeout", "5m", **apart),
        "submit": hub.start("submit", "gate", "mine", "--wait", "--max-crashes", "9", **apart),
    }
    own = waiting["submit"].stderr.readline().strip()
    until(lambda: state(hub, own) == "running", PATIENCE_S)
    time.sleep(2)  # the others say nothing when they have begun to wait: they start within that
    if gently:
        hub.stop()
    else:
        kill_everything(nodes)
    hub.up()
    (hub.folder / "go").touch()
    hub.ask("run.signal", id=flow, signal="go", payload=1)
    told = {}
    for name, process in waiting.items():
        out, err = process.communicate(timeout=PATIENCE_S)
        told[name] = (process.returncode, out, err)
    assert {name: code for name, (code, _, _) in told.items()} == dict.fromkeys(waiting, 0), told
    assert (told["await"][1], told["watch"][1], told["submit"][1]) == ("x\n", "x\n", "mine\n"), told


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
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
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


def test_the_http_door_keeps_its_port_over_restarts(nodes):
    hub = up_hub(nodes)
    address = hub.about["http"]
    hub.stop()
    assert hub.up().about["http"] == address


@pytest.mark.parametrize("web", ["true", "false"])
def test_status_and_health_are_told_while_nats_is_away(nodes, web):
    hub = nodes.node(name="hub")
    hub.write(f'[node]\nname = "hub"\n[web]\nenabled = {web}\n')
    hub.up()
    server = next(pid for pid, words in marked(nodes.mark).items() if "nats-server" in words.split()[0])
    os.kill(server, signal.SIGSTOP)
    try:
        code, out, err = hub.run("status", "--timeout", "5s", "-o", "json", timeout_s=PATIENCE_S)
        assert code == 0, err
        assert json.loads(out)["pid"] == hub.pid
        code, out, err = hub.run("health", "--timeout", "5s", "-o", "json", timeout_s=PATIENCE_S)
        assert code in (0, 75), err
        assert json.loads(out)["live"]
    finally:
        os.kill(server, signal.SIGCONT)
