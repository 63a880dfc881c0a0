"""What may be asked by, and about, agents that came in from outside? To have a session, to be found, to be named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from knotwork.ops import replies, session_replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.session_ports import Newcomer, SessionFilter
from knotwork.ops.talk_words import Whom
from knotwork.ops.task_words import Cursor
from knotwork.ops.words import Text, Token
from knotwork.trust.parents import KEY_MAX
from knotwork.trust.scopes import Scope

Tokens = Annotated[list[Token], Field(max_length=64)]
Place = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Host = Annotated[str, StringConstraints(min_length=1, max_length=255)]
ParentKey = Annotated[str, StringConstraints(min_length=1, max_length=KEY_MAX)]
Status = Literal["online", "busy", "offline"]


class OpenRequest(Request):
    """Who comes in: machine, folder and label are what it is known by."""

    host: Host = Field(description="name of the machine it runs on")
    path: Place = Field(description="folder it works in")
    label: Token = Field(default="1", description="tells agents of the same folder apart")
    type: Token = Field(default="agent", description="what it is, such as claude-code")
    handle: Token | None = Field(
        default=None, description="name to be known by; none: the one it had, or made of its type"
    )
    description: Text = Field(default="", description="one line: what it is good for")
    capabilities: Tokens = Field(default=[], description="what it can do")
    boundaries: Tokens = Field(default=[], description="data classes it accepts; all when empty")
    max_tasks: int = Field(default=16, ge=1, le=10_000, description="tasks it works on at once, at most")
    parent: ParentKey | None = Field(default=None, description="`parent_key` of the agent that started it")
    take_over: bool = Field(default=False, description="end another open session of the same agent")


@op(
    "session.open", OpenRequest, session_replies.SessionOver, effect="write", streams=True, live=True,
    cli=CliForm(("session", "open"), positional=("host", "path")),
    summary="Come in as an agent, for as long as you listen.",
    help='First comes `{"event": "opened", "id": …, "handle": …, "session": …, "parent_key": …}`; whoever asks an op with that '
    "secret asks as this agent, and whoever comes in with that key as `parent` is its sub-agent. Then comes what the agent is told: of messages, of work that is no more its own. The id is "
    "the same at every start with the same machine, folder and label.",
    examples=(
        Example("Come in", {"host": "laptop", "path": "/srv/app", "type": "claude-code", "capabilities": ["code"]}),
    ),
)  # fmt: skip
async def open_session(
    request: OpenRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Chunk | session_replies.SessionOver]:
    """Yield what an agent is told, until its session ends."""
    newcomer = Newcomer(
        request.host, request.path, request.label, request.type, request.handle or "", request.description,
        tuple(request.capabilities), tuple(request.boundaries), request.parent or "", request.take_over,
        request.max_tasks,
    )  # fmt: skip
    agent, why = "", ""
    async with aclosing(node.sessions(caller.project).open(newcomer, caller.who)) as notices:
        async for notice in notices:
            said: Any = notice.data
            agent = agent or said["id"]
            why = said.get("why", "") if said["event"] == "closed" else ""
            yield notice
    yield session_replies.SessionOver(id=agent, why=why)


class UpdateRequest(Request):
    """What is different about you; what is left out stays."""

    handle: Token | None = Field(default=None, description="new name")
    type: Token | None = Field(default=None, description="what you are")
    description: Text | None = Field(default=None, description="one line: what you are good for")
    capabilities: Tokens | None = Field(default=None, description="what you can do: replaces what you said before")
    boundaries: Tokens | None = Field(default=None, description="data classes you accept")
    scope: Scope | None = Field(default=None, description="who may see you")
    status: Status | None = Field(default=None, description="whether you take work")
    tasks: int | None = Field(default=None, ge=0, le=1_000_000, description="how many tasks you work on")
    max_tasks: int | None = Field(default=None, ge=1, le=10_000, description="tasks you work on at once, at most")
    registered: bool | None = Field(default=None, description="whether others find you and you are given work")


@op(
    "session.update", UpdateRequest, session_replies.SessionRow, effect="write",
    cli=CliForm(("session", "update")),
    summary="Say what is different about you: name, capabilities, status, scope.",
    help="Only for agents with an open session.",
    examples=(Example("Be busy", {"status": "busy"}), Example("Be found as a reviewer", {"capabilities": ["review"]})),
)  # fmt: skip
async def update(request: UpdateRequest, node: NodeControl, caller: Caller) -> session_replies.SessionRow:
    """Change what an agent says of itself."""
    return await node.sessions(caller.project).update(caller.who, request.model_dump(exclude_none=True))


class ListRequest(Request):
    """Which agents; all filters must fit."""

    type: Token | None = Field(default=None, description="only of this type")
    capability: Token | None = Field(default=None, description="only with this capability")
    host: Host | None = Field(default=None, description="only on this machine")
    from_project: Token | None = Field(default=None, description="only of this project")
    scope: Scope | None = Field(default=None, description="only with this scope")
    status: Literal["online", "busy", "stale", "offline"] | None = Field(default=None, description="only those")
    parent: Token | None = Field(default=None, description="only those this agent (by id) started")
    offline: bool = Field(default=False, description="offline ones, too")
    limit: int = Field(default=100, ge=1, le=10_000, description="at most so many")
    cursor: Cursor = Field(default="", description="go on behind the page before: its `next`")


@op(
    "session.list", ListRequest, session_replies.SessionList, effect="read",
    cli=CliForm(
        ("session", "list"), rows="agents", columns=("handle", "type", "status", "capabilities", "tasks", "host", "id")
    ),
    summary="List agents that came in from outside.",
    help="Those that you may see, with what you may see of them; those of other projects as handle@project. Answered "
    "from memory.",
    examples=(Example("Who is there?"), Example("Who can review?", {"capability": "review"})),
)  # fmt: skip
async def list_sessions(request: ListRequest, node: NodeControl, caller: Caller) -> session_replies.SessionList:
    """Return agents."""
    wanted = SessionFilter(
        request.type or "", request.capability or "", request.host or "", request.from_project or "",
        request.scope or "", request.status or "", request.parent or "", request.offline,
        request.limit, request.cursor,
    )  # fmt: skip
    return await node.sessions(caller.project).list(wanted, caller.who)


class GetRequest(Request):
    """Which agent."""

    agent: Whom = Field(description="its id or handle; of another project: its id or handle@project")


@op(
    "session.get", GetRequest, session_replies.SessionRow, effect="read",
    cli=CliForm(("session", "show"), positional=("agent",)),
    summary="Show one agent that came in from outside.",
    help="One that you may not see is not found.",
    examples=(Example("Show an agent", {"agent": "claude-code"}),),
)  # fmt: skip
async def get(request: GetRequest, node: NodeControl, caller: Caller) -> session_replies.SessionRow:
    """Return one agent."""
    return await node.sessions(caller.project).get(request.agent, caller.who)


class CloseRequest(Request):
    """Nothing."""


@op(
    "session.close", CloseRequest, session_replies.Closed, effect="write",
    cli=CliForm(("session", "close")),
    summary="End your session.",
    help="Tasks that you hold go to somebody else. You keep your identity, and your inbox.",
    examples=(Example("Leave"),),
)  # fmt: skip
async def close(_: CloseRequest, node: NodeControl, caller: Caller) -> session_replies.Closed:
    """End an agent's session."""
    await node.sessions(caller.project).close(caller.who)
    return session_replies.Closed(id=caller.who.id)
