"""Whoever waits at the shell waits over a restart of the node; large values come whole; what hangs is told as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from tests.e2e.conftest import MARK, marked, until
from tests.e2e.test_task_faults import kill_everything
from tests.e2e.test_tasks import PATIENCE_S, state, submit, up_far, up_hub

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


def is_connected(process: subprocess.Popen[str]) -> bool:
    """Return whether a command has reached the node, as far as can be seen from outside: it says nothing of it."""
    assert process.poll() is None, process.communicate()
    return any(one.status == psutil.CONN_ESTABLISHED for one in psutil.Process(process.pid).net_connections("tcp"))


def rests(process: subprocess.Popen[str]) -> bool:
    """Return whether a command has nothing left to do but to wait."""
    return psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING


@pytest.mark.timeout(400)
def test_whoever_waits_survives_a_restart_of_the_node(nodes):
    hub = nodes.node(name="hub")
    hub.write(HUB.replace("{folder}", str(hub.folder)))
    hub.up()
    assert hub.run("workflow", "register", f"@{hub.write(WAITS, 'waits.toml')}")[0] == 0
    address = hub.about["http"]
    for gently in (True, False):
        (hub.folder / "go").unlink(missing_ok=True)
        run = submit(hub, "gate", max_crashes=9)
        flow = hub.ask("run.start", workflow="waits")["id"]
        until(lambda run=run: state(hub, run) == "running", PATIENCE_S)
        apart = {MARK: f"{nodes.mark}-waiting"}  # they live on when every process of the node is killed
        waiting = {
            "await": hub.start("task", "await", run, **apart),
            "watch": hub.start("task", "watch", run, **apart),
            "run": hub.start("run", "await", flow, "--timeout", "5m", **apart),
            "submit": hub.start("submit", "gate", "mine", "--wait", "--max-crashes", "9", **apart),
        }
        own = waiting["submit"].stderr.readline().strip()
        until(lambda own=own: state(hub, own) == "running", PATIENCE_S)
        until(lambda waiting=waiting: all(map(is_connected, waiting.values())), PATIENCE_S)
        assert hub.run("status")[0] == 0  # one that came behind them has gone all the way
        until(lambda waiting=waiting: all(map(rests, waiting.values())), PATIENCE_S)
        if gently:
            hub.stop()
        else:
            kill_everything(nodes)
        assert hub.up().about["http"] == address, "the HTTP door keeps its port"
        (hub.folder / "go").touch()
        hub.ask("run.signal", id=flow, signal="go", payload=1)
        told = {}
        for name, process in waiting.items():
            out, err = process.communicate(timeout=PATIENCE_S)
            told[name] = (process.returncode, out, err)
        assert {name: code for name, (code, _, _) in told.items()} == dict.fromkeys(waiting, 0), told
        assert (told["await"][1], told["watch"][1], told["submit"][1]) == ("x\n", "x\n", "mine\n"), told


@pytest.fixture(scope="module")
def shared(shared_nodes):
    return up_hub(shared_nodes, "shared")


def test_a_submit_that_waits_tells_the_id_first_and_ctrl_c_leaves_the_task_alone(shared):
    process = shared.start("submit", "script", json.dumps({"steps": [{"delay_s": 300}]}), "--wait")
    run = process.stderr.readline().strip()
    until(lambda: state(shared, run) == "running", PATIENCE_S)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert state(shared, run) == "running"


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
def test_a_value_of_60_megabytes_is_read_at_the_shell(shared):
    text = json.dumps(os.urandom(30_000_000).hex())
    (shared.folder / "large.json").write_text(text)
    code, digest, err = shared.run("blob", "put", "@large.json", timeout_s=PATIENCE_S)
    assert code == 0, err
    code, out, err = shared.run("blob", "get", digest.strip(), timeout_s=PATIENCE_S)
    assert code == 0, err
    assert out == text


def told_without_nats(hub, server: int) -> None:
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


def test_status_and_health_are_told_while_nats_is_away(shared):
    told_without_nats(shared, shared.status()["bus"]["server_pid"])


def test_status_and_health_are_told_while_nats_is_away_by_a_node_without_a_door_for_people(nodes):
    hub = nodes.node('[node]\nname = "hub"\n[web]\nenabled = false\n', "hub").up()
    told_without_nats(hub, next(pid for pid, words in marked(nodes.mark).items() if "nats-server" in words.split()[0]))


def test_who_claims_while_nats_is_away_is_told_why_there_is_nothing(nodes):
    hub = up_hub(nodes)
    far = up_far(nodes, hub)
    claim = {"worker": "somebody", "capabilities": ["none-has"], "wait_s": 0.2}
    assert far.ask("work.claim", **claim) == {"tasks": [], "why": ""}
    hub.stop()
    told = until(lambda: far.ask("work.claim", **claim)["why"], PATIENCE_S)
    assert ("cannot be reached" in told, "until it is back" in told) == (True, True)
