"""The command line against a real node: up --detach, verbs, reload, stop; every verb is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from knotwork.cli import local

CONFIG = """
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
capabilities = ["loud"]

[executors.sleeper]
type = "process"
command = ["sleep", "60"]
"""


class Shell:
    """A folder with a configuration and the environment of one node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KNOTWORK")}
        self.env = {**kept, "KNOTWORK_DATA_DIR": str(self.data), "KNOTWORK_CONFIG": str(folder / "knotwork.toml")}
        self.write(CONFIG)

    def write(self, text: str) -> None:
        (self.folder / "knotwork.toml").write_text(text)

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "knotwork", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**self.env, **env},
        )

    def run(self, *words: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def json(self, *words: str, **env: str):
        code, out, err = self.run(*words, "-o", "json", **env)
        assert code == 0, err
        return json.loads(out)

    def stop(self) -> None:
        node = local.read(self.data)
        if node is not None:
            self.run("stop", "--now")
        node = local.read(self.data)
        if node is not None:
            os.kill(node.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    made = Shell(tmp_path_factory.mktemp("node"))
    code, out, err = made.run("up", "--detach", "-o", "json")
    try:
        assert code == 0, err
        made.ready = json.loads(out)
        yield made
    finally:
        made.stop()


@pytest.fixture
def own(tmp_path):
    made = Shell(tmp_path)
    yield made
    made.stop()


def test_detached_means_ready(shell):
    assert local.alive(shell.ready["pid"])
    assert shell.ready["data_dir"] == str(shell.data)
    health = shell.json("health")
    assert health["ready"] is True
    assert shell.json("status")["pid"] == shell.ready["pid"]


def test_a_second_node_in_the_folder_is_refused(shell):
    code, _, err = shell.run("up", "--detach", "-o", "json")
    wire = json.loads(err)
    assert (code, wire["code"]) == (1, "node.already_running")
    assert str(shell.ready["pid"]) in wire["message"]


def test_verbs_answer_in_every_shape(shell):
    agents = shell.json("agents")["agents"]
    assert sorted(row["agent"] for row in agents) == ["shout", "sleeper"]
    code, out, _ = shell.run("agents", "-o", "jsonl")
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = shell.run("agents")
    assert out.splitlines()[0].startswith("NAME ")
    assert [row["here"] for row in shell.json("nodes")["nodes"]] == [True]
    assert shell.json("agents", "--capability", "loud")["total"] == 1
    assert shell.json("agents", "show", "shout")["capabilities"] == ["loud"]
    assert shell.json("config", "show", "executors.shout.type")["settings"][0]["value"] == "process"
    assert shell.json("config", "plan")["ok"] is True
    assert shell.json("plugin", "list")["slots"]


def test_invoke(shell):
    assert shell.run("invoke", "shout", "hello there") == (0, "HELLO THERE\n", "")
    answer = shell.json("invoke", "-c", "loud", '"x"')
    assert (answer["output"].strip(), answer["agent"].rpartition("/")[2]) == ("X", "shout")
    code, _, err = shell.run("invoke", "nobody", "x", "-o", "json")
    assert (code, json.loads(err)["kind"]) == (1, "not_found")
    code, _, err = shell.run("invoke", "-c", "nothing-like-it", "x", "-o", "json")
    assert (code, json.loads(err)["code"]) == (1, "route.no_eligible_agent")


def test_a_time_out_is_75_and_comes_in_time(shell):
    code, _, err = shell.run("invoke", "sleeper", "x", "--timeout", "300ms", "-o", "json")
    assert (code, json.loads(err)["kind"]) == (75, "timed_out")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_work(shell, number, exit_code):
    process = shell.start("invoke", "sleeper", "x")
    deadline = time.monotonic() + 90
    while shell.json("status")["running"] != 1:
        assert time.monotonic() < deadline
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert "Traceback" not in err
    while shell.json("status")["running"] != 0:
        assert time.monotonic() < deadline


def test_events_come_as_they_happen(shell):
    process = shell.start("events", "config.*", "--limit", "1", "--wait", "90s", "-o", "jsonl")
    deadline = time.monotonic() + 90
    while process.poll() is None:
        shell.run("reload")
        assert time.monotonic() < deadline
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[0])["name"].startswith("config.")


def test_a_refused_reload_is_78_and_changes_nothing(shell):
    shell.write(CONFIG + "\n[node]\nnmae = 'x'\n[nodes]\n")
    try:
        code, _, err = shell.run("reload", "-o", "json")
        wire = json.loads(err)
        assert (code, wire["kind"]) == (78, "config_invalid")
        assert {problem["line"] for problem in wire["detail"]["problems"]} == {12, 13}
        assert shell.json("agents")["total"] == 2
    finally:
        shell.write(CONFIG)
    assert shell.run("reload")[0] == 0


def test_an_address_and_credentials_instead_of_the_local_node(shell):
    node = local.find(shell.data)
    words = ("nodes", "--url", node.url, "--creds", node.seed_of(node.project))
    elsewhere = {"KNOTWORK_DATA_DIR": str(shell.folder / "elsewhere")}
    assert len(shell.json(*words, **elsewhere)["nodes"]) == 1
    code, _, err = shell.run("nodes", "--url", node.url, "-o", "json", **elsewhere)
    assert (code, json.loads(err)["kind"]) == (77, "denied")
    code, _, err = shell.run("nodes", "--url", "nats://127.0.0.1:1", "-o", "json", **elsewhere)
    assert (code, json.loads(err)["kind"]) == (69, "unreachable")
    code, _, err = shell.run(*words, "--project", "other", "-o", "json", **elsewhere)
    assert (code, json.loads(err)["code"]) == (2, "cli.usage")
    assert shell.run("nodes", "--project", "other")[0] == 1


def test_stop_returns_when_it_is_gone(own):
    pid = own.json("up", "--detach")["pid"]
    assert own.run("stop", "-q")[0] == 0
    assert not local.alive(pid)
    assert not local.node_file(own.data).exists() or local.read(own.data) is None
    assert own.run("stop")[0] == 69


def test_a_node_that_cannot_start_says_why(own):
    own.write("[node]\nnmae = 1\n")
    code, _, err = own.run("up", "--detach", "-o", "json")
    wire = json.loads(err)
    assert (code, wire["code"]) == (78, "node.start_failed")
    assert "knotwork.toml:2:1" in wire["message"]
    assert local.read(own.data) is None


def test_a_node_that_is_not_ready_in_time_is_ended(own):
    code, _, err = own.run("up", "--detach", "--timeout", "10ms", "-o", "json")
    assert (code, json.loads(err)["code"]) == (75, "node.start_timed_out")
    assert local.read(own.data) is None
    deadline = time.monotonic() + 60
    while str(own.data) in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline


def test_up_in_the_foreground_ends_on_a_signal(own):
    process = own.start("up")
    deadline = time.monotonic() + 90
    while local.read(own.data) is None:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (0, 143)
    assert local.read(own.data) is None
