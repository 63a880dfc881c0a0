"""A node can be seen, refused a twin, and ended from its first moment on; and what a killed one left is no hindrance."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from tests.e2e.conftest import WAIT_S, marked, until
from tests.free_port import free_port

from knotwork.ops import replies

SLEEPER = '[executors.sleeper]\ntype = "process"\ncommand = ["sleep", "600"]\n'


def joining(port: int) -> str:
    return f'[node]\nname = "late"\n[nats]\nmode = "join"\nurls = ["nats://127.0.0.1:{port}"]\n'


def state(node) -> str:
    try:
        return node.about["state"]
    except (OSError, ValueError):
        return ""


@pytest.fixture
def waiting(nodes):
    """A node whose NATS is away, and its port."""
    port = free_port()
    node = nodes.node(joining(port) + SLEEPER).up(wait_s=0)
    node.port = port
    until(lambda: state(node) == "connecting" and "refused" in node.about["why"].lower(), WAIT_S, node.log)
    return node


def test_a_node_that_still_connects_is_seen_with_its_reason(waiting):
    shown = waiting.json("status")
    replies.NodeStatus.model_validate(shown)
    assert (shown["state"], shown["pid"], shown["node"]) == ("connecting", waiting.pid, "late")
    assert str(waiting.port) in shown["why"] and "refused" in shown["why"].lower()
    assert shown["config_files"] == [str(waiting.file)]
    code, out, _ = waiting.run("status")
    assert code == 0
    assert "connecting" in out and str(waiting.port) in out
    code, out, _ = waiting.run("health", "-o", "json")
    health = json.loads(out)
    replies.NodeHealth.model_validate(health)
    assert (code, health["live"], health["ready"]) == (75, True, False)
    assert str(waiting.port) in json.dumps(health)
    code, wire = waiting.refused("agents")
    assert (code, wire["code"]) == (75, "node.not_ready")
    assert str(waiting.pid) in wire["message"] and "refused" in wire["message"].lower()
    settings = waiting.json("config", "show", "node.name")["settings"]  # what files can tell needs no node
    assert settings[0]["value"] == "late"


def test_it_refuses_a_twin_and_names_itself(waiting):
    for words in (("up",), ("up", "--detach")):
        code, _, err = waiting.run(*words)
        assert code == 1, err
        assert "node.already_running" in err
        assert str(waiting.pid) in err and "late" in err and "connecting" in err
        assert "Traceback" not in err
    assert waiting.process.poll() is None
    assert waiting.about["pid"] == waiting.pid


@pytest.mark.parametrize("words", [("stop",), ("stop", "--now")])
def test_it_can_be_stopped(nodes, waiting, words):
    code, _, err = waiting.run(*words)
    assert (code, err) == (0, "")
    assert waiting.ended() is not None  # gone when `stop` returns
    assert not (waiting.data / "run" / "node.json").exists()
    assert waiting.refused("status")[1]["code"] == "node.not_running"


def test_detached_it_says_what_it_waits_for(nodes):
    port = free_port()
    node = nodes.node(joining(port))
    for allowed_s in (5, 20, 60):  # as long as this machine needs for the node to try its NATS
        began_s = time.monotonic()
        code, _, err = node.run("up", "--detach", "--timeout", f"{allowed_s}s", timeout_s=allowed_s + WAIT_S)
        assert code == 75
        assert time.monotonic() - began_s >= allowed_s
        told = [line for line in err.splitlines() if line.startswith("waiting")]
        assert len(told) == len(set(told))  # each thing once
        if any(str(port) in line for line in told):
            break
    assert any(str(port) in line for line in told), err
    error = err.partition("error: ")[2]
    assert "node.start_timed_out" in error and str(port) in error
    code, out, err = node.run("up", "--detach", "--timeout", "2s", "-o", "json")
    assert (code, out) == (75, "")
    assert json.loads(err)["code"] == "node.start_timed_out"  # nothing but the error for programs
    assert not nodes.left()


def test_detached_it_is_ready_when_nats_comes(nodes):
    port = free_port()  # it must get the same one again
    hub = nodes.node(f'[node]\nname = "hub"\n[nats]\nport = {port}\n', "hub").up()
    seed = hub.data / "keys" / "node-default.nk"
    hub.stop()
    late = nodes.node(joining(port).replace("urls", f'nkey_seed = {{file = "{seed}"}}\nurls') + SLEEPER, "late")
    starting = late.start("up", "--detach", "--timeout", "2m")
    until(lambda: state(late) == "connecting", WAIT_S)
    hub.up()
    _, err = starting.communicate(timeout=60)
    assert starting.returncode == 0, err
    assert late.json("status")["state"] == "running"
    assert late.run("stop", "--now")[0] == 0


@pytest.mark.parametrize("config", ["", joining(9)])
def test_of_two_that_start_at_once_one_stays(nodes, config):
    node = nodes.node(config)
    both = [node.start("up") for _ in range(2)]
    said: dict[int, str] = {}

    def read(process: subprocess.Popen[str]) -> None:
        said[process.pid] = process.communicate()[1]

    readers = [threading.Thread(target=read, args=(process,)) for process in both]
    for reader in readers:
        reader.start()
    try:
        until(lambda: any(process.poll() is not None for process in both), WAIT_S)
        lost, kept = sorted(both, key=lambda process: process.poll() is None)
        until(lambda: lost.pid in said, WAIT_S)
        assert lost.returncode == 1
        assert str(kept.pid) in said[lost.pid] and "node.already_running" in said[lost.pid]
        until(lambda: state(node) in ("ready", "connecting") and node.about["pid"] == kept.pid, WAIT_S)
    finally:
        for process in both:
            process.terminate()
        for reader in readers:
            reader.join(WAIT_S)


def test_a_description_whose_number_was_given_to_another_process_counts_as_none(nodes):
    node = nodes.node()
    first = node.json("up", "--detach")
    os.kill(first["pid"], signal.SIGKILL)
    assert not nodes.left()
    about = node.about
    assert about["pid"] == first["pid"]
    (node.data / "run" / "node.json").write_text(json.dumps({**about, "pid": os.getpid()}))
    assert node.refused("status")[1]["code"] == "node.not_running"
    node.json("up", "--detach")
    assert node.run("stop", "--now")[0] == 0


def test_a_node_that_finishes_its_work_says_that_it_stops(nodes):
    node = nodes.node(SLEEPER).up()
    caller = node.start("invoke", "sleeper", "x", "-o", "json")
    until(lambda: node.status()["running"] == 1, WAIT_S)
    node.signal(signal.SIGTERM)
    until(lambda: state(node) == "stopping", WAIT_S)
    assert node.json("status")["state"] == "stopping"
    code, _, err = node.run("up", "--detach")
    assert code == 1
    assert str(node.pid) in err and "stopping" in err
    node.signal(signal.SIGTERM)
    node.ended(WAIT_S)
    caller.communicate(timeout=WAIT_S)
    assert not (node.data / "run" / "node.json").exists()


def kill_with_warden(node) -> None:
    """Kill node and warden at the same moment: a node that stands still cannot put another in the place of a dead one."""
    warden = next(pid for pid, line in marked(node.mark).items() if f"--node {node.pid} " in line)
    node.signal(signal.SIGSTOP)
    os.kill(warden, signal.SIGKILL)
    node.signal(signal.SIGKILL)
    node.process.wait(WAIT_S)


@pytest.mark.parametrize("mode", ["embedded", "join"])
def test_the_next_start_ends_what_a_double_kill_left(nodes, mode):
    """kill -9 of node and warden at once: its nats-server, its agents' commands."""
    if mode == "join":
        hub = nodes.node('[node]\nname = "hub"\n', "hub").up()
        seed = hub.data / "keys" / "node-default.nk"
        port = int(hub.about["url"].rpartition(":")[2])
        config = joining(port).replace("urls", f'nkey_seed = {{file = "{seed}"}}\nurls') + SLEEPER
    else:
        config = SLEEPER
    node = nodes.node(config, "killed").up()
    before = set(marked(nodes.mark))
    lives_on = before if mode == "join" else set()  # the hub and what is its own
    caller = node.start("invoke", "sleeper", "x")
    until(lambda: node.status()["running"] == 1, WAIT_S)
    sleeper = until(lambda: next((pid for pid, line in marked(nodes.mark).items() if line == "sleep 600 "), 0), WAIT_S)
    kill_with_warden(node)
    caller.kill()
    caller.communicate()
    assert sleeper in marked(nodes.mark)  # there was something to do
    node.up()
    until(lambda: sleeper not in marked(nodes.mark), WAIT_S)
    assert "ended: " in node.log
    until(lambda: before & set(marked(nodes.mark)) <= lives_on, WAIT_S)
    with contextlib.suppress(AssertionError):
        node.stop()
    assert node.process.poll() is not None


def test_a_start_that_fails_late_leaves_in_good_order(nodes):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node = nodes.node(f"[web]\nport = {taken.getsockname()[1]}\n")
        code, _, err = node.run("up")
    assert code == 1
    assert "web.port_in_use" in err and str(os.getpid()) in err
    assert "WARNING" not in err and "Traceback" not in err  # NATS was there until all had left
    assert not nodes.left()
