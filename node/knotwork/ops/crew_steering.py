"""How may an orchestration be steered that goes on? Paused, let go on, stopped, a part done again."""

from __future__ import annotations

from pydantic import Field

from knotwork.ops import crew_replies
from knotwork.ops.crew_words import BELOW, ID, PARTS, CrewRequest, PartId
from knotwork.ops.op import Caller, CliForm, Example, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.words import Text


@op(
    "crew.pause", CrewRequest, crew_replies.CrewState, effect="write",
    cli=CliForm(("crew", "pause"), positional=("id",), rows="parts", columns=PARTS, below=BELOW),
    summary="Begin no more parts of an orchestration.",
    help="Those that were begun come to their end; all orchestrations below it are paused, too.",
    examples=(Example("Wait", {"id": ID}),),
)  # fmt: skip
async def pause(request: CrewRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewState:
    """Hold it."""
    return await node.crews(caller.project, caller.who).hold(request.id, resume=False)


class ResumeRequest(CrewRequest):
    """Which orchestration, and what it may use from now on."""

    tokens: int | None = Field(default=None, ge=0, le=10**15, description="new limit of tokens; 0: any")
    cost: float | None = Field(default=None, ge=0, le=1e12, description="new limit of cost; 0: any")


@op(
    "crew.resume", ResumeRequest, crew_replies.CrewState, effect="write",
    cli=CliForm(("crew", "resume"), positional=("id",), rows="parts", columns=PARTS, below=BELOW),
    summary="Begin parts again.",
    help="One that used up its budget goes on with a larger one.",
    examples=(Example("Go on", {"id": ID}), Example("With more", {"id": ID, "tokens": 1000000})),
)  # fmt: skip
async def resume(request: ResumeRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewState:
    """Let it go on."""
    return await node.crews(caller.project, caller.who).hold(
        request.id, resume=True, tokens=request.tokens, cost=request.cost
    )


class CancelRequest(CrewRequest):
    """Which orchestration, and why."""

    why: Text = Field(default="", description="a reason, kept with it")


@op(
    "crew.cancel", CancelRequest, crew_replies.CrewState, effect="write",
    cli=CliForm(("crew", "cancel"), positional=("id", "why"), rows="parts", columns=PARTS, below=BELOW),
    summary="Stop an orchestration and all below it.",
    help="Agents at work on its parts are told; results that are there stay.",
    examples=(Example("Stop it", {"id": ID, "why": "the plan was wrong"}),),
)  # fmt: skip
async def cancel(request: CancelRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewState:
    """Stop it."""
    return await node.crews(caller.project, caller.who).cancel(request.id, request.why, caller)


class RetryRequest(CrewRequest):
    """Which part."""

    part: PartId = Field(description="the part to be done again")


@op(
    "crew.retry", RetryRequest, crew_replies.CrewState, effect="write",
    cli=CliForm(("crew", "retry"), positional=("id", "part"), rows="parts", columns=PARTS, below=BELOW),
    summary="Do a part again, and those that depend on it.",
    help="What they need is taken over as it is. It may have failed, or its result may not be good enough.",
    examples=(Example("Once more", {"id": ID, "part": "db"}),),
)  # fmt: skip
async def retry(request: RetryRequest, node: NodeControl, caller: Caller) -> crew_replies.CrewState:
    """Begin it again."""
    return await node.crews(caller.project, caller.who).retry(request.id, request.part, caller)
