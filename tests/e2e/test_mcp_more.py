"""The tools at a shell, the Tasks extension, what is pushed, and clients that say goodbye."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.agents_mcp import LEGACY, MODERN, http_agent, parameters, stdio_agent
from tests.e2e.conftest import WAIT_S, Node, Nodes, until
from tests.e2e.test_mcp_fuzz import Raw

META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "tasks", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def node(shared_nodes: Nodes) -> Iterator[Node]:
    yield shared_nodes.node().up()


def over_http(node: Node, method: str, params: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """Ask `/mcp` as a client without a handshake does."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}
    headers = {
        "authorization": f"Bearer {node.token}", "content_type": "application/json", "mcp_method": method,
        "accept": "application/json, text/event-stream", "mcp_protocol_version": MODERN,
    }  # fmt: skip
    named = {"mcp_name": params["name"]} if "name" in params else {}
    answer = node.http("POST", "/mcp", json.dumps(body).encode(), **headers, **named)
    text = answer.body.decode()
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
    found: dict[str, Any] = json.loads(text)
    return found


def test_tools_are_listed_and_called_at_a_shell(node: Node):
    listed = node.json("tool", "list", "--toolset", "core")["tools"]
    assert len(listed) == 12
    assert node.refused("tool", "list", "--toolset", "nope")[1]["code"] == "tool.no_toolset"
    given = node.json("tool", "call", "assign_work", '{"task": "at a shell", "capability": "shell"}')
    assert given["structured"]["success"] is True
    claimed = node.json("tool", "call", "claim_work", '{"capability": "shell"}')["structured"]
    code, out, _ = node.run("tool", "call", "complete_work", json.dumps({"work_id": claimed["work_id"], "result": 1}))
    assert (code, "status: completed" in out) == (0, True)
    assert node.refused("tool", "call", "nope")[1]["code"] == "tool.unknown"
    for words in ((), ("-o", "json")):  # a script asks by the exit code, whatever it prints
        code, out, _ = node.run("tool", "call", "check_work", '{"id": 1}', *words)
        assert (code, "work_id: it is needed" in out) == (1, True)


@pytest.mark.parametrize("door", ["stdio", "http"])
def test_waiting_becomes_a_task_for_a_client_that_knows_them(node: Node, door: str):
    bridge = Raw(node)
    plain = {**META, "io.modelcontextprotocol/clientCapabilities": {}}

    def ask(method: str, params: dict[str, Any], meta: dict[str, Any] = META) -> dict[str, Any]:
        if door == "http":
            return over_http(node, method, params, meta)
        return bridge.ask(method, params | {"_meta": meta})

    def call(tool: str, meta: dict[str, Any] = META, **given: Any) -> dict[str, Any]:
        answer: dict[str, Any] = ask("tools/call", {"name": tool, "arguments": given}, meta)["result"]
        return answer

    able = ask("server/discover", {})["result"]["capabilities"]
    assert "io.modelcontextprotocol/tasks" in able["extensions"]
    work = call("assign_work", task="slow", capability=f"tasks-{door}")["structuredContent"]["work_id"]
    made = call("await_work", work_id=work, timeout_secs=600)
    assert (made["resultType"], made["taskId"], made["status"]) == ("task", work, "working")
    unknowing = call("await_work", plain, work_id=work, timeout_secs=0)
    assert (unknowing["resultType"], unknowing["structuredContent"]["is_complete"]) == ("complete", False)
    found = ask("tasks/get", {"taskId": work})["result"]
    assert (found["resultType"], found["status"]) == ("complete", "working")
    assert found["createdAt"] == found["lastUpdatedAt"] == made["createdAt"]  # it was made once
    assert ask("tasks/update", {"taskId": work, "inputResponses": {}})["result"]["resultType"] == "complete"
    call("claim_work", capability=f"tasks-{door}", timeout=20000)
    call("complete_work", work_id=work, result="done")
    found = ask("tasks/get", {"taskId": work})["result"]
    assert (found["status"], found["result"]["structuredContent"]["result"]) == ("completed", "done")
    assert found["createdAt"] == made["createdAt"] < found["lastUpdatedAt"]
    other = call("assign_work", task="never", capability=f"never-{door}")["structuredContent"]["work_id"]
    assert "error" not in ask("tasks/cancel", {"taskId": other})
    assert ask("tasks/get", {"taskId": other})["result"]["status"] == "cancelled"
    assert ask("tasks/get", {"taskId": "t0000000000000000"})["error"]["code"] == -32602
    bridge.close()


