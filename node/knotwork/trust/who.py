"""Who asks, or who said something? Established by the node that took it in, never by the sender (pure)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["agent", "person"]
_OTHER = re.compile(r"[^a-z0-9_-]+")
_OWNER_MAX = 48


@dataclass(frozen=True, slots=True)
class Who:
    """An agent, or a person at a shell; `id` stays over restarts, `name` (an agent's handle) may change.

    `owner` is the person whose agent this is, the same over projects and machines; `parent` is the id of the agent
    that started this one, "" for those nobody started.
    """

    id: str
    name: str
    project: str
    owner: str
    kind: Kind = "agent"
    parent: str = ""
    node: str = ""


@functools.lru_cache(maxsize=256)
def owner_of(user: str) -> str:
    """Return the token that stands for a user of an operating system; "someone" for one without a usable name."""
    return _OTHER.sub("-", user.lower()).strip("-_")[:_OWNER_MAX] or "someone"


@functools.lru_cache(maxsize=256)
def person(owner: str, project: str, node: str = "") -> Who:
    """Return a person, as whom everybody counts who asks without a session."""
    return Who(f"person-{owner}", owner, project, owner, "person", node=node)


NOBODY = Who("person-someone", "someone", "default", "someone", "person")
"""Who asks where it does not matter who does."""
