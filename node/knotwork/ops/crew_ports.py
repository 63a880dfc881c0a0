"""What must a host offer so that the ops about orchestrations can be answered? One protocol, implemented by `host.crew`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.crew.records import How, Phase
    from knotwork.ops import crew_replies
    from knotwork.ops.op import Caller
    from knotwork.trust.scopes import Scope


@dataclass(frozen=True, slots=True)
class NewPart:
    """One part of a plan, as somebody wrote it."""

    id: str
    title: str = ""
    instructions: str = ""
    capability: str = ""
    agent: str = ""
    needs: tuple[str, ...] = ()
    acceptance: tuple[str, ...] = ()
    timeout_s: float = 3600.0
    attempts: int = 3


@dataclass(frozen=True, slots=True)
class Assessing:
    """A task to be split, and who may plan it. `capabilities` None: those that agents have now."""

    task: str
    capabilities: tuple[str, ...] | None = None
    default: str = ""
    parts_max: int = 20
    planner_capability: str = ""
    planner_agent: str = ""
    planner_wait_s: float = 60.0
    parent: str = ""
    key: str = ""
    scope: Scope = "team"


@dataclass(frozen=True, slots=True)
class Together:
    """How results become one."""

    how: How = "concatenate"
    capability: str = ""
    agent: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Spawning:
    """How a plan is carried out. 0 for time, tokens and cost: any amount."""

    parts: tuple[NewPart, ...] | None = None
    revision: int | None = None
    synthesis: Together = field(default_factory=Together)
    depth: int = 3
    children: int = 200
    time_s: float = 0.0
    tokens: int = 0
    cost: float = 0.0
    parallel: int = 0
    boundary: str = ""
    priority: int = 5


@dataclass(frozen=True, slots=True)
class Progressing:
    """What somebody says on the way."""

    part: str = ""
    phase: Phase | None = None
    percent: float | None = None
    text: str = ""
    tokens: int = 0
    cost: float = 0.0
    data: Any = None


class Crews(Protocol):
    """One project's orchestrations. Every method raises errors of `knotwork.sdk.errors`."""

    async def assess(self, wanted: Assessing, caller: Caller) -> crew_replies.CrewPlan:
        """Return a plan for a task."""
        ...

    async def plan(
        self, orchestration: str, parts: Sequence[NewPart] | None, revision: int | None, caller: Caller
    ) -> crew_replies.CrewPlan:
        """Return a plan, with other parts when there are some."""
        ...

    async def spawn(self, orchestration: str, how: Spawning, caller: Caller) -> crew_replies.CrewState:
        """Carry a plan out."""
        ...

    async def checkpoint(self, orchestration: str, said: Progressing, caller: Caller) -> crew_replies.Reported:
        """Keep what somebody says on the way."""
        ...

    async def listed(self, phases: frozenset[str], limit: int, cursor: str = "") -> crew_replies.CrewList:
        """Return orchestrations, the newest first."""
        ...

    async def results(self, orchestration: str, part: str) -> crew_replies.CrewResults:
        """Return what the parts gave so far."""
        ...

    async def synthesize(
        self, orchestration: str, how: Together, wait_s: float, caller: Caller
    ) -> crew_replies.CrewResult:
        """Put the results together."""
        ...

    async def state(self, orchestration: str) -> crew_replies.CrewState:
        """Return everything about one."""
        ...

    def watch(self, orchestration: str, timeout_s: float) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what happens to one until it is over."""
        ...

    async def hold(
        self, orchestration: str, *, resume: bool, tokens: int | None = None, cost: float | None = None
    ) -> crew_replies.CrewState:
        """Begin no more parts, or begin them again."""
        ...

    async def cancel(self, orchestration: str, why: str, caller: Caller) -> crew_replies.CrewState:
        """Stop one."""
        ...

    async def retry(self, orchestration: str, part: str, caller: Caller) -> crew_replies.CrewState:
        """Do a part again."""
        ...
