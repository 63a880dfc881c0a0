"""What does a node answer about orchestrations? The reply models of the room `crew`.

Times are RFC 3339 strings in UTC, empty when it has not happened; durations are seconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from knotwork.crew.records import Phase
from knotwork.ops.op import Reply
from knotwork.ops.task_replies import TaskError
from knotwork.trust.scopes import Scope

PartStateName = Literal["planned", "waiting", "queued", "running", "completed", "failed", "skipped", "cancelled"]


class PlannedPart(Reply):
    """What one sub-agent is to do."""

    id: str
    title: str = ""
    instructions: str = ""
    capability: str = ""
    agent: str = ""
    needs: list[str] = Field(default=[], description="parts whose results it is given")
    acceptance: list[str] = Field(default=[])
    timeout_s: float = 0.0
    attempts: int = 0
    why: str = Field(default="", description="why it has this capability")


class Complexity(Reply):
    """How big a task seems."""

    level: Literal["trivial", "simple", "moderate", "complex", "very-complex"]
    score: int
    reasons: list[str] = Field(default=[])
    split: bool = Field(default=False, description="whether several should do it")


class CrewPlan(Reply):
    """A plan that can be looked at, edited and spawned."""

    id: str = Field(description="of the orchestration: give it to the other ops")
    phase: Phase
    revision: int = Field(description="of the plan; say it when you edit, so that nobody's change is lost")
    parts: list[PlannedPart]
    groups: list[list[str]] = Field(description="parts of one group can be done side by side, after the groups before")
    order: str = Field(default="", description="the groups in one line: [db+api] → [ui+tests]")
    complexity: Complexity
    planned_by: str = Field(default="rules", description="rules, or who planned it")
    notes: list[str] = Field(default=[], description="what is to be said about the plan")
    scope: Scope = "team"
    parent: str = ""
    task: str = ""
    created_at: str = ""


class PartState(Reply):
    """One part as it is."""

    id: str
    title: str = ""
    state: PartStateName
    capability: str = ""
    agent: str = Field(default="", description="who does it, or did")
    node: str = ""
    percent: float = 0.0
    text: str = Field(default="", description="what was said of it last")
    attempt: int = 0
    needs: list[str] = Field(default=[])
    run: str = ""
    begun_at: str = ""
    ended_at: str = ""
    tokens: int = 0
    cost: float = 0.0
    error: TaskError | None = None


class Allowance(Reply):
    """What it may use; 0 for time, tokens and cost: any amount."""

    depth: int
    children: int
    time_s: float
    tokens: int
    cost: float


class Used(Reply):
    """What it used so far, with all below it."""

    children: int = 0
    time_s: float = 0.0
    tokens: int = 0
    cost: float = 0.0


class CrewNote(Reply):
    """What somebody said on the way."""

    at: str
    by: str = ""
    text: str = ""
    part: str = ""
    phase: str = ""


class CrewState(Reply):
    """Everything about one orchestration."""

    id: str
    phase: Phase
    percent: float
    parts: list[PartState]
    order: str = ""
    held: Literal["", "asked", "budget"] = Field(default="", description="why it begins no more parts")
    why: str = ""
    task: str = ""
    synthesis: str = Field(default="", description="how its results become one")
    synthesizer: PartState | None = None
    budget: Allowance
    used: Used
    scope: Scope = "team"
    parent: str = ""
    below: list[str] = Field(default=[], description="orchestrations below it")
    runs: list[str] = Field(default=[])
    by: str = ""
    node: str = ""
    notes: list[CrewNote] = Field(default=[])
    error: TaskError | None = None
    created_at: str = ""
    spawned_at: str = ""
    ended_at: str = ""
    new: bool = Field(default=True, description="of spawn: false when it was spawned before")
    already: bool = Field(default=False, description="of spawn: it was spawned before, with the budget shown")


class CrewRow(Reply):
    """One orchestration, in short."""

    id: str
    phase: Phase
    percent: float
    done: int
    parts: int
    task: str = ""
    by: str = ""
    held: str = ""
    scope: Scope = "team"
    parent: str = ""
    created_at: str = ""
    ended_at: str = ""


class CrewList(Reply):
    """Orchestrations, the newest first."""

    orchestrations: list[CrewRow]
    next: str = Field(default="", description="cursor of the page that follows, if any")


class PartResult(Reply):
    """What one part gave."""

    id: str
    title: str = ""
    state: PartStateName
    agent: str = ""
    output: Any = None
    blob: str = Field(default="", description="digest of a large output (`blob.get`)")
    error: TaskError | None = None


class Contradiction(Reply):
    """Parts that say different things of the same."""

    path: str
    values: list[dict[str, Any]]
    chosen: str = Field(description="the part whose word stands")
    why: str = ""


class CrewResult(Reply):
    """What the results add up to."""

    id: str
    phase: Phase
    how: str = ""
    ready: bool = Field(default=True, description="false while an agent puts it together, or nothing did yet")
    why: str = Field(default="", description="why it is not ready, such as that nobody has the capability")
    output: Any = None
    blob: str = Field(default="", description="digest of a large output (`blob.get`)")
    conflicts: list[Contradiction] = Field(default=[])
    missing: list[str] = Field(default=[], description="parts whose results are not in it")
    by: str = ""
    at: str = ""


class CrewResults(Reply):
    """What all parts gave so far, and what it adds up to."""

    id: str
    phase: Phase
    complete: bool = Field(description="whether every part is done")
    parts: list[PartResult]
    result: CrewResult | None = None


class Reported(Reply):
    """A checkpoint that is kept, and whether to go on."""

    id: str
    phase: Phase
    percent: float
    part: str = ""
    state: str = Field(default="", description="of the part")
    go_on: bool = Field(default=True, description="false: it was stopped, paused, or its budget is spent")
    why: str = ""
