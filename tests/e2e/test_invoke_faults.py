"""Calls that go wrong, over real processes and both doors: each ends soon, with a code that says why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.conftest import WAIT_S, until
from tests.free_port import free_port

from knotwork.bus import frames
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import KnotworkError, Unreachable

HUB = """
[mesh]
keepalive_s = 2.0
[executors.script]
type = "rehearsal"
script_from_input = true
concurrency = 20
[executors.strict]
type = "python"
function = "./work.py:strict"
input_schema = {type = "object", required = ["n"], properties = {n = {type = "integer"}}}
output_schema = {type = "object"}
[executors.fragile]
type = "rehearsal"
script_from_input = true
allow_crash = true
hosted = true
[executors.sleeper]
type = "process"
command = ["sh", "-c", "echo $$$$ > pid; exec sleep 60"]
cwd = "{folder}"
"""
FAR = """
[nats]
mode = "join"
urls = ["{url}"]
nkey_seed = {{file = "{seed}"}}
[mesh]
keepalive_s = 2.0
heartbeat_s = 2.0
[executors.far]
type = "rehearsal"
script_from_input = true
concurrency = 20
[executors.far-sleeper]
type = "process"
command = ["sh", "-c", "echo $$$$ > pid; exec sleep 60"]
cwd = "{folder}"
"""


def up_hub(made):
    node = made.node(name="hub")
    node.write("def strict(input):\n    return [] if input['n'] == 2 else {'n': input['n']}\n", "work.py")
    node.write(HUB.replace("{folder}", str(node.folder)))
    node.up()
    until(lambda: "fragile" in node.agents())  # a process of its own, which a start does not wait for long
    return node


def up_far(made, hub, name: str = "far"):
    node = made.node(name=name)
    node.write(FAR.format(url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk", folder=node.folder))
    node.up()
    until(lambda: "far" in hub.agents())
    return node


@pytest.fixture(scope="module")
def hub(shared_nodes):
    return up_hub(shared_nodes)


@pytest.fixture(scope="module")
def far(shared_nodes, hub):
    return up_far(shared_nodes, hub)


def fails(node, status: int, code: str, **fields):
    answer = node.call("agents.invoke", **fields)
    assert (answer.status, answer.json["code"]) == (status, code), answer.body
    return answer.json


def pid_of(folder: Path) -> int:
    file = folder / "pid"
    until(lambda: file.exists() and file.read_text().strip())
    return int(file.read_text())


def begun(hub, folder: Path, agent: str, timeout: str):
    """Return a client that calls, and the process that works for it: on a slow machine the first may give up too early."""
    while True:
        client = hub.start("invoke", agent, "1", "--timeout", timeout)
        until(lambda client=client: (folder / "pid").exists() or client.poll() is not None)
        if (folder / "pid").exists():
            return client, pid_of(folder)
        client.communicate()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def test_an_agent_nobody_has(hub):
    problem = fails(hub, 404, "agent.not_found", target="scrpt", input=1)
    assert "script" in json.dumps(problem)
    code, error = hub.refused("invoke", "scrpt", "1")
    assert (code, error["code"]) == (1, "agent.not_found")
    fails(hub, 404, "node.not_found", target="nowhere/script")
    fails(hub, 404, "route.no_eligible_agent", capability="nothing")
    code, error = hub.refused("invoke", "-c", "nothing", "1")
    assert (code, error["code"]) == (1, "route.no_eligible_agent")


@pytest.mark.parametrize("token", ["a.b", ">", "*", "", "x" * 10_000, "a b", "a\nb", "É", "a/b/c", "\x00"])
def test_a_capability_that_is_no_token(hub, token):
    problem = fails(hub, 422, "ops.bad_request", capability=token)
    assert problem["problems"][0]["field"] == "capability"
    assert len(json.dumps(problem)) < 2000
    fails(hub, 422, "ops.bad_request", target=f"{token}/{token}")


def test_a_capability_that_is_no_token_in_a_shell(hub):
    code, error = hub.refused("invoke", "-c", "a.b", "1")
    assert (code, error["code"]) == (2, "ops.bad_request")


def test_input_that_is_too_large_no_json_or_does_not_fit(hub):
    answer = hub.http(
        "POST", "/api/agents/invoke", b'{"target":"script","input":"' + b"x" * 9_000_000 + b'"}',
        authorization=f"Bearer {hub.token}", content_type="application/json",
    )  # fmt: skip
    assert answer.status == 413
    for body in (b"{", b"\xff", b"[" * 100_000, b"null", b"[]"):
        answer = hub.http(
            "POST", "/api/agents/invoke", body, authorization=f"Bearer {hub.token}", content_type="application/json"
        )
        assert (answer.status, answer.json["code"]) in {(422, "wire.not_json"), (422, "ops.bad_request")}, answer.body
    problem = fails(hub, 422, "agent.bad_input", target="strict", input={"n": "one"})
    assert problem["problems"] == [{"place": "n", "message": "'one' is not of type 'integer'"}]
    fails(hub, 502, "agent.bad_output", target="strict", input={"n": 2})
    assert hub.invoke("strict", {"n": 1}) == {"n": 1}


def test_a_large_input_passes_and_comes_back_across_nodes(hub, far):
    text = "y" * 7_000_000
    assert hub.invoke("far", text) == text


def test_an_output_that_is_too_large_is_told(hub, far):
    fails(hub, 413, "bus.message_too_large", target="far", input={"steps": [{"output_bytes": 9_000_000}]})
    assert hub.invoke("far", 1) == 1


def test_an_agent_that_dies_in_a_call(hub):
    for how in ("exit", "kill", "segfault"):
        problem = fails(
            hub, 502, "plugin.crashed", target="fragile", input={"steps": [{"delay_s": 0.05}, {"crash": how}]}
        )
        assert problem.get("data", {}).get("retriable") is not False
        until(lambda: hub.call("agents.invoke", target="fragile", input=1).status == 200)
    assert hub.invoke("script", 1) == 1


def test_a_node_that_dies_in_a_call(nodes, hub, figure):
    node = nodes.node(name="victim")
    text = FAR.format(url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk", folder=node.folder)
    node.write(
        text.replace("executors.far-sleeper", "executors.v-sleeper").replace("executors.far]", "executors.victim]")
    )
    node.up()
    until(lambda: "v-sleeper" in hub.agents())
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(hub.call, "agents.invoke", target="v-sleeper", timeout_s=40)
        pid = pid_of(node.folder)
        os.kill(node.pid, signal.SIGKILL)
        began_s = time.monotonic()
        answer = call.result()
    assert (answer.status, answer.json["code"]) == (503, "node.lost"), answer.body
    figure("a_lost_node_is_told_after_s", round(time.monotonic() - began_s, 2))
    until(lambda: not alive(pid))
    node.ended()


@pytest.mark.parametrize("agent", ["sleeper", "far-sleeper"])
@pytest.mark.parametrize("how", ["interrupt", "kill", "timeout", "hang up"])
def test_work_stops_when_its_client_goes(hub, far, agent, how, figure):
    folder = hub.folder if agent == "sleeper" else far.folder
    (folder / "pid").unlink(missing_ok=True)
    if how == "hang up":
        connection = hub.connect()
        connection.request(
            "POST", "/api/agents/invoke", json.dumps({"target": agent, "input": 1}),
            {"authorization": f"Bearer {hub.token}", "content-type": "application/json"},
        )  # fmt: skip
        pid = pid_of(folder)
        connection.sock.close()
        connection.close()
    else:
        client, pid = begun(hub, folder, agent, "6s" if how == "timeout" else "10m")
        if how != "timeout":
            client.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        out, err = client.communicate(timeout=WAIT_S)
        assert client.returncode not in (0, None), (out, err)
        assert "Traceback" not in err
    began_s = time.monotonic()
    until(lambda: not alive(pid), 30, f"{agent} goes on after {how}")
    figure(f"{agent}_stopped_after_{how}_s", round(time.monotonic() - began_s, 2))
    until(lambda: hub.status()["running"] == 0 and far.status()["running"] == 0)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_node_outlives_a_client_that_goes_while_it_is_told_pieces(hub, how):
    steps = json.dumps({"steps": [{"chunks": 1_000_000, "every_s": 0.01}]})
    pid = hub.status()["pid"]
    client = hub.start("invoke", "script", steps, "--stream")
    assert client.stderr.read(1000)  # pieces go there: the answer alone is output
    client.send_signal(how)
    client.communicate(timeout=WAIT_S)
    until(lambda: hub.status()["running"] == 0)
    assert hub.status()["pid"] == pid
    assert hub.run("invoke", "script", '{"steps": [{"done": "here"}]}')[1] == "here\n"


def test_streamed_calls_come_in_order(hub, far):
    steps = [{"chunk": n} for n in range(50)] + [{"progress": 50, "text": "half"}, {"done": "end"}]
    for target in ("script", "far"):
        answer = hub.http(
            "POST", "/api/agents/invoke", json.dumps({"target": target, "input": {"steps": steps}, "stream": True}).encode(),
            authorization=f"Bearer {hub.token}", content_type="application/json", accept="text/event-stream",
        )  # fmt: skip
        found = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]
        assert [one["data"] for one in found if "data" in one] == list(range(50))
        assert found[-1]["output"] == "end"


def test_the_bus_dies_again_and_again_under_calls(hub, far):
    """Every call ends with an answer or a typed error, and the mesh is whole again soon after."""
    stop = False
    ends: dict[str, int] = {}

    def load(target: str) -> None:
        while not stop:
            answer = hub.call("agents.invoke", target=target, input=1)
            code = "ok" if answer.status == 200 else answer.json["code"]
            ends[code] = ends.get(code, 0) + 1
            if code != "ok":
                time.sleep(0.05)

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, target) for target in ("far", "far", "script", "script")]
        try:
            for _ in range(3):
                before = ends.get("ok", 0)
                until(lambda before=before: ends.get("ok", 0) > before + 20)
                pid = until(lambda: next((pid for pid in children(hub.pid) if "nats-server" in command(pid)), 0))
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: not alive(pid))
        finally:
            stop = True
        for one in loads:
            one.result(WAIT_S)
    allowed = {
        "ok",
        "bus.disconnected",
        "node.lost",
        "call.timed_out",
        "route.no_eligible_agent",
        "bus.no_responders",
        "agent.away",
        "agent.not_found",
        "node.not_found",
    }
    assert set(ends) <= allowed, ends
    for node, agent in ((hub, "script"), (hub, "far"), (far, "script")):
        until(lambda node=node, agent=agent: node.call("agents.invoke", target=agent, input=2).status == 200)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(folder.name))
    return found


# -- over plain NATS -------------------------------------------------------------------------------------------------


def endpoint(node, who: str, project: str = "default", prefix: str = "_INBOX") -> Endpoint:
    seed = (node.data / "keys" / f"{who}-{project}.nk").read_text().strip()
    return Endpoint((node.about["url"],), seed=seed, inbox_prefix=prefix)


def test_hostile_requests_to_ops_and_agents_are_answered_and_hurt_nobody(hub):
    name = hub.about["node"]

    async def talk() -> None:
        async with open_connection(endpoint(hub, "node", prefix="_NODE")) as connection:

            async def code(subject: str, payload: bytes, head: bytes = b"") -> str:
                message = await connection.request(subject, payload, head=head, timeout_s=WAIT_S)
                frame = frames.read(message)
                return frames.read_error(frame.data).code if frame.kind == "error" else "ok"

            assert await code("op.node.status", b"{}") == "ok"
            assert await code("op.node.nothing", b"{}") == "ops.unknown"
            bad = b"NATS/1.0\r\nKnot-Call: \xff\r\n\r\n"
            for subject in ("op.node.status", f"op.node.status.{name}", f"agent.{name}.script"):
                assert await code(subject, b"{}", bad) == "wire.bad_envelope"
                for payload in (b"{", b"\xff\xfe", b"[" * 50_000, b"\x00" * 100):
                    assert await code(subject, payload) == "wire.not_json"
            assert await code("op.agents.invoke", b"x" * 8_000_000) == "wire.not_json"
            assert await code(f"op.agents.invoke.{name}", b'{"target": ">", "input": 1}') == "ops.bad_request"
            assert await code(f"agent.{name}.nobody", b"1") == "agent.not_found"
            for odd in (b"\xff", b"\x00\x01"):
                connection.send("op.cancel.x", odd)
                connection.send(f"cancel.{name}.x", odd)
            connection.send("op.node.stop", b"{}", "$JS.API.STREAM.PURGE.KV_NODES")
            connection.send("op.node.stop", b"{}")  # nobody to answer: not carried out
            assert await code("op.node.status", b"{}") == "ok"

    asyncio.run(talk())
    assert hub.invoke("script", 1) == 1
    assert "script" in hub.agents()


def test_a_local_door_may_ask_ops_and_nothing_else(hub):
    name = hub.about["node"]

    async def talk() -> None:
        async with (
            open_connection(endpoint(hub, "local")) as local,
            open_connection(endpoint(hub, "node", prefix="_NODE")) as node,
        ):
            message = await local.request("op.node.status", b"{}", timeout_s=WAIT_S)
            assert json.loads(message.data)["node"]
            heard: list = []
            for subject in (f"agent.{name}.script", "$JS.API.>", "$KV.NODES.>", "cancel.>", "telemetry.>"):
                await node.listen(subject, heard.append)
            await node.round_trip()
            spied: list = []

            async def settled() -> None:
                await local.request("op.node.status", b"{}", timeout_s=WAIT_S)

            for subject in ("_NODE.>", ">", "agent.>", "$JS.API.>", "$SYS.>", "op.>", "$KV.>"):
                local.last_error = ""
                listening = await local.listen(subject, spied.append)
                await settled()
                assert "permissions violation" in local.last_error.lower(), subject
                local.unlisten(listening)
            for subject in (
                f"agent.{name}.script",
                "$JS.API.STREAM.PURGE.KV_NODES",
                "$JS.API.INFO",
                f"$KV.NODES.{name}",
                "cancel.x.y",
                "telemetry.x",
            ):
                local.last_error = ""
                local.send(subject, b"", "_INBOX.x.y")
                await settled()
                assert "permissions violation" in local.last_error.lower(), subject
            by_our_hand = ("$JS.API.STREAM.PURGE.KV_NODES", f"agent.{name}.script", "$KV.NODES.evil")
            for subject in by_our_hand:
                local.send("op.node.status", b"{}", subject)
                local.send(f"op.node.status.{name}", b"{}", subject)
                local.send("$SRV.PING", b"", subject)
            await settled()
            await node.round_trip()
            # the node itself asks JetStream now and then, and tells how it is
            assert [one.subject for one in heard if one.reply == "_INBOX.x.y" or one.subject in by_our_hand] == []
            assert spied == []
            assert local.reconnects == 0

    asyncio.run(talk())
    assert "script" in hub.agents()


def test_projects_do_not_see_each_other(nodes):
    node = nodes.node(
        """
        [projects.red]
        [projects.blue]
        [executors.r]
        type = "rehearsal"
        projects = ["red"]
        [executors.b]
        type = "rehearsal"
        projects = ["blue"]
        """
    ).up()

    def agents(project: str) -> list[str]:
        return [row["agent"] for row in node.call("agents.list", project=project).json["agents"]]

    until(lambda: agents("red") == ["r"] and agents("blue") == ["b"])
    assert node.call("agents.invoke", project="red", target="r", input=1).json["output"] == 1
    answer = node.call("agents.invoke", project="blue", target="r", input=1)
    assert (answer.status, answer.json["code"]) == (404, "agent.not_found")
    name = node.about["node"]

    async def talk() -> None:
        async with open_connection(endpoint(node, "node", "blue", "_NODE")) as blue:
            reply = await blue.request(f"agent.{name}.r", b"1", timeout_s=WAIT_S)
            assert frames.read_error(frames.read(reply).data).code == "agent.not_found"
            heard: list = []
            await blue.listen(">", heard.append)
            await blue.round_trip()
            async with open_connection(endpoint(node, "node", "red", "_NODE")) as red:
                assert (await red.request(f"agent.{name}.r", b"1", timeout_s=WAIT_S)).data == b"1"
            assert [message for message in heard if message.data == b"1"] == []
        stranger = Endpoint((node.about["url"],))
        with pytest.raises(KnotworkError) as caught:
            async with open_connection(stranger):
                pass
        assert not isinstance(caught.value, Unreachable) or "uthorization" in str(caught.value)

    asyncio.run(talk())


def test_two_nodes_of_one_name_are_refused(nodes, hub):
    node = nodes.node(name="double")
    text = FAR.format(url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk", folder=node.folder)
    node.write(f'[node]\nname = "{hub.about["node"]}"\n' + text)
    node.up(wait_s=0)
    assert node.ended() == 1
    assert "Another node is called" in node.log
    assert "Traceback" not in node.log
    assert hub.invoke("script", 1) == 1


def test_a_node_waits_for_the_nats_it_joins(nodes):
    port = free_port()  # it must get the same one again
    first = nodes.node(f'[nats]\nport = {port}\n[executors.one]\ntype = "rehearsal"\n', name="first")
    first.up()
    url, seed = first.about["url"], first.data / "keys" / "node-default.nk"
    first.stop()
    node = nodes.node(name="second")
    node.write(FAR.format(url=url, seed=seed, folder=node.folder))
    node.up(wait_s=0)
    until(lambda: "bus" in node.log.lower() or "nats" in node.log.lower())
    assert node.process.poll() is None
    first.up()
    until(lambda: "far" in first.agents())
    assert first.invoke("far", 3) == 3


def test_credentials_that_nats_refuses_end_the_start(nodes, hub):
    node = nodes.node(name="stranger")
    seed = node.folder / "stranger.nk"
    from knotwork.trust import keys

    seed.write_text(keys.generate().seed)
    seed.chmod(0o600)
    node.write(FAR.format(url=hub.about["url"], seed=seed, folder=node.folder))
    node.up(wait_s=0)
    assert node.ended() == 77
    assert "refuses" in node.log
    assert "Traceback" not in node.log
