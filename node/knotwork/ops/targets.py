"""What may be asked about targets, the places where agents are started: list, test, switch, launch, stop."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from knotwork.ops import target_replies as replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.words import Target, Token

COLUMNS = ("name", "type", "state", "running", "max_concurrent", "health", "capabilities", "why")


class TargetsRequest(Request):
    """Which targets."""

    capability: Token | None = Field(default=None, description="only targets that start agents with this capability")
    state: str | None = Field(default=None, max_length=32, description="only targets in this state")


@op(
    "targets.list", TargetsRequest, replies.TargetList, effect="read",
    cli=CliForm(("targets",), rows="targets", columns=COLUMNS),
    summary="List the targets of the project, on every node.",
    help="A target is a place where agents can be started: [targets.<id>] of a node's configuration.",
    examples=(Example("List them"), Example("Where can a reviewer be started?", {"capability": "code-review"})),
)  # fmt: skip
async def list_targets(request: TargetsRequest, node: NodeControl, caller: Caller) -> replies.TargetList:
    """Return the targets that fit."""
    desk = node.targets(caller.project)
    rows = [
        row
        for row in desk.rows()
        if (request.capability is None or not row.capabilities or request.capability in row.capabilities)
        and request.state in (None, row.state)
    ]
    return replies.TargetList(targets=rows, missing=list(desk.missing()))


class TargetRequest(Request):
    """Which target."""

    target: Target = Field(description="target, or node/target")


@op(
    "targets.show", TargetRequest, replies.TargetRow, effect="read",
    cli=CliForm(("targets", "show"), positional=("target",)),
    summary="Show one target.", help="Its state, health, and how its launches went.",
    examples=(Example("Show one", {"target": "gpu-box"}),),
)  # fmt: skip
async def show(request: TargetRequest, node: NodeControl, caller: Caller) -> replies.TargetRow:
    """Return one target."""
    return node.targets(caller.project).row(request.target)


@op(
    "targets.test", TargetRequest, replies.TargetRow, effect="write",
    cli=CliForm(("targets", "test"), positional=("target",)),
    summary="Find out whether a target can be reached; nothing is launched.",
    help="Asked of the node that has the target. A target that fails is left out until it is well again.",
    examples=(Example("Test one", {"target": "gpu-box"}),),
)  # fmt: skip
async def test(request: TargetRequest, node: NodeControl, caller: Caller) -> replies.TargetRow:
    """Probe a target."""
    return await node.targets(caller.project).test(request.target)


class SwitchRequest(Request):
    """Which targets."""

    targets: Annotated[list[Target], Field(min_length=1, max_length=1000)] = Field(
        description="targets, or node/target"
    )


async def _switch(
    request: SwitchRequest, node: NodeControl, caller: Caller, *, disabled: bool
) -> replies.TargetsSwitched:
    desk = node.targets(caller.project)
    before = [desk.row(name) for name in request.targets]  # all are there, or nothing is done
    changed, already = [], []
    for row in before:
        if (row.state == "disabled") == disabled:
            already.append(row.name)
        else:
            changed.append(await desk.switch(row.name, disabled=disabled))
    return replies.TargetsSwitched(changed=changed, already=already)


@op(
    "targets.disable", SwitchRequest, replies.TargetsSwitched, effect="admin",
    cli=CliForm(("targets", "disable"), positional=("targets",)),
    summary="Start nothing there any more; what runs goes on.", help="It stays so over restarts. Undo: targets enable.",
    examples=(Example("Disable one", {"targets": ["gpu-box"]}),),
)  # fmt: skip
async def disable(request: SwitchRequest, node: NodeControl, caller: Caller) -> replies.TargetsSwitched:
    """Disable targets."""
    return await _switch(request, node, caller, disabled=True)


@op(
    "targets.enable", SwitchRequest, replies.TargetsSwitched, effect="admin",
    cli=CliForm(("targets", "enable"), positional=("targets",)),
    summary="Let agents be started there again.", help="Takes `targets disable` back.",
    examples=(Example("Enable one", {"targets": ["gpu-box"]}),),
)  # fmt: skip
async def enable(request: SwitchRequest, node: NodeControl, caller: Caller) -> replies.TargetsSwitched:
    """Enable targets."""
    return await _switch(request, node, caller, disabled=False)


class SpinUpRequest(Request):
    """Where to start an agent."""

    target: Target = Field(description="target, or node/target")
    capability: Token | None = Field(default=None, description="what the agent is started for")
    boundary: Token | None = Field(default=None, description="data class it is started for")


@op(
    "targets.spin_up", SpinUpRequest, replies.LaunchRow, effect="admin",
    cli=CliForm(("targets", "spin-up"), positional=("target",)),
    summary="Start an agent at a target now.",
    help="Returns when it was started; `knotwork launches` shows when its agent has registered.",
    examples=(Example("Start one", {"target": "gpu-box"}),),
)  # fmt: skip
async def spin_up(request: SpinUpRequest, node: NodeControl, caller: Caller) -> replies.LaunchRow:
    """Start an agent by hand."""
    desk = node.targets(caller.project)
    return await desk.spin_up(request.target, request.capability or "", request.boundary or "", caller)


class LaunchesRequest(Request):
    """Which launches."""

    target: Token | None = Field(default=None, description="only launches of this target")
    all: bool = Field(default=False, description="also those of the last day that are over")


@op(
    "targets.launches", LaunchesRequest, replies.LaunchList, effect="read",
    cli=CliForm(("launches",), rows="launches", columns=("id", "target", "state", "agent", "capability", "task", "why")),
    summary="List what targets have started.",
    help="A launch is starting until its agent has registered, then up or idle, and stopping or failed at the end.",
    examples=(Example("What runs?"), Example("What ran today?", {"all": True})),
)  # fmt: skip
async def launches(request: LaunchesRequest, node: NodeControl, caller: Caller) -> replies.LaunchList:
    """Return the launches that fit."""
    rows = node.targets(caller.project).launches(ended=request.all)
    return replies.LaunchList(launches=[row for row in rows if request.target in (None, row.target)])


class LaunchRequest(Request):
    """Which launch."""

    id: Token = Field(description="id of the launch")


@op(
    "targets.stop", LaunchRequest, replies.LaunchRow, effect="admin",
    cli=CliForm(("launches", "stop"), positional=("id",)),
    summary="End a launch: its agent finishes, then it is stopped.",
    help="Returns when the process, job, run or container is gone.",
    examples=(Example("End one", {"id": "0123456789abcdef"}),),
)  # fmt: skip
async def stop(request: LaunchRequest, node: NodeControl, caller: Caller) -> replies.LaunchRow:
    """End a launch."""
    return await node.targets(caller.project).stop(request.id)
