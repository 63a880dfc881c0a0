"""What may be asked about the tools that agents use, and of them: which there are, and to call one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from knotwork.ops import replies, tool_replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Key
from knotwork.ops.words import Token

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class ListRequest(Request):
    """Which tools."""

    toolset: Token = Field(default="all", description="core, classic, talk, work, memory, flow, crew or all")


@op(
    "tool.list", ListRequest, tool_replies.ToolList, effect="read",
    cli=CliForm(("tool", "list"), rows="tools", columns=("name", "toolsets", "description")),
    summary="List the tools that agents use.",
    help="Over MCP: by `knotwork mcp`, or at /mcp. Each is a way to use ops; its rules are theirs.",
    examples=(Example("Every tool"), Example("What an agent sees first", {"toolset": "core"})),
)  # fmt: skip
async def list_tools(request: ListRequest, node: NodeControl, _: Caller) -> tool_replies.ToolList:
    """Return the tools of a set."""
    return tool_replies.ToolList(tools=list(node.tools().all(request.toolset)))


class CallRequest(Request):
    """Which tool, with what."""

    name: Name = Field(description="name of the tool")
    arguments: Any = Field(default=None, description="its arguments, a JSON object")
    key: Key = Field(
        default="", description="idempotency key: what the tool sends, submits or reads for you counts once with it"
    )


@op(
    "tool.call", CallRequest, tool_replies.ToolResult, effect="write", streams=True,
    cli=CliForm(("tool", "call"), positional=("name", "arguments"), answer="text"),
    summary="Call a tool as an agent does.",
    help="The answer has a text for models and the same as data. What is wrong with a call is part of its answer: "
    "`is_error` is true then, the text says what to do, and the exit code is 1.",
    examples=(
        Example("Who takes work?", {"name": "list_agents"}),
        Example("Give work to a capability", {"name": "assign_work", "arguments": {"task": "Say hello", "capability": "greet"}}),
    ),
)  # fmt: skip
async def call(
    request: CallRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Progress | tool_replies.ToolResult]:
    """Yield how far it is, then what it gave."""
    async with aclosing(node.tools().call(request.name, request.arguments, caller, request.key)) as pieces:
        async for piece in pieces:
            yield piece
