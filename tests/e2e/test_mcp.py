"""Agents over `knotwork mcp`, by the SDK's own client in both revisions, against real nodes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from tests.e2e.agents_mcp import LEGACY, MODES, Agent, http_agent, parameters, stdio_agent, work_uri
from tests.e2e.conftest import WAIT_S, Node, Nodes, marked, until

DOORS = (stdio_agent, http_agent)


@pytest.fixture(scope="module")
def node(shared_nodes: Nodes) -> Iterator[Node]:
    yield shared_nodes.node().up()


@pytest.mark.parametrize("mode", MODES)
async def test_work_is_given_taken_and_done(node: Node, mode: str):
    async with stdio_agent(node, mode=mode, name="Giver") as giver, stdio_agent(node, mode=mode, name="Taker") as taker:
        offered = await giver.call(
            "broadcast_work_offer", taskId="T-1", description="Sum them up.", requiredCapability="Sum Up",
            contextData={"numbers": [1, 2]}, priority=7, scope="public",
        )  # fmt: skip
        assert "in this project" in offered["note"]
        listed = await giver.call("list_work", capability="sum-up")
        about = {row["work_id"]: (row["taskId"], row["description"]) for row in listed["work"]}
        assert about[offered["work_id"]] == ("T-1", "Sum them up.")
        claimed = await taker.call("claim_work", capability="sum-up", timeout=20000)
        assert claimed["work_id"] == offered["work_id"]
        assert (claimed["description"], claimed["taskId"]) == ("Sum them up.", "T-1")
        assert claimed["contextData"] == {"numbers": [1, 2]}
        await taker.call("report_progress", work_id=claimed["work_id"], progress=50, message="half")
        done = await taker.call("complete_work", work_id=claimed["work_id"], result={"sum": 3})
        assert done["status"] == "completed"
        found = await giver.call("await_work", work_id=offered["work_id"], timeout_secs=WAIT_S)
        assert (found["success"], found["result"]) == (True, {"sum": 3})
        assert (await giver.call("check_work", work_id=offered["work_id"]))["result"] == {"sum": 3}


async def test_a_failure_becomes_a_dead_letter_that_lives_again(node: Node):
    async with stdio_agent(node, "--toolset", "classic", mode=LEGACY) as agent:
        given = await agent.call("assign_work", task="cannot be done", capability="miracles")
        work = given["work_id"]
        failed: dict[str, Any] = {}
        while failed.get("status") != "dead":
            assert failed.get("status") in (None, "waiting")
            await agent.call("claim_work", capability="miracles", timeout=30000)
            failed = await agent.call("fail_work", work_id=work, error="no miracles today", recoverable=True)
        items = (await agent.call("list_dead_letter_items", capability="miracles"))["items"]
        assert [(item["itemId"], item["reason"]) for item in items] == [(work, "no miracles today")]
        await agent.call("retry_dead_letter_item", itemId=work)
        again = await agent.call("claim_work", capability="miracles", timeout=20000)
        assert again["work_id"] == work
        await agent.call("complete_work", work_id=work, result="a miracle")
        assert (await agent.call("list_dead_letter_items", capability="miracles"))["items"] == []
        assert "no dead letter" in await agent.refused("discard_dead_letter_item", itemId=work)


@pytest.mark.parametrize("mode", MODES)
async def test_a_bad_call_is_told_all_that_is_wrong(node: Node, mode: str):
    async with stdio_agent(node, mode=mode) as agent:
        said = await agent.refused("assign_work", task="", capability="x", priority=99, urgent=True)
        assert all(word in said for word in ("task", "priority", "urgent", "there is no such argument", "takes:"))
        said = await agent.refused("check_work", work_id="t0000000000000000000000000")
        assert "t0000000000000000000000000" in said
        with pytest.raises(MCPError, match="Did you mean check_work"):
            await agent.tried("chek_work", work_id="x")


@pytest.mark.parametrize("mode", MODES)
async def test_more_tools_are_listed_when_asked_for(node: Node, mode: str):
    async with stdio_agent(node, mode=mode) as agent:
        few = await agent.tools()
        assert len(few) <= 12
        assert "cancel_work" not in few
        await agent.call("toolsets", add=["work"])
        more = await agent.tools()
        assert more[: len(few)] == few
        assert "cancel_work" in more


async def test_every_listed_tool_says_all_about_itself(node: Node):
    unlisted = {"send_message", "send_direct_message", "recall_context"}  # they understand more than they list
    async with stdio_agent(node, "--toolset", "all") as agent:
        for tool in (await agent.client.list_tools()).tools:
            assert tool.output_schema
            assert tool.title
            assert tool.input_schema.get("additionalProperties", True) is (tool.name in unlisted)
            hints = tool.annotations
            assert hints is not None
            assert None not in (
                hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint
            )  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("mode", MODES)
async def test_resources_and_prompts_are_read(node: Node, mode: str, door: Any):
    async with door(node, mode=mode) as agent:
        for resource in (await agent.client.list_resources()).resources:
            read = await agent.client.read_resource(resource.uri)
            assert read.contents
        given = await agent.call("assign_work", task="read me", capability="reading")
        read = await agent.client.read_resource(work_uri(given["work_id"]))
        assert given["work_id"] in read.contents[0].text
        with pytest.raises(MCPError, match="no resource"):
            await agent.client.read_resource("knotwork://nowhere")
        for prompt in (await agent.client.list_prompts()).prompts:
            arguments = {one.name: "something" for one in prompt.arguments or ()}
            told = await agent.client.get_prompt(prompt.name, arguments)
            assert told.messages
        assert len((await agent.client.list_resource_templates()).resource_templates) == 2


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("mode", MODES)
async def test_progress_is_told_while_a_call_waits(node: Node, mode: str, door: Any):
    seen: list[str | None] = []

    async def on_progress(_: float, __: float | None, message: str | None) -> None:
        seen.append(message)

    async with door(node, mode=mode, name="waits") as waits, stdio_agent(node, mode=mode, name="does") as does:
        given = await waits.call("assign_work", task="slowly", capability="slow-work")
        wanted = {"work_id": given["work_id"], "timeout_secs": WAIT_S}
        async with asyncio.timeout(2 * WAIT_S), asyncio.TaskGroup() as group:
            waiting = group.create_task(waits.client.call_tool("await_work", wanted, progress_callback=on_progress))
            await does.call("claim_work", capability="slow-work", timeout=20000)
            while "nearly" not in seen:  # nobody is told what was before it listened
                await does.call("report_progress", work_id=given["work_id"], progress=90, message="nearly")
                await asyncio.sleep(0.01)
            await does.call("complete_work", work_id=given["work_id"], result="done")
        assert waiting.result().structured_content["result"] == "done"


async def test_two_sessions_in_one_folder_are_two_agents_and_each_restarts_as_itself(node: Node):
    async with stdio_agent(node, name="twin") as one:
        await one.call("list_agents")
        async with stdio_agent(node, name="twin") as two:
            await two.call("list_agents")
            sessions = _open_sessions(node)
            assert len(set(sessions)) == 2
        async with stdio_agent(node, name="twin") as again:
            await again.call("list_agents")
            assert _open_sessions(node) == sessions


def _open_sessions(node: Node) -> list[str]:
    """Return the labels that are held now in this node's data folder."""
    held = []
    for path in sorted((node.data / "run" / "sessions").iterdir()):
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.append(path.name)
    return held


