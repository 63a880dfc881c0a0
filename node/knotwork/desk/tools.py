"""How are the tools of agents called on this node? The room `mcp`, as the ops see it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from knotwork.ops.tool_replies import ToolResult, ToolRow
from knotwork.sdk.errors import NotFound

if TYPE_CHECKING:
    from knotwork.mcp.held import Held
    from knotwork.ops.op import Caller
    from knotwork.ops.ports import NodeControl
    from knotwork.ops.replies import Progress


class ToolDesk:
    """The tools (`ops.tool_replies.Tools`)."""

    def __init__(self, node: NodeControl, held: Held) -> None:
        """Let tools ask the ops of `node`."""
        self._node, self._held = node, held

    def all(self, toolset: str) -> Sequence[ToolRow]:
        """Return the tools of a set; raises `NotFound` (`tool.no_toolset`)."""
        from knotwork.mcp import catalog, toolsets  # many models: loaded when a tool is wanted

        if toolset not in toolsets.ABOUT:
            raise NotFound(
                f"There is no toolset {toolset!r}.", code="tool.no_toolset",
                hint=f"There are: {', '.join(toolsets.ABOUT)}.",
            )  # fmt: skip
        return [
            ToolRow(
                name=name, title=(tool := catalog.TOOLS[name]).title, description=tool.description,
                toolsets=[one for one, held in toolsets.TOOLSETS.items() if name in held], reads=tool.hints.reads,
            )
            for name in toolsets.names((toolset,), tuple(catalog.TOOLS))
        ]  # fmt: skip

    async def call(
        self, name: str, arguments: Any, caller: Caller, key: str = ""
    ) -> AsyncGenerator[Progress | ToolResult, None]:
        """Call a tool: any number of `Progress`, then what it gave; raises `NotFound` (`tool.unknown`)."""
        from knotwork.mcp import calling  # the same

        async with aclosing(calling.play(name, arguments, caller, self._node, self._held, key=key)) as pieces:
            async for piece in pieces:
                if isinstance(piece, calling.Outcome):
                    yield ToolResult(text=piece.text, structured=piece.structured, is_error=piece.is_error)
                else:
                    yield piece
