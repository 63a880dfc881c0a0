"""Agents that come in over MCP: the SDK's own client, over standard input and output of a bridge, or over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Implementation, ToolListChangedNotification
from tests.e2e.conftest import WAIT_S, Node

from knotwork.mcp import resources

LEGACY, MODERN = "legacy", "2026-07-28"
MODES = (LEGACY, MODERN)


def parameters(node: Node, *words: str, cwd: Path | None = None, **env: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=["-m", "knotwork", "mcp", *words], env={**node.env, **env}, cwd=cwd or node.folder
    )


class Agent:
    """One client, and what a test asks of it."""

    def __init__(self, client: Client, changed: asyncio.Event | None = None) -> None:
        self.client = client
        self.changed = changed or asyncio.Event()

    async def tried(self, name: str, **arguments: Any) -> CallToolResult:
        """Call a tool, whatever comes of it."""
        return await self.client.call_tool(name, arguments, read_timeout_seconds=WAIT_S)

    async def call(self, name: str, **arguments: Any) -> Any:
        """Call a tool that has to succeed."""
        result = await self.tried(name, **arguments)
        assert not result.is_error, text_of(result)
        return result.structured_content

    async def refused(self, name: str, **arguments: Any) -> str:
        """Return what is said of a call that has to be refused."""
        result = await self.tried(name, **arguments)
        assert result.is_error, result.structured_content
        return text_of(result)

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools(cache_mode="bypass")).tools]


def work_uri(work_id: str) -> str:
    """Return the address of a piece of work."""
    return resources.TEMPLATES[0]["uriTemplate"].replace("{work_id}", work_id)


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


@contextlib.asynccontextmanager
async def stdio_agent(
    node: Node, *words: str, mode: str = MODERN, name: str = "tester", cwd: Path | None = None, **env: str
) -> AsyncIterator[Agent]:
    client = Client(
        parameters(node, *words, cwd=cwd, **env), mode=mode, read_timeout_seconds=WAIT_S,
        client_info=Implementation(name=name, version="1"),
    )  # fmt: skip
    async with client:
        yield Agent(client)


@contextlib.asynccontextmanager
async def http_agent(
    node: Node, *, mode: str = MODERN, name: str = "tester", query: str = "", parent: str = ""
) -> AsyncIterator[Agent]:
    headers = {"authorization": f"Bearer {node.token}"} | ({"knotwork-parent": parent} if parent else {})
    async with httpx.AsyncClient(headers=headers, timeout=WAIT_S) as http:
        transport = streamable_http_client(f"{node.about['http']}/mcp{query}", http_client=http)
        changed = asyncio.Event()

        async def hear(message: Any) -> None:
            if isinstance(message, ToolListChangedNotification):
                changed.set()

        client = Client(
            transport, mode=mode, read_timeout_seconds=WAIT_S, client_info=Implementation(name=name, version="1"),
            message_handler=hear,
        )  # fmt: skip
        async with client:
            yield Agent(client, changed)
