"""What may be asked about big tasks that several agents do? Split, spawn, report, collect, put together, look on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from knotwork.crew.records import How, Phase
from knotwork.ops import crew_replies, replies
from knotwork.ops.crew_ports import Assessing, Progressing, Spawning, Together
from knotwork.ops.crew_words import BELOW, ID, PARTS, CrewId, CrewRequest, ListPlace, PartId, Plan
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Key
from knotwork.ops.words import Target, Token
from knotwork.sdk.errors import Invalid
from knotwork.trust.scopes import Scope

WEEK_S = 7 * 86400.0
SHOWN = "Build a shop: database schema, REST API, web UI and tests"
COLUMNS = ("id", "phase", "percent", "done", "parts", "by", "created_at", "ended_at", "task")
STATE = (
    "id",
    "phase",
    "percent",
    "order",
    "held",
    "why",
    "error",
    "task",
    "synthesis",
    "budget",
    "used",
    "parent",
    "below",
    "notes",
)


class AssessRequest(Request):
    """A task, and how it may be split."""

    task: Annotated[str, StringConstraints(min_length=1, max_length=131_072)] = Field(
        description="what is to be done, in words: lists, headings and words such as after or depends on are understood"
    )
    max_parts: int = Field(default=20, ge=1, le=200, description="parts at most")
    capability: Token | None = Field(default=None, description="for parts that nothing hints at")
    capabilities: list[Token] | None = Field(
        default=None, max_length=500, description="choose among these; none: those that agents have now"
    )
    planner_capability: Token | None = Field(default=None, description="let an agent with this capability plan")
    planner_agent: Target | None = Field(default=None, description="let this agent plan")
    timeout_s: float = Field(default=60.0, gt=0, le=3600, description="seconds to wait for its plan")
    parent: CrewId | None = Field(default=None, description="the orchestration that this is a part of")
    scope: Scope = Field(default="team", description="who may see and steer it; below another it has that one's")
    key: Key = Field(default="", description="idempotency key")


@op(
    "crew.assess", AssessRequest, crew_replies.CrewPlan, effect="write",
    cli=CliForm(("crew", "assess"), positional=("task",), rows="parts", columns=("id", "capability", "needs", "title"), below=("id", "order", "notes"), short={"key": "k"}),
    summary="Split a task into parts for several agents.",
    help="By rules, without a language model; with a planner its plan is taken when it makes sense. Nothing begins yet: "
    "look at the plan, change it with `crew.plan`, carry it out with `crew.spawn`.",
    examples=(
        Example("Split it", {"task": SHOWN}),
        Example("Let an agent plan", {"task": SHOWN, "planner_capability": "planning", "timeout_s": 120}),
    ),
)  # fmt: skip
async def assess(request: AssessRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewPlan:
    """Return the plan."""
    if request.planner_capability and request.planner_agent:
        raise Invalid("Name planner_capability or planner_agent, one of the two.", code="crew.bad_planner")
    wanted = Assessing(
        request.task, None if request.capabilities is None else tuple(request.capabilities), request.capability or "",
        request.max_parts, request.planner_capability or "", request.planner_agent or "", request.timeout_s,
        request.parent or "", request.key, request.scope,
    )  # fmt: skip
    return await node.crews(caller.project, caller.who).assess(wanted, caller)


class PlanRequest(CrewRequest):
    """Which plan, and what it should be instead."""

    parts: Plan | None = Field(default=None, description="all parts of the new plan; none: only show it")
    revision: int | None = Field(default=None, ge=1, description="refuse the change when the plan has another by now")


@op(
    "crew.plan", PlanRequest, crew_replies.CrewPlan, effect="write",
    cli=CliForm(("crew", "plan"), positional=("id", "parts"), rows="parts", columns=("id", "capability", "needs", "title"), below=("id", "order", "notes")),
    summary="Show a plan, or replace it before it is spawned.",
    help="Everything that is wrong with the new one is told at once; then the old one stands.",
    examples=(
        Example("Show it", {"id": ID}),
        Example("Change it", {"id": ID, "revision": 1, "parts": [{"id": "db", "capability": "database", "title": "The schema"}]}),
    ),
)  # fmt: skip
async def plan(request: PlanRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewPlan:
    """Return the plan as it is then."""
    parts = None if request.parts is None else [one.described() for one in request.parts]
    return await node.crews(caller.project, caller.who).plan(request.id, parts, request.revision, caller)


class SpawnRequest(PlanRequest):
    """Which plan, how it is carried out, and what it may use."""

    synthesis: How = Field(
        default="concatenate", description="what becomes of the results; none: `crew.synthesize` later"
    )
    synthesis_capability: Token | None = Field(default=None, description="for agent: who has this capability does it")
    synthesis_agent: Target | None = Field(default=None, description="for agent: this one")
    depth: int = Field(default=3, ge=0, le=8, description="levels of orchestrations that may begin below it")
    children: int = Field(default=200, ge=1, le=10_000, description="sub-agents, those below included")
    time_s: float = Field(default=0.0, ge=0, le=365 * 86400, description="seconds for all of it; 0: any")
    tokens: int = Field(
        default=0, ge=0, le=10**15, description="tokens that may be reported before no more parts begin; 0: any"
    )
    cost: float = Field(default=0.0, ge=0, le=1e12, description="the same for cost, in whatever unit agents report")
    parallel: int = Field(default=0, ge=0, le=200, description="parts at a time; 0: all that can be")
    boundary: Token | None = Field(default=None, description="data class of the task")
    priority: int = Field(default=5, ge=1, le=10, description="10 is the most urgent")


@op(
    "crew.spawn", SpawnRequest, crew_replies.CrewState, effect="write",
    cli=CliForm(("crew", "spawn"), positional=("id", "parts"), rows="parts", columns=PARTS, below=BELOW),
    summary="Carry a plan out: each part becomes work for an agent.",
    help="It is a durable run: whoever has a part's capability claims it (`work.claim`), and when an agent dies its part "
    "goes to another. Each part is given the task, what it is to do, and the results of the parts it needs.",
    examples=(
        Example("Carry it out", {"id": ID}),
        Example("Within bounds", {"id": ID, "synthesis": "merge", "time_s": 3600, "tokens": 500000}),
    ),
)  # fmt: skip
async def spawn(request: SpawnRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewState:
    """Begin."""
    together = _together(request.synthesis, request.synthesis_capability, request.synthesis_agent)
    how = Spawning(
        None if request.parts is None else tuple(one.described() for one in request.parts), request.revision, together,
        request.depth, request.children, request.time_s, request.tokens, request.cost, request.parallel,
        request.boundary or "", request.priority,
    )  # fmt: skip
    return await node.crews(caller.project, caller.who).spawn(request.id, how, caller)


def _together(how: How, capability: str | None, agent: str | None, *, partial: bool = False) -> Together:
    if (how == "agent") != bool(capability or agent) or (capability and agent):
        raise Invalid(
            "An agent puts it together when it is named, by capability or name, and how is agent.",
            code="crew.bad_synthesis", hint="Give agent with one of the two, or another way with none.",
        )  # fmt: skip
    return Together(how, capability or "", agent or "", partial)


class CheckpointRequest(CrewRequest):
    """What you did so far."""

    part: PartId | None = Field(default=None, description="of this part; none: of the whole")
    phase: Phase | None = Field(default=None, description="where the whole is now")
    percent: float | None = Field(default=None, ge=0, le=100, description="how far, 0 to 100")
    text: Annotated[str, StringConstraints(max_length=4096)] = Field(default="", description="what you are doing")
    tokens: int = Field(default=0, ge=0, le=10**15, description="tokens you used for this part so far, in all")
    cost: float = Field(default=0.0, ge=0, le=1e12, description="what it cost so far, in all")
    data: Any = Field(default=None, description="any JSON value; with phase complete: the result")


@op(
    "crew.checkpoint", CheckpointRequest, crew_replies.Reported, effect="write",
    cli=CliForm(("crew", "checkpoint"), positional=("id", "part", "text")),
    summary="Say how far you are with a part, or move the whole on.",
    help="It is on record when this returns. `go_on` tells whether to go on: it is false when the orchestration was "
    "stopped or paused, or has used up its budget. Phases that facts lead to are reached by themselves.",
    examples=(
        Example("Half done", {"id": ID, "part": "db", "percent": 50, "text": "tables are there", "tokens": 12000}),
        Example("All results are in", {"id": ID, "phase": "collection"}),
    ),
)  # fmt: skip
async def checkpoint(request: CheckpointRequest, node: NodeControl, caller: Caller) -> crew_replies.Reported:
    """Keep it."""
    said = Progressing(
        request.part or "", request.phase, request.percent, request.text, request.tokens, request.cost, request.data
    )
    return await node.crews(caller.project, caller.who).checkpoint(request.id, said, caller)


class ListRequest(Request):
    """Which orchestrations."""

    phase: list[Phase] = Field(default=[], max_length=8, description="in one of these phases")
    limit: int = Field(default=50, ge=1, le=1000, description="at most so many")
    cursor: ListPlace = Field(default="", description="`next` of the page before")


@op(
    "crew.list", ListRequest, crew_replies.CrewList, effect="read",
    cli=CliForm(("crew", "list"), rows="orchestrations", columns=COLUMNS, also=("crews",)),
    summary="List orchestrations, the newest first.",
    help="Those that go on, and those that ended in the last month.",
    examples=(Example("What goes on?", {"phase": ["execution"]}),),
)  # fmt: skip
async def all_of_them(request: ListRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewList:
    """Return those that fit."""
    return await node.crews(caller.project, caller.who).listed(frozenset(request.phase), request.limit, request.cursor)


class ResultsRequest(CrewRequest):
    """Whose results."""

    part: PartId | None = Field(default=None, description="of this part alone")


@op(
    "crew.results", ResultsRequest, crew_replies.CrewResults, effect="read",
    cli=CliForm(("crew", "results"), positional=("id", "part"), rows="parts", columns=("id", "state", "agent", "output"), below=("result",)),
    summary="Show what the parts gave so far.",
    help="Also while others are under way. What is large is told by its digest (`blob.get`).",
    examples=(Example("What is there?", {"id": ID}), Example("Of one part", {"id": ID, "part": "db"})),
)  # fmt: skip
async def results(request: ResultsRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewResults:
    """Return them."""
    return await node.crews(caller.project, caller.who).results(request.id, request.part or "")


class SynthesizeRequest(CrewRequest):
    """Whose results become one, and how."""

    how: Literal["concatenate", "merge", "agent"] = Field(
        default="concatenate", description="as one text, as one structure with its conflicts listed, or by an agent"
    )
    capability: Token | None = Field(default=None, description="for agent: who has this capability does it")
    agent: Target | None = Field(default=None, description="for agent: this one")
    partial: bool = Field(default=False, description="of those that are done, when not all are")
    wait_s: float = Field(default=0.0, ge=0, le=WEEK_S, description="for agent: seconds to wait for its result")


@op(
    "crew.synthesize", SynthesizeRequest, crew_replies.CrewResult, effect="write",
    cli=CliForm(("crew", "synthesize"), positional=("id", "how"), answer="output"),
    summary="Put the results together.",
    help="When all parts are over it is kept as the result of the orchestration, which is complete then; it can be done "
    "again in another way. While parts are under way a partial one is only shown.",
    examples=(
        Example("As one structure", {"id": ID, "how": "merge"}),
        Example("By an agent", {"id": ID, "how": "agent", "capability": "writing", "wait_s": 600}),
    ),
)  # fmt: skip
async def synthesize(request: SynthesizeRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewResult:
    """Return the result."""
    how = _together(request.how, request.capability, request.agent, partial=request.partial)
    return await node.crews(caller.project, caller.who).synthesize(request.id, how, request.wait_s, caller)


@op(
    "crew.state", CrewRequest, crew_replies.CrewState, effect="read",
    cli=CliForm(("crew", "state"), positional=("id",), rows="parts", columns=PARTS, below=STATE),
    summary="Show everything about an orchestration.",
    help="Its phase, its parts and who does them, what it may use and has used, and what was said.",
    examples=(Example("How far is it?", {"id": ID}),),
)  # fmt: skip
async def state(request: CrewRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewState:
    """Return it."""
    return await node.crews(caller.project, caller.who).state(request.id)


class WatchRequest(CrewRequest):
    """Which orchestration, and for how long."""

    timeout_s: float = Field(default=WEEK_S, ge=0, le=WEEK_S, description="seconds to watch")


@op(
    "crew.watch", WatchRequest, crew_replies.CrewState, effect="read", streams=True,
    cli=CliForm(("crew", "watch"), positional=("id",), rows="parts", columns=PARTS, below=BELOW),
    summary="Watch an orchestration until it is over.",
    help='How it stands, then every change: `{"event": "phase", …}` and `{"event": "part", …}`.',
    examples=(Example("Look on", {"id": ID}),),
)  # fmt: skip
async def watch(
    request: WatchRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Chunk | crew_replies.CrewState]:
    """Yield what happens, then everything about it."""
    crews = node.crews(caller.project, caller.who)
    async with aclosing(crews.watch(request.id, request.timeout_s)) as events:
        async for event in events:
            yield replies.Chunk(data=event)
    yield await crews.state(request.id)
