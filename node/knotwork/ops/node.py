"""What may be asked of one node: how it is, to reload, to drain, to stop, what happens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from knotwork.ops import endless, replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.words import EventName

Seconds = Annotated[float, Field(ge=0, le=86400)]


class Nothing(Request):
    """No fields."""


@op(
    "node.status", Nothing, replies.NodeStatus, effect="read", cli=CliForm(("status",)),
    summary="Show what the node is doing.",
    help="Version, state, projects, NATS, the last reload, work in flight and every plugin instance with its reason.",
    examples=(Example("See how the node is"),),
)  # fmt: skip
async def status(_: Nothing, node: NodeControl, __: Caller) -> replies.NodeStatus:
    """Return the node's status."""
    return await node.status()


@op(
    "node.health", Nothing, replies.NodeHealth, effect="read",
    cli=CliForm(("health",), rows="checks", columns=("name", "ok", "why")),
    summary="Say whether the node is alive and ready for work.",
    help="The same checks as `GET /readyz`. An answer means alive; `ready` is false while it starts, drains or stops. "
    "A check that is not `ok` and not `needed` is a warning: a store that lets nothing new in, say.",
    examples=(Example("See whether the node is ready"),),
)  # fmt: skip
async def health(_: Nothing, node: NodeControl, __: Caller) -> replies.NodeHealth:
    """Return the node's health."""
    return await node.health()


@op(
    "node.reload", Nothing, replies.ReloadVerdict, effect="admin", cli=CliForm(("reload",)),
    summary="Read the configuration again and put it into force.",
    help="New instances are started and probed beside the old ones, then swapped in one step; old work is drained. "
    "A configuration that is wrong anywhere changes nothing: exit code 78, with every problem named.",
    examples=(Example("Reload after editing knotwork.toml"),),
)  # fmt: skip
async def reload(_: Nothing, node: NodeControl, __: Caller) -> replies.ReloadVerdict:
    """Reload; raises `ConfigInvalid` when refused."""
    return await node.reload()


class DrainRequest(Request):
    """How to drain."""

    deadline_s: Seconds | None = Field(default=None, description="seconds until running work is stopped; node.drain_s")
    resume: bool = Field(default=False, description="take work again instead")


@op(
    "node.drain", DrainRequest, replies.Draining, effect="admin", cli=CliForm(("drain",)),
    summary="Take no new work, finish what runs, stay up.",
    help="The node leaves routing at once on every machine. `--resume` brings it back.",
    examples=(Example("Drain for at most a minute", {"deadline_s": 60}), Example("Take work again", {"resume": True})),
)  # fmt: skip
async def drain(request: DrainRequest, node: NodeControl, _: Caller) -> replies.Draining:
    """Begin or end a drain."""
    return await node.drain(request.deadline_s, resume=request.resume)


class StopRequest(Request):
    """How to stop."""

    drain_s: Seconds | None = Field(default=None, description="seconds running work may take to finish; node.drain_s")
    now: bool = Field(default=False, description="do not wait for running work")


@op(
    "node.stop", StopRequest, replies.Stopping, effect="admin", cli=CliForm(("stop",)),
    summary="Drain and stop the node.",
    help="On the node's own machine the command returns when the process is gone.",
    examples=(Example("Stop, and wait until it is gone"), Example("Stop without waiting for work", {"now": True})),
)  # fmt: skip
async def stop(request: StopRequest, node: NodeControl, _: Caller) -> replies.Stopping:
    """Begin to stop."""
    return await node.stop(0.0 if request.now else request.drain_s)


class EventsRequest(Request):
    """Which events, and how many."""

    names: Annotated[list[EventName], Field(max_length=64)] = Field(
        default=[], description="whole names or `room.*`; all when empty"
    )
    limit: int = Field(default=0, ge=0, le=1_000_000, description="end after so many events; 0 never ends")
    wait_s: Seconds = Field(default=0.0, description="end after so many seconds; 0 never ends")


@op(
    "node.events", EventsRequest, replies.EventsEnd, effect="read", streams=True, live=True,
    cli=CliForm(("events",), positional=("names",), columns=("at", "level", "name", "data")),
    summary="Show what happens, as it happens.",
    help="Events of this node from now on. A reader that is too slow is told how many it missed.",
    examples=(Example("Watch reloads", {"names": ["config.*"]}), Example("Wait for one event", {"limit": 1})),
)  # fmt: skip
def events(request: EventsRequest, node: NodeControl, caller: Caller) -> endless.Pieces:
    """Return events as chunks, then how many there were."""
    rows = node.events(request.names, caller.project)
    missed = lambda row: row.name == "telemetry.dropped"  # noqa: E731  a word for it
    return endless.told(rows, missed, limit=request.limit, wait_s=request.wait_s)