async def test_work_of_an_agent_that_is_killed_is_done_by_another(node: Node):
    async with stdio_agent(node, name="heir") as heir:
        await heir.call("list_agents")  # a process that has just begun shows no environment yet
        mine = set(marked(node.mark))
        async with stdio_agent(node, name="victim") as victim:
            await victim.call("list_agents")
            pid = next(pid for pid, words in marked(node.mark).items() if pid not in mine and " mcp" in words)
            given = await heir.call("assign_work", task="dangerous", capability="danger")
            assert (await victim.call("claim_work", capability="danger", timeout=20000))["work_id"] == given["work_id"]
            os.kill(pid, signal.SIGKILL)
            taken: dict[str, Any] = {}
            async with asyncio.timeout(2 * WAIT_S):
                while not taken.get("claimed"):
                    taken = await heir.call("claim_work", capability="danger", timeout=30000)
            assert (taken["work_id"], taken["attempt"]) == (given["work_id"], 1)
        done = await heir.call("complete_work", work_id=given["work_id"], result="survived")
        assert done["status"] == "completed"
    assert node.pid in marked(node.mark)


async def test_a_bridge_survives_a_restart_of_its_node(nodes: Nodes):
    node = nodes.node().up()
    async with stdio_agent(node, "--no-start", name="stayer") as agent:
        given = await agent.call("assign_work", task="later", capability="patience")
        claimed = await agent.call("claim_work", capability="patience", timeout=20000)
        assert claimed["work_id"] == given["work_id"]
        node.signal(signal.SIGKILL)
        node.ended()
        said = await agent.refused("list_agents")
        assert "knotwork up" in said
        node.up()
        async with asyncio.timeout(WAIT_S):
            while (await agent.tried("list_agents")).is_error:
                await asyncio.sleep(0.01)
        await waits_over_a_kill(node, agent, given["work_id"])
        done = await agent.call("complete_work", work_id=given["work_id"], result="patience pays")
        assert done["status"] == "completed"