async def test_what_arrives_is_pushed_to_a_client_that_takes_it(node: Node):
    given = parameters(node, "--push", "--session", "pushed")
    process = subprocess.Popen(
        [given.command, *given.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=node.folder, env=node.env,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    said: list[Any] = []
    out = process.stdout
    reader = threading.Thread(target=lambda: said.extend(json.loads(line) for line in out), daemon=True)
    reader.start()

    def say(number: int, method: str, **params: Any) -> Any:
        line = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        process.stdin.write(line.encode() + b"\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return until(lambda: [one for one in list(said) if one.get("id") == number])[0]["result"]

    hello = say(
        1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "x", "version": "1"}
    )
    assert "claude/channel" in hello["capabilities"]["experimental"]
    me = say(2, "tools/call", name="get_my_handle", arguments={})["structuredContent"]
    async with stdio_agent(node, mode=LEGACY, name="pusher") as other:
        await other.call("send_direct_message", recipientGuid=me["guid"], message="wake up")
    told = until(lambda: [one for one in list(said) if one.get("method") == "notifications/claude/channel"])
    assert told[0]["params"]["meta"]["event"]
    process.stdin.close()
    assert process.wait(WAIT_S) == 0
    reader.join(WAIT_S)
    process.stdout.close()


async def test_a_client_over_http_that_says_goodbye_hands_back_its_work(node: Node):
    async with stdio_agent(node, name="stays") as stays:
        given = await stays.call("assign_work", task="left behind", capability="goodbye")
        async with http_agent(node, mode=LEGACY, name="leaves") as leaves:
            assert (await leaves.call("claim_work", capability="goodbye", timeout=20000))["work_id"] == given["work_id"]
        taken: dict[str, Any] = {}
        while not taken.get("claimed"):
            taken = await stays.call("claim_work", capability="goodbye", timeout=30000)
        assert taken["work_id"] == given["work_id"]


async def test_of_several_that_wait_in_one_session_each_waits_for_a_message_of_its_own(node: Node):
    async with stdio_agent(node, name="waits") as waits, stdio_agent(node, name="sends") as sends:
        me = (await waits.call("get_my_handle"))["guid"]
        said: set[str] = set()

        async def wait() -> None:
            (one,) = (await waits.call("wait_for_message", timeout_secs=WAIT_S, limit=1))["messages"]
            said.add(one["text"])

        async with asyncio.TaskGroup() as group:
            waiting = {group.create_task(wait()) for _ in range(3)}
            for number in range(3):
                await sends.call("send_direct_message", recipientGuid=me, message=f"number {number}")
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert said == {"number 0", "number 1", "number 2"}


async def test_who_offered_work_over_http_is_written_to_by_the_name_that_is_told(node: Node):
    async with http_agent(node, name="Some Client", query="?session=offers") as offers, stdio_agent(node) as takes:
        me = (await offers.call("get_my_handle"))["guid"]
        await offers.call("assign_work", task="ask me", capability="asking")
        work = await takes.call("claim_work", capability="asking", timeout=20000)
        await takes.call("send_direct_message", recipientGuid=work["offered_by"], message="what do you mean?")
        (got,) = (await offers.call("wait_for_message", timeout_secs=WAIT_S))["messages"]
        assert (got["text"], got["senderGuid"] != me) == ("what do you mean?", True)
        await takes.call("complete_work", work_id=work["work_id"])


async def test_an_answer_is_for_those_who_may_read_what_it_answers(node: Node):
    async with stdio_agent(node, name="asks") as asks, stdio_agent(node, name="reads") as reads:
        said = [
            await asks.call("send_message", channel="errors", message=scope, scope=scope)
            for scope in ("private", "team")
        ]
        for one in said:
            await asks.call("send_message", channel="errors", message=f"to {one['id']}", replyTo=one["id"])
        await asks.call("send_message", channel="errors", message="to all", replyTo=said[0]["id"], scope="team")
        told = [one["text"] for one in (await reads.call("read_messages", channel="errors"))["messages"]]
        assert told[-3:] == ["team", f"to {said[1]['id']}", "to all"]


async def test_who_holds_as_much_as_he_may_is_told_so(node: Node):
    async with stdio_agent(node, name="holds") as holds:
        await holds.call("register_agent", agentType="holder", capabilities=["full"])
        for number in range(17):
            await holds.call("assign_work", task=f"piece {number}", capability="full")
        for _ in range(16):
            assert (await holds.call("claim_work", capability="full", timeout=30000))["claimed"]
        none = await holds.call("claim_work", capability="full", timeout=100)
        assert (none["claimed"], none["why"][:17]) == (False, "You hold 16 tasks")
        assert await holds.call("claim_work", capability="nothing-waits", timeout=100) == none
    async with stdio_agent(node, name="holds none") as other:
        assert await other.call("claim_work", capability="nothing-waits", timeout=100) == {"claimed": False}


async def test_what_fits_is_found_behind_pages_of_what_does_not(node: Node):
    async with (
        stdio_agent(node, "--session", "a", name="a") as first,
        stdio_agent(node, "--session", "z", name="z") as last,
    ):
        for agent, handle in ((first, "aa-first"), (last, "zz-last")):
            await agent.call("set_handle", handle=handle)
            await agent.call("register_agent", agentType=handle, capabilities=["pages"])
        found = await first.call("list_agents", filter="ZZ-l", limit=1)
        assert [one["name"] for one in found["agents"]] == ["zz-last"]
        assert "next" not in found
        assert (await first.call("list_agents", include_local=False, limit=1))["agents"] == []
        page = await first.call("list_agents", filter="-", limit=1)
        rest = await first.call("list_agents", filter="-", limit=1, cursor=page["next"])
        assert page["agents"][0]["name"] < rest["agents"][0]["name"]
        for number, priority in enumerate((9, 1, 1, 1)):
            await first.call(
                "broadcast_work_offer",
                taskId=f"w{number}",
                description="d",
                requiredCapability="paged",
                priority=priority,
            )
        urgent = await first.call("list_work", capability="paged", minPriority=8, limit=1)
        assert [one["taskId"] for one in urgent["work"]] == ["w0"]


async def test_a_bridge_may_be_given_an_address_instead_of_a_folder(node: Node, tmp_path: Path):
    about = node.about
    elsewhere = {"KNOTWORK_DATA_DIR": str(tmp_path / "none")}
    words = ("--url", about["url"], "--creds", about["seed_file"])
    async with stdio_agent(node, *words, name="remote", **elsewhere) as agent:
        given = await agent.call("assign_work", task="from afar", capability="afar")
        assert (await agent.call("claim_work", capability="afar", timeout=20000))["work_id"] == given["work_id"]
        await agent.call("complete_work", work_id=given["work_id"])


async def test_a_sub_agent_shows_the_key_of_its_parent(node: Node):
    async with stdio_agent(node, "--toolset", "talk", name="parent") as parent:
        me = await parent.call("get_my_handle")
        family = {"KNOTWORK_PARENT": me["parentKey"], "KNOTWORK_AGENT_TYPE": "scout"}
        async with stdio_agent(node, "--toolset", "talk", name="child", **family) as child:
            own = await child.call("register_agent", agentType="scout", capabilities=["scouting"])
            (row,) = [one for one in node.ask("session.list")["agents"] if one["id"] == own["guid"]]
            assert (row["parent"], row["type"]) == (me["guid"], "scout")
            assert (await parent.call("get_agent_info", guid=own["handle"]))["guid"] == own["guid"]
            assert "parentKey" not in await child.call("get_agent_info", guid=me["guid"])
        async with stdio_agent(node, KNOTWORK_PARENT=me["guid"]) as stranger:  # it would read what is private
            assert "session.bad_parent" in await stranger.refused("list_agents")
            assert await stranger.tools()


async def test_long_work_is_read_in_parts(node: Node):
    async def whole(agent: Any, work_id: str, part: str, begun: str, cut: int) -> str:
        while cut:
            more = await agent.call("read_work", work_id=work_id, part=part, offset=cut)
            begun, cut = begun + more["text"], more.get("cut", 0)
        return begun

    text, value = "".join(f"{n:07d} " for n in range(7000)), [{"n": n, "text": "é" * 20} for n in range(2000)]
    async with stdio_agent(node, "--toolset", "work", name="long-work") as agent:
        given = await agent.call("assign_work", task=text, capability="long-work")
        work = given["work_id"]
        claimed = await agent.call("claim_work", capability="long-work", timeout=20000)
        assert await whole(agent, work, "input", claimed["description"], claimed["cut"]) == text
        await agent.call("complete_work", work_id=work, result=value)
        found = await agent.call("check_work", work_id=work)
        assert json.loads(await whole(agent, work, "result", found["result"], found["cut"])) == value
        short = await agent.call("assign_work", task="short", capability="long-work")
        assert (await agent.call("read_work", work_id=short["work_id"], part="input"))["text"] == "short"


async def test_a_channel_is_made_changed_and_closed_by_whoever_made_it(node: Node):
    async with stdio_agent(node, "--toolset", "talk", name="maker") as maker, stdio_agent(node, name="other") as other:
        assert {"create_channel", "configure_channel", "archive_channel"} <= set(await maker.tools())
        made = await maker.call("create_channel", channel="releases", description="what went out", maxAgeSecs=3600)
        assert (made["description"], made["maxMessages"], made["maxAgeSecs"]) == ("what went out", 10000, 3600)
        assert "channel.exists" in await other.refused("create_channel", channel="releases")
        said = await maker.refused("configure_channel", channel="releases")
        assert "say what to change: description" in said
        wrong = await maker.refused("create_channel", channel="No Name", maxBytes=5, maxMessages=0)
        assert all(word in wrong for word in ("channel:", "maxBytes:", "maxMessages:"))
        changed = await maker.call("configure_channel", channel="releases", maxMessages=100)
        assert (changed["maxMessages"], changed["maxAgeSecs"], changed["description"]) == (100, 3600, "what went out")
        refused = await other.refused("archive_channel", channel="releases")
        assert "made it" in refused
        await other.call("send_message", channel="releases", message="1.0 is out")
        assert (await maker.call("archive_channel", channel="releases"))["archived"] is True
        assert "archive" in await other.refused("send_message", channel="releases", message="1.1 is out")
        (read,) = (await other.call("read_messages", channel="releases"))["messages"]
        assert "1.0 is out" in read["text"]
        (shown,) = (await other.call("channels_status", channel="releases"))["channels"]
        assert (shown["archived"], shown["maxMessages"]) == (True, 100)
        assert "archived" not in await maker.call("archive_channel", channel="releases", undo=True)
        await other.call("send_message", channel="releases", message="1.1 is out")


async def test_what_a_memory_was_is_shown_in_pages_and_brought_back(node: Node):
    async with stdio_agent(node, name="rememberer") as agent:
        long = "x" * 15_000
        kept = (await agent.call("remember", content=long, category="recent"))["memoryId"]
        await agent.call("commit_insight", memoryId=kept, newContent="second")
        await agent.call("revert_memory", memoryId=kept, version=1)
        found = await agent.call("memory_history", memoryId=kept)
        assert [one["version"] for one in found["versions"]] == [2, 1]
        assert (found["version"], found["forgotten"], found["versions"][0]["content"]) == (3, False, "second")
        assert (found["versions"][1]["content"], found["versions"][1]["cut"]) == ("x" * 1000, 1000)
        page = await agent.call("memory_history", memoryId=kept, limit=1)
        rest = await agent.call("memory_history", memoryId=kept, limit=1, cursor=page["next"])
        assert ([one["version"] for one in rest["versions"]], "next" in rest) == ([1], False)
        (first,) = (await agent.call("memory_history", memoryId=kept, version=1))["versions"]
        (more,) = (await agent.call("memory_history", memoryId=kept, version=1, offset=first["cut"]))["versions"]
        assert first["content"] + more["content"] == long
        assert "read_memory reads it" in await agent.refused("memory_history", memoryId=kept, version=3)
        assert "There are: 2, 1" in await agent.refused("memory_history", memoryId=kept, version=77)
        assert "offset goes with version" in await agent.refused("memory_history", memoryId=kept, offset=3)
        gone = await agent.call("forget", memoryId=kept)
        assert gone["until"]
        assert (await agent.call("memory_history", memoryId=kept))["forgotten"] is True
        assert (await agent.call("revert_memory", memoryId=kept))["content"] == "x" * 10_000
        async with stdio_agent(node, "--session", "stranger", name="stranger") as stranger:
            for tool in ("memory_history", "revert_memory"):
                assert "memory.not_found" in await stranger.refused(tool, memoryId=kept)


async def test_an_orchestration_is_steered_by_tools(node: Node):
    plan = [{"id": "db", "capability": "steer-db"}, {"id": "api", "capability": "steer-api", "needs": ["db"]}]
    async with stdio_agent(node, "--toolset", "crew", name="lead") as lead, stdio_agent(node, name="sub") as sub:
        begun = (await lead.call("assess_task", task="Make a schema, then an API"))["orchestrationId"]
        few = await lead.refused("spawn_subagents", orchestrationId=begun, plan=plan, children=1)
        assert "crew.too_many_children" in few
        spawned = await lead.call("spawn_subagents", orchestrationId=begun, plan=plan, children=2, depth=0)
        assert (spawned["budget"]["children"], spawned["budget"]["depth"]) == (2, 0)
        assert (await lead.call("pause_orchestration", orchestrationId=begun))["held"] == "asked"
        (row,) = (await lead.call("list_orchestrations"))["orchestrations"]
        assert (row["orchestrationId"], row["held"]) == (begun, "asked")
        shown = await lead.call("resume_orchestration", orchestrationId=begun)
        assert "held" not in shown
        claimed: dict[str, Any] = {}
        while not claimed.get("claimed"):
            claimed = await sub.call("claim_work", capability="steer-db", timeout=20000)
        assert "cancel_orchestration" in await lead.refused("retry_part", orchestrationId=begun, part="db")
        await sub.call("fail_work", work_id=claimed["work_id"], error="no disk")
        while (await lead.call("get_orchestration_state", orchestrationId=begun))["phase"] != "failed":
            await asyncio.sleep(0.05)
        assert "part:" in await lead.refused("retry_part", orchestrationId=begun)
        again = await lead.call("retry_part", orchestrationId=begun, part="db")
        assert {one["id"]: one["state"] for one in again["parts"]}["db"] in ("queued", "waiting")
        claimed = {}
        while not claimed.get("claimed"):
            claimed = await sub.call("claim_work", capability="steer-db", timeout=20000)
        stopped = await lead.call("cancel_orchestration", orchestrationId=begun, reason="enough")
        assert stopped["why"] == "enough"
        while (await lead.call("get_orchestration_state", orchestrationId=begun))["phase"] != "cancelled":
            await asyncio.sleep(0.05)
        assert "crew." in await lead.refused("retry_part", orchestrationId=begun, part="none")


async def test_planned_runs_are_listed_with_the_others(node: Node):
    definition = "name: planned\nsteps:\n  rest: {kind: sleep, duration: 1h}\n"
    node.write(definition, "planned.yaml")
    node.json("workflow", "register", f"@{node.folder / 'planned.yaml'}")
    later = node.ask("run.start", workflow="planned", at="2190-01-01T00:00:00Z")["id"]
    async with stdio_agent(node, "--toolset", "flow", name="flows") as agent:
        now = (await agent.call("start_workflow", workflow="planned"))["run_id"]
        page = await agent.call("list_runs", workflow="planned", limit=1)
        rest = await agent.call("list_runs", workflow="planned", limit=1, cursor=page["next"])
        assert [page["runs"][0]["run_id"], rest["runs"][0]["run_id"]] == [later, now]
        (row,) = (await agent.call("list_runs", status=["scheduled"]))["runs"]
        assert (row["run_id"], row["status"], row["started_at"][:4], row["steps"]) == (later, "scheduled", "2190", 1)
        assert (await agent.call("get_run", run_id=later))["waits"][0]["until"][:4] == "2190"
        assert "flow.scheduled" in await agent.refused("signal_run", run_id=later, signal="go")
    assert later in node.run("run", "list", "-s", "scheduled")[1]
    listed = node.http("GET", "/api/run/list?state=scheduled", Authorization=f"Bearer {node.token}").json["runs"]
    assert [one["id"] for one in listed] == [later]
    assert node.json("run", "cancel", now, later)["done"] == 2
