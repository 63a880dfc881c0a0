"""Which words may stand in requests about memory? Scopes, categories, content, tags; the rules are the room's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from knotwork.memory.rules import Draft
from knotwork.ops.memory_replies import Category, Scope
from knotwork.ops.op import Request
from knotwork.ops.words import NAMED

_ID = r"[a-z0-9][a-z0-9-]{0,63}"
NAMED |= {f"^{_ID}$": ("not the id of a memory", "Ids are what remember, recall and search answer with.")}
MemoryId = Annotated[str, StringConstraints(pattern=f"^{_ID}$", max_length=64)]
Content = Annotated[str, StringConstraints(max_length=1024 * 1024)]
"""Longer than it may be: the room says how many bytes it has."""
Short = Annotated[str, StringConstraints(max_length=1024)]
Shorts = Annotated[list[Short], Field(max_length=256)]
Ttl = Annotated[int, Field(ge=1, le=366 * 86400)]


class DraftFields(Request):
    """What is to be remembered."""

    content: Content = Field(description="what to remember, at most 32,768 bytes")
    scope: Scope = Field(
        default="private",
        description="who may see it: you alone, all agents of your owner, your project's team, everybody",
    )
    category: Category | None = Field(
        default=None,
        description="private and personal: recent (default), tasks, longterm, core; team and public: decisions, "
        "architecture, learnings (default)",
    )
    tags: Shorts = Field(default=[], description="to find it by: at most 10 of at most 50 characters")
    priority: int = Field(default=2, description="1 (low), 2 or 3 (high)")
    related: Shorts = Field(default=[], description="ids of other memories that belong to it")
    source: Short = Field(default="", description="where you have it from: a file, an address, a commit")
    ttl_s: Ttl | None = Field(
        default=None, description="seconds after which it is gone; recent and tasks: a day when left out"
    )

    def draft(self) -> Draft:
        """Return it for the room."""
        return Draft(
            self.content, self.scope, self.category, tuple(self.tags), self.priority, tuple(self.related), self.source,
            self.ttl_s, frozenset(self.model_fields_set),
        )  # fmt: skip
