"""What does a node answer to agents that claim work? The reply models of the room `work`, filled in by the host.

Times are RFC 3339 strings in UTC, empty for none; durations are seconds.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from knotwork.ops.op import Reply


class ClaimedTask(Reply):
    """One task, yours until its lease is over."""

    id: str
    step: str = Field(default="", description="which step of the run `id` it is; empty for a task of its own")
    claim: str = Field(description="what you show for it: send it back whole and unchanged, to any node")
    input: Any = None
    input_blob: str = Field(default="", description="digest of an input that is too large to stand here: `blob.get`")
    capability: str = ""
    boundary: str = Field(default="", description="data class of the work")
    priority: int = 5
    attempt: int = Field(default=1, description="1 for the first try")
    iteration: int = Field(default=0, description="how often it was continued")
    key: str = Field(default="", description="the same for every attempt of the same work")
    checkpoint: Any = Field(default=None, description="what an attempt before this one left")
    lease_s: float = Field(description="it goes to somebody else when you are silent for so long")
    deadline: str = Field(default="", description="when this attempt must have ended")
    labels: dict[str, str] = Field(default={})
    parent: str = ""
    by: str = Field(default="", description="who submitted it")
    traceparent: str = ""


class ClaimedTasks(Reply):
    """What there was for you."""

    tasks: list[ClaimedTask]
    why: str = Field(default="", description="why you got none whatever waits; empty when there was none")


class ClaimedPage(ClaimedTasks):
    """What you hold, the oldest first."""

    next: str = Field(default="", description="`cursor` of the page that follows; empty for none")


class Held(Reply):
    """The task is still yours."""

    id: str
    lease_s: float = 0.0
    until: str = Field(default="", description="when the lease is over, unless it is extended")


class Checkpoint(Reply):
    """What is kept for this task; null when nothing is."""

    id: str
    data: Any = None


class Settled(Reply):
    """How the attempt ended. `waiting`: another attempt follows at `due_at`; `continued`: the next iteration does."""

    id: str
    state: str
    due_at: str = ""
    already: bool = Field(default=False, description="the same was said before: it counts once")


class Released(Reply):
    """The task is somebody else's now."""

    id: str


class Signalled(Reply):
    """The signal is on record."""

    id: str
    name: str
    already: bool = Field(default=False, description="the same was sent before: it counts once")


class SignalRow(Reply):
    """A signal that was sent, or that none was until now (`sent` is false)."""

    id: str
    name: str
    sent: bool
    data: Any = None
    by: str = ""
    at: str = ""


class Parted(Reply):
    """The end of a connection."""

    worker: str
    notices: int = 0
