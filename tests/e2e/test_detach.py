"""`up --detach` returns when the node is ready and `stop` when it is gone; what a node leaves in its folder is private."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import psutil
from tests.e2e.conftest import PROGRAM, WAIT_S, marked, until

SHOUT = '[executors.shout]\ntype = "process"\ncommand = ["tr", "a-z", "A-Z"]\n'


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def idle_bytes(pid: int) -> int:
    """Return what a node and all its processes but nats-server hold; what they share counts once."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    ours = [process for process in family if process.name() != "nats-server"]
    assert len(ours) == len(family) - 1 >= 3  # the node, its warden, the view
    full = [process.memory_full_info() for process in ours]
    return sum(getattr(one, "pss", one.rss) for one in full)


def test_ready_when_up_returns_and_gone_when_stop_does(nodes, figure):
    node = nodes.node(SHOUT)
    ready = node.json("up", "--detach")
    pid = ready["pid"]
    try:
        assert node.get("/readyz").status == 200
        assert node.run("invoke", "shout", "at once") == (0, "AT ONCE\n", "")
        assert os.getsid(pid) == pid  # no terminal's hangup reaches it
        code, wire = node.refused("up", "--detach")
        assert (code, wire["code"]) == (1, "node.already_running")
        assert str(pid) in wire["message"]
        node.ask("view.status")  # its process is there
        held = idle_bytes(pid)
        figure("idle_memory_mb", round(held / 1024**2, 1))
        figure("ready_s", ready["ready_s"])
        assert held <= 120 * 1024**2
        for name in ("run/node.json", "keys/http.token", "knotwork.log"):
            assert stat.S_IMODE((node.data / name).stat().st_mode) == 0o600, name
        for path in (node.data / "keys").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        for name in ("", "keys", "run"):
            assert stat.S_IMODE((node.data / name).stat().st_mode) == 0o700, name
    finally:
        code, _, err = node.run("stop")
    assert (code, err) == (0, "")
    assert gone(pid)
    assert not marked(nodes.mark)  # at once, not some time later
    assert not (node.data / "run" / "node.json").exists()
    assert node.run("stop")[0] == 69


def test_of_several_that_start_at_once_one_does_and_its_log_stays(nodes):
    node = nodes.node(SHOUT)
    starts = [node.start("up", "--detach", "-o", "json") for _ in range(4)]
    ended = [(one.communicate(timeout=WAIT_S), one.returncode) for one in starts]
    try:
        assert sorted(code for _, code in ended) == [0, 1, 1, 1], ended
        told = [json.loads(err)["code"] for (_, err), code in ended if code]
        assert told == ["node.already_running"] * 3
        assert "is ready" in (node.data / "knotwork.log").read_text()
        assert not (node.data / "knotwork.log.1").exists()
    finally:
        assert node.run("stop")[0] == 0
    assert not nodes.left()


def test_what_stops_the_start_is_told_by_the_command(nodes):
    node = nodes.node("[node]\nnmae = 1\n")
    code, wire = node.refused("up", "--detach")
    assert code == 78
    assert "knotwork.toml:2:1" in wire["message"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for table in ("nats", "web"):
            node.write(f"[{table}]\nport = {port}\n")
            code, wire = node.refused("up", "--detach")
            assert code == 1
            assert str(port) in wire["message"]
            assert "Traceback" not in wire["message"]
    node.write("# the defaults\n")
    (node.data / "keys" / "node-default.nk").write_text("")
    code, wire = node.refused("up", "--detach")
    assert code == 2
    assert "delete it" in wire["message"]
    assert not nodes.left()


def test_a_second_node_in_the_same_folder_is_refused_and_told_who(nodes):
    node = nodes.node(SHOUT).up()
    second = node.start("up")
    _, err = second.communicate(timeout=WAIT_S)
    assert second.returncode == 1
    assert str(node.pid) in err
    assert "Traceback" not in err
    assert node.invoke("shout", "unharmed") == "UNHARMED"


def test_the_folder_of_a_killed_node_is_as_good_as_before(nodes):
    node = nodes.node(SHOUT)
    first = node.json("up", "--detach")
    os.kill(first["pid"], signal.SIGKILL)
    assert not nodes.left()
    assert (node.data / "run" / "node.json").exists()
    assert node.refused("status")[0] == 69
    second = node.json("up", "--detach")
    assert second["node"] == first["node"]  # and it is the same node
    assert node.status()["revision"] == 1
    assert node.run("stop", "--now")[0] == 0


def test_it_goes_on_when_the_shell_that_started_it_ends(nodes):
    node = nodes.node(SHOUT)
    shell = subprocess.Popen(
        ["sh", "-c", '"$@" up --detach -o json', "sh", *PROGRAM],
        stdout=subprocess.PIPE, env=node.env, cwd=node.folder, start_new_session=True, text=True,
    )  # fmt: skip
    out, _ = shell.communicate(timeout=WAIT_S)
    pid = json.loads(out)["pid"]
    with_shell = [one for one in marked(nodes.mark) if os.getpgid(one) == shell.pid]
    assert not with_shell
    os.kill(pid, signal.SIGHUP)
    until(lambda: node.status()["last_reload"])
    assert node.invoke("shout", "on") == "ON"
    assert node.run("stop", "--now")[0] == 0


def test_stopping_waits_no_longer_than_told(nodes):
    node = nodes.node('[executors.sleeper]\ntype = "process"\ncommand = ["sleep", "600"]\n').up()
    caller = node.start("invoke", "sleeper", "x", "-o", "json")
    until(lambda: node.status()["running"] == 1)
    code, _, err = node.run("stop", "--drain", "300ms")  # not the 600 s that the agent wants
    assert (code, err) == (0, "")
    assert node.ended() == 0
    _, err = caller.communicate(timeout=WAIT_S)
    assert (caller.returncode, json.loads(err)["code"]) == (75, "node.stopping")


def test_the_data_folder_cannot_be_used(nodes):
    node = nodes.node(SHOUT)
    blocked = Path(node.folder) / "a-file"
    blocked.write_text("")
    node.up("--data-dir", str(blocked / "data"), wait_s=0)
    assert node.ended() == 77
    assert "--data-dir" in node.log
    assert "Traceback" not in node.log


def test_a_folder_for_everybody_is_refused_with_its_own_exit_code(nodes):
    node = nodes.node(SHOUT)
    node.data.mkdir()
    node.data.chmod(0o1777)
    code, wire = node.refused("up", "--detach")
    assert (code, wire["kind"]) == (77, "denied")
    assert "Everybody may write to" in wire["message"]
