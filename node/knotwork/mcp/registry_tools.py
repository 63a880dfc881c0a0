"""Which tools are about agents? To say who one is, and to find the others."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import READS, Input, Session, tool, without


class AgentsInput(Input):
    """Which agents."""

    filter: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="part of the name")
    include_local: bool = Field(default=True, description="those of this node, too")
    limit: int = Field(default=50, ge=1, le=1000)
    cursor: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="", description="`next` of the page before"
    )


@tool(
    "list_agents", AgentsInput,
    record(
        success="flag",
        agents=many(
            record(
                name="text", description="text?", station_id="text", station_name="text?", status="text?", tags="texts?",
                capabilities="texts?",
            )
        ),
        next="text?",
    ),
    title="List agents that take work",
    description="List the agents that assign_work can give work to: those that are configured on nodes, and those that "
    "are here now.",
    hints=READS, rows="agents",
)  # fmt: skip
async def list_agents(given: AgentsInput, session: Session) -> dict[str, Any]:
    """Return agents of the directory."""
    page = await session.ask("agents.list", limit=given.limit, cursor=given.cursor)
    wanted, here = given.filter.lower(), session.who.node
    rows = [
        without(
            {
                "name": one["agent"], "description": one["description"], "station_id": one["node"],
                "station_name": one["node"], "status": one["state"], "tags": one["tags"],
                "capabilities": one["capabilities"],
            }
        )
        for one in page["agents"]
        if wanted in one["agent"].lower() and (given.include_local or one["node"] != here)
    ]  # fmt: skip
    return without({"next": page["next"]}) | {"success": True, "agents": rows}
