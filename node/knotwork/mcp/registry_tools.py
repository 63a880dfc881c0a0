"""Which tools are about agents? To say who one is, and to find the others."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from knotwork.mcp.labels import token_of
from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import (
    READS,
    SETS,
    TAKES_AWAY,
    CamelInput,
    Capability,
    Cursor,
    Input,
    Nothing,
    PageInput,
    Session,
    tool,
    without,
)
from knotwork.ops.talk_words import Whom
from knotwork.ops.words import NAMED, Text, Token
from knotwork.trust.scopes import Scope

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_HANDLE = r"^[a-z0-9](?:[a-z0-9-]{0,63})$"
NAMED |= {
    _HANDLE: (
        "not a handle",
        "Handles are lower-case letters, digits and -, 64 at most, beginning with a letter or digit.",
    )
}
Capabilities = Annotated[list[Capability], Field(max_length=64)]
EVERY = 100_000
"""More agents than a project has."""
_VISIBLE: dict[str, str] = {"private": "private", "project-only": "team", "user-only": "personal", "public": "public"}
_AGENT = record(
    guid="text", handle="text", agentType="text", status="text", capabilities="texts?", scope="text?",
    description="text?", hostname="text?", projectId="text?", currentTaskCount="int?", lastSeen="text?", me="flag?",
)  # fmt: skip


def _row(one: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "guid": one["id"], "handle": one["handle"], "agentType": one["type"], "status": one["status"],
        "capabilities": one["capabilities"], "scope": one["scope"], "description": one["description"],
        "hostname": one["host"], "projectId": one["project"], "lastSeen": one["seen_at"],
    }  # fmt: skip
    return (
        without(shown)
        | ({"currentTaskCount": one["tasks"]} if one["tasks"] else {})
        | ({"me": True} if one["me"] else {})
    )


class HandleInput(Input):
    """A name."""

    handle: Annotated[str, StringConstraints(pattern=_HANDLE)] = Field(description="lower-case letters, digits and -")


@tool(
    "set_handle", HandleInput, record(handle="text", guid="text"), title="Choose your name",
    description="Take a name by which others know you. It is yours alone in this project, and stays over restarts.",
    hints=SETS,
)  # fmt: skip
async def set_handle(given: HandleInput, session: Session) -> dict[str, Any]:
    """Change the agent's handle."""
    found = await session.ask("session.update", handle=given.handle)
    return {"handle": found["handle"], "guid": found["id"]}


@tool(
    "get_my_handle", Nothing, record(handle="text", guid="text", registered="flag", parentKey="text?"), title="Who am I?",
    description="Return your own name and id. `parentKey` is for agents that you start yourself, as KNOTWORK_PARENT: they "
    "see what is private to you, so show it to nobody else.",
    hints=READS,
)  # fmt: skip
async def get_my_handle(_: Nothing, session: Session) -> dict[str, Any]:
    """Return who asks."""
    who = session.who
    own = await session.ask("session.get", agent=who.id) if who.kind == "agent" else {}
    told = {"handle": who.name, "guid": who.id, "registered": own.get("registered", False)}
    return told | without({"parentKey": own.get("parent_key")})


class RegisterInput(CamelInput):
    """What you are, and what you can do."""

    agent_type: Name = Field(description="what you are, e.g. claude-code")
    capabilities: Capabilities = Field(default=[], description="what you can do, e.g. code-review")
    scope: Scope = Field(default="team", description="who may see you")
    visibility: Literal["private", "project-only", "user-only", "public"] | None = Field(
        default=None, description="older word for scope"
    )
    description: Text = Field(default="", description="one line: what you are good for")


@tool(
    "register_agent", RegisterInput, _AGENT, title="Register",
    description="Let others find you, and take work for your capabilities. Again, to change any of it.", hints=SETS,
)  # fmt: skip
async def register_agent(given: RegisterInput, session: Session) -> dict[str, Any]:
    """Show the agent to others."""
    scope = _VISIBLE[given.visibility] if given.visibility else given.scope
    found = await session.ask(
        "session.update", type=token_of(given.agent_type) or "agent", capabilities=given.capabilities, scope=scope,
        status="online", registered=True, **without({"description": given.description}),
    )  # fmt: skip
    return _row(found)


