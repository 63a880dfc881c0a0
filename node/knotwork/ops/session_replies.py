"""What is answered about agents that came in from outside?"""

from __future__ import annotations

from knotwork.ops.op import Reply
from knotwork.trust.scopes import Scope


class SessionRow(Reply):
    """One agent. What the asker may not see is empty: `host` and `path` of another project, the owner of others.

    `parent_key` is shown by `session.get` to itself alone, to be handed to the sub-agents that it starts.
    """

    id: str
    handle: str
    type: str
    status: str
    capabilities: list[str]
    boundaries: list[str]
    description: str = ""
    scope: Scope = "team"
    tasks: int = 0
    registered: bool = False
    project: str = ""
    owner: str = ""
    node: str = ""
    host: str = ""
    path: str = ""
    label: str = ""
    parent: str = ""
    parent_key: str = ""
    registered_at: str = ""
    seen_at: str = ""
    me: bool = False


class SessionList(Reply):
    """Agents, by handle."""

    agents: list[SessionRow]
    total: int
    next: str = ""


class SessionOver(Reply):
    """A session that is over, and why."""

    id: str
    why: str = ""


class Closed(Reply):
    """Whose session was ended."""

    id: str
