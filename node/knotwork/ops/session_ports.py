"""What must a host offer so that agents have sessions?"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.ops import replies, session_replies
    from knotwork.trust.who import Who


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An agent that asks for a session. `host`, `path` and `label` (and its project) are what it is known by.

    `parent` is the parent key of the agent that started it.
    """

    host: str
    path: str
    label: str
    type: str = "agent"
    handle: str = ""
    description: str = ""
    capabilities: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
    parent: str = ""
    take_over: bool = False
    max_tasks: int = 16


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which agents are meant; empty fields mean any. Offline ones only when asked for."""

    type: str = ""
    capability: str = ""
    host: str = ""
    project: str = ""
    scope: str = ""
    status: str = ""
    parent: str = ""
    offline: bool = False
    limit: int = 100
    cursor: str = ""


class Sessions(Protocol):
    """The agents of one project that came in from outside."""

    def open(self, newcomer: Newcomer, caller: Who) -> AsyncGenerator[replies.Chunk, None]:
        """Open a session for as long as the generator is; the first piece has its id, handle and secret.

        Raises `Conflict` (`session.open`, `session.handle_taken`), `NotFound` (`agent.not_found`) for a parent that
        was forgotten, `Denied` (`session.bad_parent`), and `Unavailable` (`bus.disconnected`) when the node leaves
        the project.
        """
        ...

    async def update(self, who: Who, changes: dict[str, Any]) -> session_replies.SessionRow:
        """Change what an agent says of itself; raises `Denied` (`session.unknown`), `Conflict`."""
        ...

    async def close(self, who: Who) -> None:
        """End an agent's session."""
        ...

    async def list(self, wanted: SessionFilter, by: Who) -> session_replies.SessionList:
        """Return a page of the agents that `by` may see, by handle, with the fields that `by` may see."""
        ...

    async def get(self, name: str, by: Who) -> session_replies.SessionRow:
        """Return one by id or handle; raises `NotFound` (`agent.not_found`), also for one that may not be seen."""
        ...
