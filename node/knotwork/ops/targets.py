"""What may be asked about targets, the places where agents are started: list, test, switch, launch, stop."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from knotwork.ops import pages
from knotwork.ops import target_replies as replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Cursor
from knotwork.ops.words import Target, Token
from knotwork.sdk.errors import Invalid

COLUMNS = ("name", "type", "state", "running", "max_concurrent", "health", "capabilities", "why")


class TargetFilter(Request):
    """Which targets; all that is given must fit."""

    capability: Token | None = Field(default=None, description="only targets that start agents with this capability")
    state: replies.State | None = Field(default=None, description="only targets in this state")
    boundary: Token | None = Field(default=None, description="only targets for this data class")
    type: Token | None = Field(default=None, description="only targets of this plugin type")

    def fits(self, row: replies.TargetRow) -> bool:
        """Return whether a target is meant; one that names no capabilities or boundaries is for all of them."""
        return (
            (self.capability is None or not row.capabilities or self.capability in row.capabilities)
            and (self.boundary is None or not row.boundaries or self.boundary in row.boundaries)
            and self.state in (None, row.state)
            and self.type in (None, row.type)
        )


class TargetsRequest(TargetFilter):
    """Which targets, and how many."""

    limit: int = Field(default=1000, ge=1, le=10_000, description="at most so many")
    cursor: Cursor = Field(default="", description="go on behind the page before: its `next`")


@op(
    "targets.list", TargetsRequest, replies.TargetList, effect="read",
    cli=CliForm(("targets",), rows="targets", columns=COLUMNS),
    summary="List the targets of the project, on every node.",
    help="A target is a place where agents can be started: [targets.<id>] of a node's configuration.",
    examples=(Example("List them"), Example("Where can a reviewer be started?", {"capability": "code-review"})),
)  # fmt: skip
async def list_targets(request: TargetsRequest, node: NodeControl, caller: Caller) -> replies.TargetList:
    """Return the targets that fit."""
    desk = node.targets(caller.project, caller.who)
    rows = [row for row in desk.rows() if request.fits(row)]
    shown, following = pages.page(rows, lambda row: f"{row.target} {row.node}", request.cursor, request.limit)
    return replies.TargetList(targets=shown, next=following, missing=list(desk.missing()))


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


class SwitchRequest(TargetFilter):
    """Which targets: by name, or all that fit a filter."""

    targets: Annotated[list[Target], Field(max_length=1000)] = Field(default=[], description="targets, or node/target")
    all: bool = Field(default=False, description="every target, when no filter is given")


async def _switch(
    request: SwitchRequest, node: NodeControl, caller: Caller, *, disabled: bool
) -> replies.TargetsSwitched:
    desk = node.targets(caller.project)
    filtered = any((request.capability, request.state, request.boundary, request.type))
    if not (request.targets or filtered or request.all):
        raise Invalid(
            "Neither targets nor a filter is given.", code="spinup.filter_needed",
            hint="Name targets, give a filter such as a type or a boundary, or say all.",
        )  # fmt: skip
    # all that are named are there, or nothing is done
    before = [desk.row(name) for name in request.targets] or list(desk.rows())
    before = [row for row in before if request.fits(row)]
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
    examples=(Example("Disable one", {"targets": ["gpu-box"]}), Example("All of a kind", {"type": "docker"})),
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
