"""How does a tool of an MCP server become an agent?

The server is a command spoken to over stdio, or a Streamable HTTP url. One connection is held for all calls; when the
server dies it is started again with growing pauses. The input becomes the tool's arguments, its progress the
attempt's progress, its structured content (else its text) the output.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from knotwork.sdk import Attempt, Context, Done, Factory, Failed, Outcome, Unavailable
from knotwork_plugins.executors import trouble
from knotwork_plugins.executors.agent_cli.heard import plain
from knotwork_plugins.executors.mcp_tool.config import McpConfig
from knotwork_plugins.executors.prompting import clean

if TYPE_CHECKING:
    from mcp import Client
    from mcp.shared.exceptions import MCPError
    from mcp.types import CallToolResult

    from knotwork_plugins.executors.mcp_tool.link import Link

_LONGEST_CALL_S = 86_400.0


class McpTool:
    """The executor: one `tools/call` per attempt."""

    def __init__(self, config: McpConfig, link: Link) -> None:
        """Keep the parts."""
        self.config = config
        self.link = link

    async def probe(self) -> None:
        """Return when the server answers; raises `Unavailable` else."""
        await self.link.client(self.config.connect_timeout_s)

    async def execute(self, attempt: Attempt) -> Outcome:
        """Call the tool once."""
        from mcp.shared.exceptions import MCPError

        arguments = self._arguments(attempt.input)
        if isinstance(arguments, Failed):
            return arguments

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            percent = min(max(100 * progress / total, 0.0), 100.0) if total and total > 0 else None
            attempt.report.progress(percent, clean(message or "")[:200])

        try:
            client = await self.link.client(self.config.connect_timeout_s)
        except Unavailable as gone:
            return Failed(str(gone), code=gone.code, retriable=True)
        try:
            result = await client.call_tool(
                self.config.tool,
                arguments,
                read_timeout_seconds=attempt.deadline_s or _LONGEST_CALL_S,
                progress_callback=on_progress,
            )
        except MCPError as error:
            return self._refused(error, client)
        except RuntimeError as error:
            # What the SDK raises when the structured content breaks the tool's own output schema.
            return Failed(f"The tool broke its promise: {error}", code="agent.bad_answer")
        except ValidationError as error:
            return Failed(f"What the server answered is no result of a tool: {_first(error)}.", code="agent.bad_answer")
        return outcome_of(result)

    def _arguments(self, given: Any) -> dict[str, Any] | Failed:
        if isinstance(given, dict):
            return {**given, **self.config.arguments}
        if given is None:
            return dict(self.config.arguments)
        name = self.config.argument or self.link.only_argument(self.config.arguments)
        if not name:
            return Failed(
                f"The tool {self.config.tool!r} takes several arguments. Send an object, or set `argument`.",
                code="request.invalid",
            )
        return {name: given, **self.config.arguments}

    def _refused(self, error: MCPError, client: Client) -> Outcome:
        if self.link.is_lost(error):
            self.link.lose(client)
            return Failed(
                f"The MCP server went away during the call: {error.message}", code="agent.crashed", retriable=True
            )
        if error.code == self.link.timed_out_code:
            return Failed(f"The tool took too long: {error.message}", code="agent.silent", retriable=True)
        found = trouble.sort(clean(str(error.message)))
        return found.failed(mcp_code=error.code)


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return clean(f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}")[:300]


def outcome_of(result: CallToolResult) -> Outcome:
    """Return what a tool's result means: structured content first, else its text, else its blocks."""
    blocks = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]
    texts = [clean(block["text"]) for block in blocks if block.get("type") == "text"]
    if result.is_error:
        message = "\n".join(texts) or "the tool reports an error without a word"
        detail = {"structured": plain(result.structured_content)} if result.structured_content is not None else {}
        return trouble.sort(message).failed(**detail)
    if result.structured_content is not None:
        structured = plain(result.structured_content)
        if structured is None:
            return Failed("The tool's answer holds what is no JSON, such as NaN.", code="agent.bad_answer")
        return Done(structured)
    if len(texts) == len(blocks):
        return Done("\n".join(texts))
    return Done(plain(blocks))


def _look(config: McpConfig, context: Context) -> None:
    """Raise `Unavailable` when the command or its folder is not there. Blocks."""
    folder, program = config.folder(context.base), config.program(context.base)
    if not folder.is_dir():
        raise Unavailable(
            f"The folder {folder} of agent {context.id!r} does not exist.",
            code="agent.command_missing",
            hint="Create it, or mend `cwd`.",
        )
    if shutil.which(program, path=context.child_env(dict(config.env)).get("PATH")) is None:
        raise Unavailable(
            f"The command {program!r} of agent {context.id!r} is not there, or may not be executed.",
            code="agent.command_missing",
            hint="Install it, or mend `command`: what is no name but a path is meant from `cwd`.",
        )


@asynccontextmanager
async def open_mcp(config: McpConfig, context: Context) -> AsyncIterator[McpTool]:
    """Connect to the server and hold the connection; raises `Unavailable` when it, or the tool, is not there."""
    if config.command:
        await asyncio.to_thread(_look, config, context)
    # In a thread and not at the top: importing the SDK takes half a second.
    mcp_link = await asyncio.to_thread(importlib.import_module, "knotwork_plugins.executors.mcp_tool.link")
    link: Link = mcp_link.Link(config, context)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(link.keep())
        try:
            await link.client(config.connect_timeout_s, first=True)
            yield McpTool(config, link)
        except Exception as error:  # noqa: BLE001 - raised again below: a group would wrap it
            failure = error
        finally:
            # Asked to leave, not cancelled: stopping a stdio server politely takes awaits of its own.
            link.leave()
            await asyncio.wait({keeper}, timeout=mcp_link.LEAVE_S)
            keeper.cancel()
    if failure is not None:
        raise failure


FACTORY = Factory(
    name="mcp",
    config=McpConfig,
    open=open_mcp,
    summary="A tool of any MCP server, by command (stdio) or url (Streamable HTTP).",
    abilities=("progress", "cancels"),
)