class DiscoverInput(CamelInput):
    """Which agents; all filters must fit."""

    limit: int = Field(default=20, ge=1, le=100)
    cursor: Cursor = Field(default="", description="`next` of the page before")
    agent_type: Name | None = None
    capability: Capability | None = None
    hostname: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    project_id: Token | None = None
    status: Literal["online", "busy", "stale", "offline"] | None = None
    scope: Scope | None = None
    include_offline: bool = False


@tool(
    "discover_agents", DiscoverInput, record(agents=many(_AGENT), total="int", next="text?"), title="Find agents",
    description="Find the other agents that are here and what each can do. (list_agents: those to assign work to.)",
    hints=READS, rows="agents",
)  # fmt: skip
async def discover_agents(given: DiscoverInput, session: Session) -> dict[str, Any]:
    """Return a page of agents."""
    wanted = without(
        {
            "type": token_of(given.agent_type) or "none" if given.agent_type else None, "capability": given.capability,
            "host": given.hostname, "from_project": given.project_id, "scope": given.scope, "status": given.status,
        }
    )  # fmt: skip
    page = await session.ask(
        "session.list", limit=given.limit, cursor=given.cursor, offline=given.include_offline, **wanted
    )
    return without({"next": page["next"]}) | {"agents": [_row(one) for one in page["agents"]], "total": page["total"]}


class AgentInput(Input):
    """Which agent."""

    guid: Whom = Field(description="its guid, its handle, or handle@project")


@tool(
    "get_agent_info", AgentInput, _AGENT, title="Look at an agent",
    description="Return what you may know about one agent.", hints=READS,
)  # fmt: skip
async def get_agent_info(given: AgentInput, session: Session) -> dict[str, Any]:
    """Return one agent."""
    return _row(await session.ask("session.get", agent=given.guid))


class PresenceInput(CamelInput):
    """What is different about you."""

    status: Literal["online", "busy", "offline"] | None = Field(default=None, description="offline takes no work")
    current_task_count: int | None = Field(default=None, ge=0, le=1_000_000)
    capabilities: Capabilities | None = Field(default=None, description="all of them, instead of those before")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.status is None and self.current_task_count is None and self.capabilities is None:
            raise ValueError("give at least one of status, currentTaskCount and capabilities")
        return self


@tool(
    "update_presence", PresenceInput, _AGENT, title="Update your presence",
    description="Say whether you are busy, how much you do, and what you can do now.", hints=SETS,
)  # fmt: skip
async def update_presence(given: PresenceInput, session: Session) -> dict[str, Any]:
    """Change what the agent says of itself."""
    changes = {"status": given.status, "tasks": given.current_task_count, "capabilities": given.capabilities}
    told = {name: value for name, value in changes.items() if value is not None}
    return _row(await session.ask("session.update", **told))


@tool(
    "deregister_agent", Nothing, record(guid="text", handle="text"), title="Leave",
    description="Let nobody find you any more. You keep your name and your inbox; register_agent brings you back.",
    hints=TAKES_AWAY,
)  # fmt: skip
async def deregister_agent(_: Nothing, session: Session) -> dict[str, Any]:
    """Hide the agent."""
    found = await session.ask("session.update", registered=False, status="offline")
    return {"guid": found["id"], "handle": found["handle"]}


def _part(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class AgentsInput(PageInput):
    """Which agents."""

    filter: Annotated[str, StringConstraints(max_length=64), BeforeValidator(_part)] = Field(
        default="", description="part of the name"
    )
    include_local: bool = Field(default=True, description="those of this node, too")
    limit: int = Field(default=50, ge=1, le=1000)

    def fits(self, one: dict[str, Any], here: str) -> bool:
        """Return whether an agent is meant, asked at the node `here`."""
        return self.filter in one["agent"].lower() and (self.include_local or one["node"] != here)


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
    narrowed = given.filter or not given.include_local  # then a page is made of those that fit alone
    wanted = {"limit": EVERY} if narrowed else {"limit": given.limit, "cursor": given.cursor[:256]}
    page = await session.ask("agents.list", **wanted)
    found = [one for one in page["agents"] if given.fits(one, session.who.node)]
    told = given.of("agents", found, lambda one: str(one["name"])) if narrowed else page
    rows = [
        without(
            {
                "name": one["agent"], "description": one["description"], "station_id": one["node"],
                "station_name": one["node"], "status": one["state"], "tags": one["tags"],
                "capabilities": one["capabilities"],
            }
        )
        for one in told["agents"]
    ]  # fmt: skip
    return without({"next": told.get("next")}) | {"success": True, "agents": rows}