async def waits_over_a_kill(node: Node, agent: Agent, work_id: str) -> None:
    """Have calls wait while their node is killed and comes back: they go on, and what is not to be done twice is told."""
    me = await agent.call("get_my_handle")
    async with asyncio.TaskGroup() as group:
        letter = group.create_task(agent.call("wait_for_message", timeout_secs=WAIT_S))
        ended = group.create_task(agent.call("await_work", work_id=work_id, timeout_secs=2.5))
        claim = group.create_task(agent.refused("claim_work", capability="nothing-there", timeout=30000))
        await agent.call("list_agents")
        node.signal(signal.SIGKILL)
        node.ended()
        said = await claim
        assert "may have been done or not" in said
        assert "claim again" in said
        node.up()
        async with asyncio.timeout(WAIT_S):
            while (await agent.tried("list_agents")).is_error:
                await asyncio.sleep(0.01)
        sent = await agent.call("send_direct_message", recipientGuid=me["guid"], message="still there?")
    assert [one["id"] for one in letter.result()["messages"]] == [sent["messageId"]]
    assert ended.result()["is_complete"] is False


async def test_tools_are_listed_and_a_node_is_started_when_none_runs(nodes: Nodes):
    node = nodes.node()
    async with stdio_agent(node, "--no-start") as agent:
        assert "check_work" in await agent.tools()
        assert "knotwork up" in await agent.refused("list_agents")
    async with stdio_agent(node) as agent:
        assert (await agent.call("list_agents"))["success"] is True
    pid = node.about["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: pid not in marked(node.mark))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_cancelled_call_is_cancelled_on_the_node(node: Node, mode: str, door: Any):
    async with door(node, mode=mode, name="cancels") as agent:
        given = await agent.call("assign_work", task="never", capability="never-done")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(agent.tried("await_work", work_id=given["work_id"], timeout_secs=3000))
            await agent.call("list_agents")
            waiting.cancel()
        assert waiting.cancelled()
        assert (await agent.call("check_work", work_id=given["work_id"]))["status"] == "pending"


def test_whatever_comes_in_is_answered_and_ends_nothing(node: Node):
    """Only protocol on standard output, one answer for each request, whatever the line."""
    lines: list[bytes] = [
        b"not json", b"[]", b"1", b'"x"', b"null", b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":true,"method":"ping"}', b'{"jsonrpc":"2.0","id":2,"method":"nope"}',
        b'{"jsonrpc":"2.0","id":3,"method":"tools/call"}', b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":[]}',
        b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"list_agents","arguments":7}}',
        b'{"jsonrpc":"2.0","id":6,"method":"initialize","params":{}}', b"[" * 100_000, b"\xff\xfe{}", b"\x00",
        b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"cursor":"x"}}',
        b'{"jsonrpc":"2.0","id":"' + b"x" * 300 + b'","method":"ping"}',
        b'{"jsonrpc":"2.0","id":8,"method":"prompts/get","params":{"name":["join"]}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"1999-01-01","io.modelcontextprotocol/clientCapabilities":{}}}}',
        b'{"jsonrpc":"2.0","id":10,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}',
        b'{"jsonrpc":"2.0","id":11,"method":"ping","params":{"x":"' + b"y" * (9 * 1024 * 1024) + b'"}}',
    ]  # fmt: skip
    after = b'{"jsonrpc":"2.0","id":"last","method":"ping"}'
    given = parameters(node)
    process = subprocess.Popen(
        [given.command, *given.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=node.folder, env=node.env,
    )  # fmt: skip
    out, _ = process.communicate(b"\n".join([*lines, b"", after]) + b"\n", timeout=WAIT_S)
    answers = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    assert answers[-1]["id"] == "last" or any(answer["id"] == "last" and "result" in answer for answer in answers)
    refused = [answer for answer in answers if "error" in answer]
    assert len(refused) == len(lines)
    assert not [answer for answer in refused if answer["error"]["code"] == -32603]


def test_how_long_a_bridge_takes_and_how_much(node: Node, figure: Any):
    """Measured, not asserted: other programs run on this machine, too."""
    given = parameters(node)
    began_s = time.perf_counter()
    with subprocess.Popen(
        [given.command, *given.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=node.folder, env=node.env,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(number: int, method: str, params: dict[str, Any]) -> Any:
            line = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        told = ask(
            0,
            "initialize",
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
        )
        figure("ready_ms", round((time.perf_counter() - began_s) * 1000, 1))
        assert told["result"]["protocolVersion"] == "2025-11-25"
        for number in range(1, 101):
            one_s = time.perf_counter()
            assert ask(number, "tools/call", {"name": "list_agents"})["result"]["isError"] is False
        figure("call_ms", round((time.perf_counter() - one_s) * 1000, 2))
        status = Path(f"/proc/{process.pid}/status").read_text()
        figure("rss_mb", round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1))
        process.stdin.close()
    assert process.returncode == 0
