"""Agents over `/mcp`, by the SDK's own client in both revisions, against a real node."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from mcp.shared.exceptions import MCPError
from tests.e2e.agents_mcp import LEGACY, MODERN, MODES, http_agent, stdio_agent, work_uri
from tests.e2e.conftest import WAIT_S, Node, Nodes, until
from tests.e2e.test_sessions import Agent as InOpenSession


@pytest.fixture(scope="module")
def node(shared_nodes: Nodes) -> Iterator[Node]:
    yield shared_nodes.node().up()


@pytest.mark.parametrize("mode", MODES)
async def test_the_tools_are_those_of_the_bridge(node: Node, mode: str):
    async with (
        http_agent(node, mode=mode, query="?toolset=all") as here,
        stdio_agent(node, "--toolset", "all") as there,
    ):
        mine, theirs = await here.client.list_tools(), await there.client.list_tools()
        assert [tool.model_dump() for tool in mine.tools] == [tool.model_dump() for tool in theirs.tools]
        if mode == MODERN:
            able = (await here.client.session.send_discover(mode))["capabilities"]
        else:
            able = here.client.server_capabilities.model_dump(by_alias=True, exclude_none=True)
        able.pop("extensions", None)
        assert able == {"tools": {"listChanged": True}, "prompts": {}, "resources": {}}
        if mode == MODERN:  # only what is told of is promised
            for one in (here, there):
                listening = one.client.listen(
                    tools_list_changed=True, prompts_list_changed=True, resource_subscriptions=["knotwork://agents"]
                )
                async with listening as sub:
                    assert sub.honored.model_dump(exclude_none=True) == {"tools_list_changed": True}
                    await one.call("toolsets", add=["work"])
        assert here.client.instructions == (there.client.instructions or here.client.instructions)
        assert [one.uri for one in (await here.client.list_resources()).resources]
        assert [one.name for one in (await here.client.list_prompts()).prompts]
        assert (await here.client.get_prompt("join")).messages
        with pytest.raises(MCPError, match="no prompt"):
            await here.client.get_prompt("leave")


@pytest.mark.parametrize("mode", MODES)
async def test_the_address_says_which_tools_are_listed_each_time(node: Node, mode: str):
    for query, count in (("?toolset=work", 21), ("?toolset=classic", 34), ("", 12)):
        async with http_agent(node, mode=mode, name=f"changes {mode}", query=query) as agent:
            assert len(await agent.tools()) == count
    async with http_agent(node, mode=mode, name=f"changes {mode}") as agent:
        await agent.call("toolsets", add=["work"])  # what it asked for itself is listed, too
        assert len(await agent.tools()) > 12


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_over_http_works_with_one_over_stdio(node: Node, mode: str):
    async with http_agent(node, mode=mode, name="Web Agent") as web, stdio_agent(node, name="shell") as shell:
        given = await shell.call("assign_work", task="from the shell", capability=f"web-{mode}")
        claimed = await web.call("claim_work", capability=f"web-{mode}", timeout=20000)
        assert (claimed["work_id"], claimed["description"]) == (given["work_id"], "from the shell")
        refused = await web.refused("complete_work", work_id=given["work_id"], result=17, error="or not")
        assert "would lose one" in refused
        assert (await web.call("complete_work", work_id=given["work_id"], result=17))["status"] == "completed"
        found = await shell.call("await_work", work_id=given["work_id"], timeout_secs=WAIT_S)
        assert found["result"] == 17
        read = await web.client.read_resource(work_uri(given["work_id"]))
        assert "completed" in read.contents[0].text


@pytest.mark.parametrize("mode", MODES)
async def test_bad_calls_are_told_and_more_tools_listed(node: Node, mode: str):
    async with http_agent(node, mode=mode, name=f"asks-{mode}") as agent:
        said = await agent.refused("assign_work", task="x", capabilty="y")
        assert "did you mean capability" in said
        for query, told in (
            ("?toolset=zzz", r"no toolset 'zzz'.*core, classic"), ("?toolset=core,work", "each is a `toolset`"),
            ("?session=A", r"no label.*lower-case letters.*session"),
        ):  # fmt: skip
            async with http_agent(node, mode=mode, query=query) as lost:
                with pytest.raises(MCPError, match=told):
                    await lost.tools()
        with pytest.raises(MCPError, match="Did you mean check_work"):
            await agent.tried("chek_work")
        assert "cancel_work" not in await agent.tools()
        await agent.call("toolsets", add="work")
        assert "cancel_work" in await agent.tools()


async def test_sessions_are_agents_of_their_own(node: Node):
    async with http_agent(node, mode=LEGACY, name="pair") as one, http_agent(node, mode=LEGACY, name="pair") as two:
        given = await one.call("assign_work", task="mine", capability="pairing")
        await one.call("claim_work", capability="pairing", timeout=20000)
        assert "do not hold" in await two.refused("complete_work", work_id=given["work_id"])
        await one.call("complete_work", work_id=given["work_id"])
        me = await two.call("get_my_handle")
        await one.call("set_handle", handle="elder")
        await two.call("set_handle", handle="pair")  # the name that the other had
        await one.call("send_direct_message", recipient_guid="pair", message="who am I")
        said = await two.call("read_direct_messages")
        assert (said["messages"][0]["sender"], me["handle"]) == ("elder", "pair-2")


async def test_a_client_without_a_handshake_is_known_by_its_label(node: Node):
    async with http_agent(node, name="label", query="?session=a") as first:
        given = await first.call("assign_work", task="mine", capability="labels")
        await first.call("claim_work", capability="labels", timeout=20000)
    async with http_agent(node, name="label", query="?session=b") as other:
        assert "do not hold" in await other.refused("complete_work", work_id=given["work_id"])
        assert "no cursor of ours" in await other.refused("list_claimed_work", cursor="!")
    async with http_agent(node, name="label", query="?session=a") as again:
        assert (await again.call("complete_work", work_id=given["work_id"]))["status"] == "completed"


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_over_http_shows_who_started_it(node: Node, mode: str):
    skill = f"nursing-{mode}"
    async with (
        stdio_agent(node, name="parent") as parent,
        http_agent(node, mode=mode, name="child", query="?session=c") as stranger,
    ):
        key = (await parent.call("get_my_handle"))["parentKey"]
        given = await parent.call(
            "broadcast_work_offer", taskId="t", description="ours", requiredCapability=skill, scope="private"
        )
        async with http_agent(node, mode=mode, name="child", query="?session=c", parent=key) as child:
            mine, other = await child.call("get_my_handle"), await stranger.call("get_my_handle")
            assert mine["guid"] != other["guid"]
            assert (await stranger.call("claim_work", capability=skill, timeout=100))["claimed"] is False
            taken = await child.call("claim_work", capability=skill, timeout=20000)
            assert taken["work_id"] == given["work_id"]
            await child.call("complete_work", work_id=given["work_id"], result=1)
        async with http_agent(node, mode=mode, name="child", query="?session=c", parent=key) as again:
            assert (await again.call("get_my_handle"))["guid"] == mine["guid"]
    async with http_agent(node, mode=mode, name="child", parent="parent") as liar:
        assert "no parent key" in await liar.refused("get_my_handle")


@pytest.mark.timeout(180)
async def test_what_was_claimed_is_known_again_after_the_node_was_killed(nodes: Nodes):
    node = nodes.node().up()
    async with http_agent(node, name="label", query="?session=a") as agent:
        for task in ("first", "second"):
            await agent.call("assign_work", task=task, capability="labels")
        held = [await agent.call("claim_work", capability="labels", timeout=20000) for _ in range(2)]
    node.signal(signal.SIGKILL)
    node.ended()
    node.up()
    async with (
        http_agent(node, name="label", query="?session=b") as other,
        http_agent(node, name="label", query="?session=a") as again,
    ):
        assert (await other.call("list_claimed_work"))["work"] == []
        assert "do not hold" in await other.refused("complete_work", work_id=held[0]["work_id"])
        assert (await again.call("complete_work", work_id=held[0]["work_id"]))["status"] == "completed"
        (left,) = (await again.call("list_claimed_work"))["work"]
        assert (left["work_id"], left["description"]) == (held[1]["work_id"], held[1]["description"])
        (whole,) = (await again.call("list_claimed_work", work_id=left["work_id"]))["work"]
        ended = await again.call("complete_work", work_id=whole["work_id"], claim=whole["claim"])
        assert (ended["status"], (await again.call("list_claimed_work"))["work"]) == ("completed", [])


@pytest.mark.parametrize("mode", MODES)
async def test_a_session_ends_with_its_project_and_begins_again_with_it(nodes: Nodes, mode: str):
    both, left = "[projects.one]\n[projects.two]\n", "[projects.two]\n"
    node = nodes.node(both).up()
    async with http_agent(node, mode=mode, query="?session=a") as here:
        me = await here.call("get_my_handle")
        held = InOpenSession(node, "one")
        try:
            for config in (left, both):
                node.write(config)
                assert node.ask("node.reload")["result"] in ("applied", "unchanged")
            until(lambda: held.told[-1].get("code") == "bus.disconnected", what="nobody told of the end")
        finally:
            held.die()
        assert (await here.call("get_my_handle"))["guid"] == me["guid"]
        assert (await here.call("send_message", channel="roadmap", message="back"))["id"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"origin": "https://evil.example"}, 403),
        ({"host": "evil.example"}, 421),
    ],
)
def test_the_guard_stands_before_it(node: Node, headers: dict[str, str], status: int):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    proof = {} if status == 401 else {"authorization": f"Bearer {node.token}"}
    sent = {"content_type": "application/json", "accept": "application/json, text/event-stream", **proof, **headers}
    assert node.http("POST", "/mcp", body, **sent).status == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"jsonrpc":"2.0","id":1}', b"\xff" * 100])
def test_nonsense_is_refused_and_harms_nobody(node: Node, body: bytes):
    sent = {
        "content_type": "application/json", "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {node.token}",
    }  # fmt: skip
    for version in ({}, {"mcp_protocol_version": MODERN}, {"mcp_protocol_version": "1999-01-01"}):
        assert 400 <= node.http("POST", "/mcp", body, **sent, **version).status < 500
    assert node.get("/readyz").status == 200
