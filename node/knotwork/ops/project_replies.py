"""What does a node answer about a project as a whole? Figures, and what happens in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol

from pydantic import Field

from knotwork.ops.op import Reply

Topic = Literal["work", "agents", "targets", "spinups", "stats"]
TOPICS: tuple[Topic, ...] = ("work", "agents", "targets", "spinups", "stats")


class Figures(Reply):
    """How much there is of everything; states that nothing is in are left out."""

    tasks: dict[str, int] = Field(default={}, description="tasks by state; empty while the view cannot count them")
    waiting: int = Field(default=0, description="tasks that wait for a worker")
    taken: int = Field(default=0, description="tasks that are with a worker")
    timers: int = Field(default=0, description="retries and deadlines that are to come")
    dead: int = Field(default=0, description="dead letters")
    missing: int = Field(default=0, description="tasks that wait and that no agent online can take")
    agents: dict[str, int] = Field(default={}, description="agents by the state of their node")
    nodes: dict[str, int] = Field(default={}, description="nodes by state")
    targets: dict[str, int] = Field(default={}, description="targets by state")
    launches: dict[str, int] = Field(default={}, description="launches that are not over, by state")


class ProjectStats(Figures):
    """The figures of one project; `why` says why there are none."""

    project: str
    why: str = ""


class ProjectList(Reply):
    """The projects of this node, and their figures added up."""

    projects: list[ProjectStats]
    totals: Figures


class Happening(Reply):
    """One thing that happened in a project. `id` tells it from others that the same node told."""

    id: str
    topic: Literal["feed", "work", "agents", "targets", "spinups", "stats"]
    what: str
    at: str
    data: dict[str, Any] = Field(default={})


class Happenings(Protocol):
    """What a node offers to those who want to know what happens; implemented by `host.feed.Feed`."""

    def watch(self, topics: frozenset[str], after: str) -> AsyncGenerator[Happening, None]:
        """Yield what happens from now on, for ever; first of all one that is called `opened`.

        The buffer behind it is bounded: a slow reader loses the oldest, and is told how many (`missed`).
        Raises `Busy` (`project.too_many_watchers`), and `Unavailable` when the node leaves the project.
        """
        ...
