"""What does a node answer about the view of the past? The reply models, and what a host must offer to fill them in."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import Field

from knotwork.ops.op import Reply


class SqlReply(Reply):
    """What a query found."""

    columns: list[str]
    rows: list[dict[str, Any]]
    truncated: bool = Field(default=False, description="there was more than may be told")
    took_s: float = 0.0


class ViewStatus(Reply):
    """How the view of one project stands."""

    project: str
    state: Literal["starting", "reading", "live", "waiting"] = Field(description="waiting: see why; it is tried again")
    why: str = ""
    behind: int = Field(default=0, description="messages that are not read yet")
    behind_s: float = Field(default=0.0, description="how old the view is, in seconds; -1: it never was up to date")
    folded: int = Field(default=0, description="messages read since its process began")
    garbage: int = Field(default=0, description="those of them that none of ours wrote; they are passed over")
    made: int = Field(default=0, description="how often the file was made anew since its process began")
    places: dict[str, int] = Field(default={}, description="up to where each stream was read")
    tasks: int = 0
    file: str = ""
    size_bytes: int = 0
    pid: int = Field(default=0, description="its process, 0 while there is none")
    starts: int = Field(default=0, description="how often that process was started")


class Rebuilding(Reply):
    """The file is made anew."""

    project: str


class PastView(Protocol):
    """One project's view of the past; implemented by `host.view.ViewDesk`."""

    async def sql(self, query: str, *, limit: int, timeout_s: float) -> SqlReply:
        """Return what a query finds; raises `Invalid` (`view.bad_sql`), `TimedOut`, `Busy`, `Unavailable`."""
        ...

    async def status(self) -> ViewStatus:
        """Return how it stands; never waits for it."""
        ...

    async def rebuild(self) -> Rebuilding:
        """Begin to read everything again; returns at once."""
        ...
