"""Projects of a node that joined a NATS of others: one that gets other credentials goes over to them, or nothing changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import nats
import pytest
from tests.e2e.conftest import until
from tests.free_port import free_port

from knotwork.bus import binary

SERVER = """
host: 127.0.0.1
port: {port}
ports_file_dir: "{folder}"
jetstream {{ store_dir: "{folder}/store", max_file_store: 64GB }}
accounts {{
  ONE {{ jetstream: enabled, users: [{{ user: one, password: secret }}] }}
  TWO {{ jetstream: enabled, users: [{{ user: two, password: secret }}] }}
  REST {{ jetstream: enabled, users: [{{ user: rest, password: secret }}] }}
}}
"""
NODE = """
[node]
name = "guest"
drain_s = 600
[nats]
mode = "join"
urls = ["nats://127.0.0.1:{port}"]
[projects.rest]
user = "rest"
password = {{ file = "secret" }}
{project}
[executors.worker]
type = "rehearsal"
script_from_input = true
projects = {projects}
"""
LONG = {"steps": [{"delay_s": 600.0}]}
WAIT_S = 30.0


@pytest.fixture
def server(tmp_path):
    port = free_port()
    conf = tmp_path / "server.conf"
    conf.write_text(SERVER.format(port=port, folder=tmp_path))
    with subprocess.Popen(
        [binary.find().path, "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        until(lambda: list(tmp_path.glob("*.ports")), WAIT_S)
        yield port
        os.kill(one.pid, signal.SIGKILL)


@pytest.fixture
def guest(nodes, server):
    node = nodes.node(name="guest")
    for name in ("secret", "wrong"):
        node.write(name, name)
        (node.folder / name).chmod(0o600)

    def config(user: str, password: str = "secret") -> str:
        project = f'[projects.work]\nuser = "{user}"\npassword = {{ file = "{password}" }}\n' if user else ""
        projects = json.dumps(["rest", "work"] if user else ["rest"])
        return NODE.format(port=server, project=project, projects=projects)

    node.config = config
    node.write(config("one"))
    return node.up()


def put(node, text: str) -> dict:
    """Write a configuration and return the verdict about it."""
    before = node.status()["last_reload"]
    node.write(text)
    return node.verdict(before)


async def seen(port: int, user: str) -> bool:
    """Say whether the node's agent is there in the account of this user."""
    client = await nats.connect(f"nats://127.0.0.1:{port}", user=user, password="secret")
    try:
        answer = await client.request("$SRV.PING.worker", b"", timeout=WAIT_S)
    except nats.errors.NoRespondersError:
        return False
    finally:
        await client.close()
    return bool(answer.data)


async def test_added_again_with_other_credentials_while_it_is_left(guest, server) -> None:
    assert (await seen(server, "one"), await seen(server, "two")) == (True, False)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(guest.call, "agents.invoke", project="work", target="worker", input=LONG, timeout_s=500.0)
        until(lambda: guest.status()["running"] == 1, WAIT_S)
        assert put(guest, guest.config(""))["removed"] == ["projects.work"]
        assert not call.done()  # it may finish
        assert put(guest, guest.config("two"))["result"] == "applied"
        answer = call.result(WAIT_S)
        assert (answer.status, answer.json["code"]) == (503, "node.stopping")
    assert (await seen(server, "one"), await seen(server, "two")) == (False, True)
    assert guest.call("agents.invoke", project="work", target="worker", input=1).json["output"] == 1
    assert guest.call("agents.invoke", project="rest", target="worker", input=1).json["output"] == 1


async def test_the_same_credentials_keep_connection_and_calls(guest, server) -> None:
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(guest.call, "agents.invoke", project="work", target="worker", input=LONG, timeout_s=500.0)
        until(lambda: guest.status()["running"] == 1, WAIT_S)
        put(guest, guest.config(""))
        assert put(guest, guest.config("one"))["result"] == "applied"
        assert not call.done()
        assert guest.status()["running"] == 1
        guest.stop()
        call.exception(WAIT_S)  # whatever came of it


async def test_exchanged_in_place(guest, server) -> None:
    assert put(guest, guest.config("two"))["result"] == "applied"
    assert (await seen(server, "one"), await seen(server, "two")) == (False, True)


def test_a_project_that_nats_refuses_meanwhile_is_told_of_in_the_status(guest, server, tmp_path) -> None:
    (ports,) = tmp_path.glob("*.ports")
    text = SERVER.format(port=server, folder=tmp_path)

    def reload(text: str) -> None:
        (tmp_path / "server.conf").write_text(text)
        os.kill(int(ports.stem.rpartition("_")[2]), signal.SIGHUP)

    assert guest.status()["warnings"] == []
    reload(text.replace("one, password: secret", "one, password: changed"))
    until(lambda: any("refuses these" in one for one in guest.status()["warnings"]), 2 * WAIT_S)
    assert [one.partition(": ")[0] for one in guest.status()["warnings"]] == ["project work"]
    reload(text)
    until(lambda: guest.status()["warnings"] == [], 2 * WAIT_S)


def test_a_new_project_is_not_waited_for_while_nats_is_away(guest, server, tmp_path) -> None:
    put(guest, guest.config(""))
    (ports,) = tmp_path.glob("*.ports")
    os.kill(int(ports.stem.rpartition("_")[2]), signal.SIGKILL)
    until(lambda: "rest" in json.dumps(guest.status()["warnings"]), 2 * WAIT_S)
    told = until(lambda: (one := put(guest, guest.config("two"))) and "needs it" in one["message"] and one, 2 * WAIT_S)
    assert told["result"] == "refused"
    assert "is away, and a new project" in told["message"]
    assert "knotwork reload" in told["message"]


@pytest.mark.parametrize("removed", [True, False])
async def test_credentials_that_are_refused_change_nothing(guest, server, removed) -> None:
    if removed:
        put(guest, guest.config(""))
    verdict = put(guest, guest.config("two", "wrong"))
    assert verdict["result"] == "refused"
    assert "refuses these credentials" in verdict["message"]
    if not removed:
        assert (await seen(server, "one"), await seen(server, "two")) == (True, False)
        assert guest.call("agents.invoke", project="work", target="worker", input=1).json["output"] == 1
    assert put(guest, guest.config("one"))["result"] in ("applied", "unchanged")
    assert guest.call("agents.invoke", project="work", target="worker", input=1).json["output"] == 1
