"""What may be asked about agents, and of them: list, show, invoke."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from knotwork.ops import pages, replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import AgentFilter, Call, NodeControl, RouteQuestion
from knotwork.ops.task_words import Cursor, Labels, labels
from knotwork.ops.words import Names, Tags, Target, Text, Token

Sticky = Annotated[str, StringConstraints(max_length=256)]


class AgentsRequest(Request):
    """Which agents."""

    capability: Token | None = Field(default=None, description="only agents with this capability")
    node: Token | None = Field(default=None, description="only agents on this node (name or id)")
    boundary: Token | None = Field(default=None, description="only agents that accept this data class")
    tags: Tags = Field(default=[], description="only agents that carry all of these tags")
    all: bool = Field(default=False, description="agents of offline nodes, too")
    limit: int = Field(default=1000, ge=1, le=100_000, description="at most so many")
    cursor: Cursor = Field(default="", description="go on behind the page before: its `next`")


@op(
    "agents.list", AgentsRequest, replies.AgentList, effect="read",
    cli=CliForm(
        ("agents",), rows="agents", columns=("name", "state", "capabilities", "load", "running", "queued", "description")
    ),
    summary="List the agents of the project.",
    help="Answered from the directory in memory; agents on every node that is there.",
    examples=(Example("List every agent"), Example("Who can review code?", {"capability": "code-review"})),
)  # fmt: skip
async def list_agents(request: AgentsRequest, node: NodeControl, caller: Caller) -> replies.AgentList:
    """Return the agents that fit."""
    states = {"online", "draining", "stale"} | ({"offline"} if request.all else set())
    wanted = AgentFilter(
        capability=request.capability or "",
        node=request.node or "",
        boundary=request.boundary or "",
        tags=frozenset(request.tags),
        states=frozenset(states),
    )
    rows = await node.mesh(caller.project, caller.who).agents(wanted)
    shown, following = pages.page(rows, lambda row: row.name, request.cursor, request.limit)
    return replies.AgentList(agents=shown, total=len(rows), next=following)


class AgentRequest(Request):
    """Which agent."""

    target: Target = Field(description="agent, or node/agent")


@op(
    "agents.show", AgentRequest, replies.AgentDetail, effect="read",
    cli=CliForm(("agents", "show"), positional=("target",)),
    summary="Show one agent with its schemas.",
    help="Everything the directory knows about it, its input and output schema included.",
    examples=(Example("Show an agent", {"target": "reviewer"}),),
)  # fmt: skip
async def show_agent(request: AgentRequest, node: NodeControl, caller: Caller) -> replies.AgentDetail:
    """Return one agent."""
    return await node.mesh(caller.project, caller.who).agent(request.target)


class InvokeRequest(Request):
    """Whom to call, with what."""

    target: Target | None = Field(default=None, description="agent, or node/agent")
    capability: Token | None = Field(default=None, description="call any agent with this capability instead")
    input: Any = Field(default=None, description="any JSON value")
    timeout_s: float = Field(default=600.0, ge=0.01, le=86400, description="seconds for the whole call")
    require: Tags = Field(default=[], description="tags the agent must carry")
    prefer: Tags = Field(default=[], description="tags that move an agent forward")
    exclude: Names = Field(default=[], description="agents, nodes or node/agent that are out")
    boundary: Token | None = Field(default=None, description="data class of the input")
    retries: int = Field(default=0, ge=0, le=100, description="further tries after a failure that may pass")
    stream: bool = Field(default=False, description="send progress and live output")
    idempotency_key: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="", description="handed to the agent as it is"
    )
    sticky: Sticky = Field(default="", description="calls with the same word go to the same agent (router `sticky`)")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.target is None) == (self.capability is None):
            msg = "give either target or capability"
            raise ValueError(msg)
        return self


@op(
    "agents.invoke", InvokeRequest, replies.Answer, effect="write", streams=True,
    cli=CliForm(("invoke",), positional=("target", "input"), answer="output", short={"capability": "c", "stream": "s"}, instead={"capability": "target"}),
    summary="Call an agent now and wait for its answer.",
    help="The agent is found by name, by node/agent, or by capability (least loaded first, this node before others). "
    "Nothing is stored. When the time is over or the caller goes away, the work is stopped where it runs. "
    "Input is JSON; bare words are taken as text, `@file` reads a file and `-` standard input.",
    examples=(
        Example("Call an agent by name", {"target": "reviewer", "input": {"path": "README.md"}}),
        Example("Call whoever can summarize", {"capability": "summarize", "input": "a long text", "timeout_s": 30}),
        Example("Watch it work", {"target": "reviewer", "input": "hello", "stream": True}),
    ),
)  # fmt: skip
async def invoke(
    request: InvokeRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Progress | replies.Chunk | replies.Answer]:
    """Yield what the agent says until its answer; pieces are left out unless `stream` was asked for."""
    call = Call(
        input=request.input,
        target=request.target or "",
        capability=request.capability or "",
        timeout_s=request.timeout_s,
        require=frozenset(request.require),
        prefer=frozenset(request.prefer),
        exclude=frozenset(request.exclude),
        boundary=request.boundary or "",
        retries=request.retries,
        stream=request.stream,
        idempotency_key=request.idempotency_key,
        sticky=request.sticky,
    )
    async with aclosing(node.mesh(caller.project, caller.who).invoke(call, caller)) as pieces:
        async for piece in pieces:
            if request.stream or isinstance(piece, replies.Answer):
                yield piece


class WhyRequest(Request):
    """Which work."""

    target: Target | None = Field(default=None, description="agent, or node/agent")
    capability: Token | None = Field(default=None, description="any agent with this capability instead")
    boundary: Token | None = Field(default=None, description="data class of the work")
    path: Text = Field(default="", description="path of the work: finds its boundary when none is given")
    labels: Labels = Field(default=[], description="labels of a task, key=value: find its boundary likewise")
    require: Tags = Field(default=[], description="tags the agent must carry")
    prefer: Tags = Field(default=[], description="tags that move an agent forward")
    exclude: Names = Field(default=[], description="agents, nodes or node/agent that are out")
    sticky: Sticky = Field(default="", description="what goes to the same agent (router `sticky`)")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.target is None) == (self.capability is None):
            msg = "give either target or capability"
            raise ValueError(msg)
        return self


@op(
    "agents.why", WhyRequest, replies.RouteWhy, effect="read",
    cli=CliForm(
        ("route", "explain"), positional=("target",), short={"capability": "c", "boundary": "b"},
    ),
    summary="Explain who would do a piece of work, and why not others.",
    help="Each agent that could be meant, in the order of trying, or why it is left out: by [boundaries] or by the router "
    "that answered. `queue` is where a task would wait: a capability, or `node=agent` when a router chooses one. "
    "Nothing is called or stored.",
    examples=(
        Example("Who gets corporate reviews?", {"capability": "code-review", "boundary": "corporate"}),
        Example("Which boundary has a file?", {"capability": "code-review", "path": "/srv/corp/app.py"}),
    ),
)  # fmt: skip
async def why(request: WhyRequest, node: NodeControl, caller: Caller) -> replies.RouteWhy:
    """Return who would be chosen."""
    question = RouteQuestion(
        target=request.target or "", capability=request.capability or "", boundary=request.boundary or "",
        path=request.path, labels=labels(request.labels), require=frozenset(request.require),
        prefer=frozenset(request.prefer), exclude=frozenset(request.exclude), sticky=request.sticky,
    )  # fmt: skip
    return await node.mesh(caller.project, caller.who).why(question)
