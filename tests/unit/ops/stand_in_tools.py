"""The tools of agents as a host might offer them; one of each kind of answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from knotwork.ops.op import Caller
from knotwork.ops.replies import Progress
from knotwork.ops.tool_replies import ToolResult, ToolRow
from knotwork.sdk.errors import NotFound


class StandInTools:
    def all(self, toolset: str) -> Sequence[ToolRow]:
        if toolset == "none":
            raise NotFound("There is no toolset 'none'.", code="tool.no_toolset")
        return [ToolRow(name="check_work", title="Check work", description="How is it?", toolsets=["core"], reads=True)]

    async def call(
        self, name: str, arguments: Any, caller: Caller, key: str = ""
    ) -> AsyncGenerator[Progress | ToolResult, None]:
        yield Progress(percent=50.0, text="half")
        yield ToolResult(text=f"{name}: done", structured={"given": arguments})
