"""What does a node answer about memory? The reply models of the room `memory`, filled in by the host.

Times are RFC 3339 strings in UTC, empty for none.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from knotwork.ops.op import Reply
from knotwork.trust import scopes

Scope = scopes.Scope
Category = Literal["core", "longterm", "decisions", "architecture", "learnings", "recent", "tasks"]


class MemoryRow(Reply):
    """One memory: what its author said, to be read as that."""

    id: str
    scope: Scope
    category: Category
    content: str
    tags: list[str] = Field(default=[])
    priority: int = Field(default=2, description="1 (low) to 3 (high)")
    related: list[str] = Field(default=[], description="ids of other memories")
    source: str = ""
    author: str = Field(default="", description="handle of who wrote it, as its node says")
    author_id: str = ""
    owner: str = Field(default="", description="the person whose agent that is")
    project: str = Field(default="", description="where it was written")
    node: str = Field(default="", description="the node that took it in")
    created_at: str = ""
    updated_at: str = ""
    expires_at: str = ""
    version: int = 1
    origin: str = Field(default="", description="the memory it was made from; `import` when it came from a file")
    warnings: list[str] = Field(default=[], description="kinds of secrets that were seen in it")
    found_by: list[str] = Field(default=[], description="how a search found it: words, meaning")


class Remembered(Reply):
    """It is kept. With `duplicate_of` the same was remembered already, and that one was brought up to date instead."""

    id: str
    scope: Scope
    category: Category
    expires_at: str = ""
    duplicate_of: str = ""
    version: int = 1
    warnings: list[str] = Field(default=[], description="kinds of secrets that were seen in it")
    note: str = ""


class BulkError(Reply):
    """One of many that failed."""

    index: int
    id: str = ""
    code: str
    message: str


class RememberedAll(Reply):
    """What became of many; `ids` has one for each, empty where it failed."""

    stored: int
    failed: int
    ids: list[str]
    duplicates: int = 0
    errors: list[BulkError] = Field(default=[])


class MemoryCounts(Reply):
    """How many memories you may see in the scopes asked for; `expired` are over and about to go."""

    private: int = 0
    personal: int = 0
    team: int = 0
    public: int = 0
    total: int = 0
    returned: int = 0
    expired: int = 0


class Recalled(Reply):
    """What is remembered, by scope. `current` is false when a store did not answer: then something may be missing."""

    private: list[MemoryRow] = Field(default=[])
    personal: list[MemoryRow] = Field(default=[])
    team: list[MemoryRow] = Field(default=[])
    public: list[MemoryRow] = Field(default=[])
    summary: str = Field(default="", description="the most important of it, at most 4,096 bytes")
    counts: MemoryCounts
    next: str = Field(default="", description="cursor of the page that follows")
    current: bool = True
    notes: list[str] = Field(default=[])


class MemoryPage(Reply):
    """Memories, in order."""

    memories: list[MemoryRow]
    next: str = Field(default="", description="cursor of the page that follows")
    current: bool = True
    notes: list[str] = Field(default=[])


class Committed(Reply):
    """It is kept for good now."""

    id: str
    previous_category: Category
    previous_scope: Scope
    category: Category
    scope: Scope
    version: int
    duplicate_of: str = Field(default="", description="the memory that said so already, and got what this one adds")


class Shared(Reply):
    """Others know it now, as `id`."""

    id: str
    original: str
    scope: Scope
    category: Category
    original_deleted: bool
    duplicate_of: str = ""
    note: str = ""


class Forgotten(Reply):
    """It is gone; `revert` brings it back until `until`, empty when nothing does."""

    id: str
    deleted: bool = True
    scope: Scope
    category: Category
    until: str = ""


class ForgottenAll(Reply):
    """What became of many."""

    deleted: int
    failed: int
    errors: list[BulkError] = Field(default=[])


class MemoryVersion(Reply):
    """What a memory was, until somebody did `what` to it."""

    number: int
    content: str
    category: Category
    what: str
    by: str
    since: str
    until: str
    tags: list[str] = Field(default=[])
    priority: int = 2
    related: list[str] = Field(default=[])
    source: str = ""
    author: str = Field(default="", description="who wrote it")


class MemoryHistory(Reply):
    """A memory and what it was before, the newest last."""

    memory: MemoryRow
    forgotten: bool = False
    versions: list[MemoryVersion]


class Quarantined(Reply):
    """An author who is hidden in this project."""

    author_id: str
    author: str
    by: str
    at: str
    why: str = ""
    memories: int = 0


class Quarantines(Reply):
    """Whom this was about, and who is hidden now."""

    changed: list[Quarantined]
    hidden: list[Quarantined]


class Cleaned(Reply):
    """What a clean-up removed; what expires goes by itself."""

    expired: int
    deleted: int
    forgotten: int
    too_many: int
    errors: list[str] = Field(default=[])


class Exported(Reply):
    """What was written, on this node."""

    exported: int
    path: str
    bytes: int
    node: str


class LineError(Reply):
    """A line of a file that was not kept."""

    line: int
    message: str


class Imported(Reply):
    """What a file held."""

    imported: int
    duplicates: int
    skipped: int
    errors: list[LineError] = Field(default=[])


class CategoryCount(Reply):
    """How many there are of a scope and a category."""

    scope: Scope
    category: Category
    count: int
    expired: int = 0
    forgotten: int = 0


class MemoryStats(Reply):
    """What you may see, how full your core is, and where it is all kept."""

    total: int
    counts: list[CategoryCount]
    core_private: int
    core_personal: int
    core_max: int
    stores: dict[Scope, str] = Field(description="which memory plugin has a scope")
    index: dict[str, str] = Field(description="how this node's index stands, by store and project")
    commons: bool = Field(description="whether personal and public memories are shared by all projects")
    embeddings: str = Field(default="", description="which plugin makes vectors")
    with_vectors: int = 0
    quarantined: list[Quarantined] = Field(default=[])
    folders: list[str] = Field(default=[], description="where exports and imports may be")
    current: bool = True
