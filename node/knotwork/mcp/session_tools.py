"""Which tool is about tools? One that lists more of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from knotwork.mcp import toolsets
from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import REGISTERED, SETS, Input, Session, tool

Name = Literal["core", "classic", "talk", "work", "memory", "flow", "crew", "all"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ToolsetsInput(Input):
    """Which tools are to be listed, too."""

    add: Annotated[list[Name], Field(max_length=8), BeforeValidator(_as_list)] = Field(
        default=[], description="sets to list, too"
    )


@tool(
    "toolsets", ToolsetsInput,
    record(listed="texts", toolsets=many(record(name="text", about="text", tools="texts"))),
    title="More tools",
    description="Show which tools there are, and list more of them in this session: talk, work, memory, flow (workflows), "
    "crew (sub-agents).",
    hints=SETS,
)  # fmt: skip
async def more(given: ToolsetsInput, session: Session) -> dict[str, Any]:
    """Return the sets; what is listed is the business of whoever lists tools."""
    del session
    return toolsets.told(tuple(dict.fromkeys((toolsets.DEFAULT, *given.add))), tuple(REGISTERED))
