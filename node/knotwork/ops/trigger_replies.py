"""What does a node answer about triggers? The reply models of the room `trigger`.

Times are RFC 3339 strings in UTC, empty when it has not happened.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from knotwork.ops.op import Reply

What = Literal["started", "skipped", "failed"]


class TriggerRow(Reply):
    """One trigger, in short."""

    id: str
    kind: str
    workflow: str
    enabled: bool = True
    fires: str = Field(default="", description="at what, or for what: times, a subject, a path")
    next_at: str = ""
    last_at: str = ""
    fired: int = Field(default=0, description="how many runs it started")
    node: str = Field(
        default="",
        description="`here` when this node sees to it; of a plugin's, else the node that listens; empty: another",
    )


class TriggerList(Reply):
    """Triggers, by id."""

    triggers: list[TriggerRow]


class RestingRow(Reply):
    """One node that leaves a trigger to others: until when, and why."""

    node: str
    until: str
    why: str


class TriggerInfo(TriggerRow):
    """One trigger, whole; a secret is its reference."""

    definition: dict[str, Any] = Field(default={})
    by: str = ""
    since: str = Field(default="", description="what came before is none of its business")
    pending: list[str] = Field(default=[], description="what is decided and not started yet")
    runs: list[str] = Field(default=[], description="runs that it watches, because others may be in their way")
    why: str = Field(default="", description="what keeps it from firing, as far as the node that is asked can tell")
    resting: list[RestingRow] = Field(
        default=[], description="nodes that leave it to others for a while, because its plugin kept failing there"
    )


class Kept(Reply):
    """A trigger that is kept."""

    id: str
    kind: str
    new: bool
    next_at: str = ""
    address: str = Field(default="", description="where requests to it go")


class Gone(Reply):
    """Whether a trigger was removed."""

    id: str
    removed: bool


class Trial(Reply):
    """When a trigger would fire, and what a run would be given."""

    times: list[str] = Field(default=[])
    fires: str = Field(default="", description="when it fires, in words, if that is not at times")
    meant: bool | None = Field(default=None, description="whether its filter lets the body pass")
    input: Any = None


class FiredRun(Reply):
    """What came of a firing."""

    run: str = ""
    new: bool = True
    due_at: str = ""
    why: str = ""


class FiringRow(Reply):
    """One firing."""

    at: str
    what: What
    due_at: str = ""
    run: str = ""
    node: str = ""
    why: str = ""
    key: str = ""


class Firings(Reply):
    """The last firings of a trigger, the newest first."""

    id: str
    firings: list[FiringRow]


class Backfilled(Reply):
    """What was made up for."""

    id: str
    dry_run: bool
    more: bool = Field(default=False, description="there were more times than the cap; these are the last")
    runs: list[FiredRun]
