"""What may be said of memory? Where each scope is kept, and what becomes of twins, secrets and what passes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from knotwork.config.written import TOKEN_PATTERN, Seconds, Table, Token, Whole, Word

BUNDLED_MEMORIES = ("kv", "sqlite")
"""Memory plugins that need no table of their own."""
SCOPES = ("private", "personal", "team", "public")
"""The keys that name which plugin keeps a scope."""


class MemoryTable(Table):
    """What agents remember: where it is kept, and what may be."""

    private: Token = Field(default="kv", description="id of [memories.*] that keeps what an agent has for itself")
    personal: Token = Field(default="kv", description="the same for what all agents of one owner share")
    team: Token = Field(default="kv", description="the same for what all of a project see")
    public: Token = Field(default="kv", description="the same for what everybody sees; kv and sqlite need no table")
    recent_s: Seconds = Field(
        default=86400.0, ge=1, le=366 * 86400, description="seconds that recent things and tasks are kept"
    )
    undo_s: Seconds = Field(
        default=604800.0, ge=0, le=366 * 86400, description="seconds that something forgotten can be brought back"
    )
    versions_max: Whole = Field(default=10, ge=0, le=100, description="earlier versions of a memory that are kept")
    duplicates: Literal["merge", "refuse", "allow"] = Field(
        default="merge", description="what becomes of something that is remembered already"
    )
    secrets: Literal["block", "redact", "warn", "off"] = Field(
        default="block", description="what becomes of content with a key or a password in it"
    )
    embeddings: Annotated[str, StringConstraints(strict=True, pattern=f"^({TOKEN_PATTERN})?$")] = Field(
        default="", description="id of [memories.*] that makes vectors, to search by meaning; empty: by words alone"
    )
    folders: tuple[Word, ...] = Field(
        default=(),
        max_length=32,
        description="folders that exports and imports may be in; empty: exports in the data folder",
    )
