"""What may whoever holds a step ask beside its own work? To have runs and tasks started, under the budget of the step."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from knotwork.ops import flow_replies
from knotwork.ops.claims import SHOWN, HeldRequest
from knotwork.ops.flow_ports import NewRun
from knotwork.ops.op import Caller, CliForm, Example, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Key
from knotwork.ops.words import Token


class SpawnRequest(HeldRequest):
    """Which task of yours, and what to start."""

    workflow: Token | None = Field(default=None, description="a run of this workflow")
    capability: Token | None = Field(default=None, description="or a task for an agent with this capability")
    input: Any = Field(default=None, description="any JSON value")
    key: Key = Field(default="", description="idempotency key: asked again, by the next attempt too, it is the same")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.workflow is None) == (self.capability is None):
            msg = "name a workflow or a capability, one of the two"
            raise ValueError(msg)
        return self


@op(
    "work.spawn", SpawnRequest, flow_replies.Spawned, effect="write",
    cli=CliForm(("work", "spawn"), positional=("claim", "input")),
    summary="Start a run or a task from a step that you hold.",
    help="Only what the step grants, and as often, as deep and for as long. It is a child of the run, and ends with it.",
    examples=(
        Example("One more piece", {"claim": SHOWN, "workflow": "piece", "input": {"n": 7}, "key": "7"}),
        Example("Have somebody look", {"claim": SHOWN, "capability": "review"}),
    ),
)  # fmt: skip
async def spawn(request: SpawnRequest, node: NodeControl, caller: Caller) -> flow_replies.Spawned:
    """Start it."""
    wanted = NewRun(request.workflow or "", request.input, request.key)
    flows = node.flows(caller.project)
    return await flows.spawn(request.claim, request.id or "", wanted, request.capability or "")


@op(
    "work.children", HeldRequest, flow_replies.Children, effect="read",
    cli=CliForm(("work", "children"), positional=("claim",), rows="children", columns=("step", "what", "run", "state")),
    summary="Show what was started from a step that you hold.",
    help="With what it gave, when it is over. `run await` waits for a run.",
    examples=(Example("How far are they?", {"claim": SHOWN}),),
)  # fmt: skip
async def children(request: HeldRequest, node: NodeControl, caller: Caller) -> flow_replies.Children:
    """Return them."""
    return await node.flows(caller.project).children(request.claim, request.id or "")
