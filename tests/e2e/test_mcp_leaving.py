"""Clients over `/mcp` that hang up, or come in twice under one label, against a real node."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.e2e.agents_mcp import LEGACY, http_agent, stdio_agent
from tests.e2e.conftest import WAIT_S, Node, Nodes


@pytest.fixture(scope="module")
def node(shared_nodes: Nodes) -> Iterator[Node]:
    yield shared_nodes.node().up()


async def says_hello(http: httpx.AsyncClient, address: str, name: str) -> None:
    """Begin with a handshake."""
    http.headers["accept"] = "application/json, text/event-stream"
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": name, "version": "1"}}
    answer = await http.post(address, json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
    http.headers["mcp-session-id"] = answer.headers["mcp-session-id"]


async def test_what_a_client_would_get_that_hung_up_is_kept_for_others(node: Node):
    headers = {"authorization": f"Bearer {node.token}"}
    address, number = f"{node.about['http']}/mcp", itertools.count(1)

    def asked(method: str, **params: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(number), "method": method, "params": params}

    async with (
        stdio_agent(node, name="gives") as gives,
        httpx.AsyncClient(headers=headers, timeout=WAIT_S) as http,
    ):
        await says_hello(http, address, "hangs-up")

        async def call(name: str, **arguments: Any) -> Any:
            said = (await http.post(address, json=asked("tools/call", name=name, arguments=arguments))).text
            (data,) = (line for line in said.splitlines() if line.startswith("data: {"))
            return json.loads(data.removeprefix("data: "))["result"]["structuredContent"]

        me = (await call("get_my_handle"))["guid"]
        for name, arguments in (
            ("wait_for_message", {"timeout_secs": WAIT_S}),
            ("claim_work", {"capability": "cut", "timeout": 30000}),
        ):
            async with http.stream("POST", address, json=asked("tools/call", name=name, arguments=arguments)) as answer:
                assert answer.status_code == 200  # it has begun, and is left alone now
        await call("get_my_handle")
        await gives.call("send_direct_message", recipientGuid=me, message="for whoever is there")
        given = await gives.call("assign_work", task="left alone", capability="cut")
        (one,) = (await call("wait_for_message", timeout_secs=WAIT_S))["messages"]
        assert one["text"] == "for whoever is there"
        assert (await call("claim_work", capability="cut", timeout=30000))["work_id"] == given["work_id"]


async def test_clients_that_give_one_label_are_one_agent_which_keeps_what_it_claimed(node: Node):
    async with http_agent(node, mode=LEGACY, name="One Label", query="?session=same") as first:
        given = await first.call("assign_work", task="kept", capability="one-label")
        claimed = await first.call("claim_work", capability="one-label", timeout=30000)
        async with http_agent(node, mode=LEGACY, name="one-label", query="?session=same") as second:
            me = await second.call("get_my_handle")
            assert me["guid"] == (await first.call("get_my_handle"))["guid"]
            opened = [await one.call("get_agent_info", guid=me["guid"]) for one in (first, second, first)]
            assert len({one["lastSeen"] for one in opened}) == 1  # neither took the session from the other
            assert (await first.call("get_my_handle"))["guid"] == me["guid"]
        assert (await first.call("extend_work", work_id=claimed["work_id"]))["work_id"] == given["work_id"]


async def test_each_client_of_one_label_is_told_what_is_listed_for_what_it_claimed(node: Node):
    query = "?session=listing&toolset=classic"
    async with (
        http_agent(node, mode=LEGACY, query=query) as first,
        http_agent(node, mode=LEGACY, query=query) as second,
    ):
        for agent in (first, second):
            assert "complete_work" not in await agent.tools()
        for agent in (first, second):
            await agent.call("broadcast_work_offer", taskId="t", description="list", requiredCapability="listing")
            assert (await agent.call("claim_work", capability="listing", timeout=30000))["claimed"]
            async with asyncio.timeout(WAIT_S):
                await agent.changed.wait()


async def test_a_goodbye_needs_no_name_of_a_project(node: Node):
    headers = {"authorization": f"Bearer {node.token}"}
    async with stdio_agent(node, name="stays") as stays, httpx.AsyncClient(headers=headers, timeout=WAIT_S) as http:
        given = await stays.call("assign_work", task="left behind", capability="nameless")
        address = f"{node.about['http']}/mcp"
        await says_hello(http, address, "nameless")
        claim = {"name": "claim_work", "arguments": {"capability": "nameless", "timeout": 30000}}
        taken = await http.post(address, json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": claim})
        assert given["work_id"] in taken.text
        assert (await http.delete(address, headers={"knotwork-project": "Not One!"})).status_code == 200
        again: dict[str, Any] = {}
        while not again.get("claimed"):
            again = await stays.call("claim_work", capability="nameless", timeout=30000)
        assert again["work_id"] == given["work_id"]


async def test_who_only_looks_round_is_no_agent_and_takes_no_place(node: Node):
    for _ in range(3):
        client = httpx.AsyncClient(headers={"authorization": f"Bearer {node.token}"}, timeout=WAIT_S)
        async with client as http:
            await says_hello(http, f"{node.about['http']}/mcp", "looker")
            listed = await http.post(
                f"{node.about['http']}/mcp", json={"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
            )
            assert (listed.status_code, "send_message" in listed.text) == (200, True)
    async with http_agent(node, mode=LEGACY, name="looker") as agent:
        me = await agent.call("get_my_handle")
        assert node.ask("session.get", agent=me["guid"])["label"] == "1"
