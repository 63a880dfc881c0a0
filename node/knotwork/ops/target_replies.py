"""What do targets and launches look like to those who ask? And what a host must offer to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from knotwork.ops.op import Reply

if TYPE_CHECKING:
    from knotwork.ops.op import Caller


State = Literal["available", "in-use", "disabled", "unhealthy", "cooling-down"]


class TargetRow(Reply):
    """One target."""

    name: str = Field(description="node/target")
    target: str
    node: str
    type: str
    state: State
    why: str = ""
    capabilities: list[str] = Field(default=[])
    boundaries: list[str] = Field(default=[])
    cost: float = 0.0
    running: int = 0
    max_concurrent: int = 1
    launches: int = 0
    failures: int = 0
    health: str = "unknown"
    checked_at: str = ""
    last_launch_at: str = ""
    last_success_at: str = ""


class TargetList(Reply):
    """The targets of the project, and what is missing now. `next` is the cursor of the following page."""

    targets: list[TargetRow]
    next: str = ""
    missing: list[dict[str, Any]] = Field(default=[], description="demand that no agent online can take")


class LaunchRow(Reply):
    """One start of an agent."""

    id: str
    target: str
    node: str
    state: str
    agent: str = ""
    capability: str = ""
    boundary: str = ""
    task: str = ""
    by: str = ""
    why: str = ""
    created_at: str = ""
    registered_at: str = ""
    ended_at: str = ""


class LaunchList(Reply):
    """Launches, the newest first."""

    launches: list[LaunchRow]


class TargetsSwitched(Reply):
    """What a batch did."""

    changed: list[TargetRow]
    already: list[str] = Field(default=[])


class Targets(Protocol):
    """Targets and launches of one project."""

    def rows(self) -> Sequence[TargetRow]:
        """Return every target of every node, by name."""
        ...

    def missing(self) -> Sequence[dict[str, Any]]:
        """Return the demand that nobody can take, with why no target serves it; what one may not see is left out."""
        ...

    def row(self, name: str) -> TargetRow:
        """Return one target; raises `NotFound` (`spinup.no_target`), `Conflict`."""
        ...

    def launches(self, *, ended: bool) -> Sequence[LaunchRow]:
        """Return the launches, newest first; with `ended` those of the last day that are over, too."""
        ...

    async def test(self, name: str) -> TargetRow:
        """Probe a target now, by its own node."""
        ...

    async def switch(self, name: str, *, disabled: bool) -> TargetRow:
        """Disable or enable a target at run time."""
        ...

    async def spin_up(self, name: str, capability: str, boundary: str, caller: Caller) -> LaunchRow:
        """Start an agent at a target by hand, by its own node; raises `Conflict` (`spinup.not_now`)."""
        ...

    async def stop(self, launch: str) -> LaunchRow:
        """End a launch; returns when it is gone. Raises `NotFound` (`spinup.no_launch`)."""
        ...
