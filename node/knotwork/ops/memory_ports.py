"""What must a host offer so that agents remember? One protocol, implemented by `host.memory`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from knotwork.memory.query import Query
    from knotwork.memory.rules import Draft
    from knotwork.ops import memory_replies as replies
    from knotwork.ops.memory_replies import Category, Scope
    from knotwork.trust.who import Who

Duplicates = Literal["merge", "refuse", "allow"]


class Memories(Protocol):
    """One project's memory. `who` asks; what it may not see is not there (`NotFound`, `memory.not_found`).

    What stores something raises `Invalid` (`memory.invalid`, `memory.secret`), `TooLarge` (`memory.too_large`),
    `Conflict` (`memory.duplicate`, `memory.core_full`, `memory.changed`) and `Unavailable`, too; what changes something
    of others `Denied` (`memory.not_yours`).
    """

    async def remember(
        self, draft: Draft, who: Who, *, replaces: str, duplicates: Duplicates | None
    ) -> replies.Remembered:
        """Remember something, or say it in the place of `replaces`."""
        ...

    async def remember_all(
        self, drafts: Sequence[Draft], who: Who, *, duplicates: Duplicates | None, stop_on_error: bool
    ) -> replies.RememberedAll:
        """Remember many."""
        ...

    async def recall(self, query: Query, who: Who) -> replies.Recalled:
        """Return what fits by scope, with a summary."""
        ...

    async def page(self, query: Query, who: Who) -> replies.MemoryPage:
        """Return what fits in one list."""
        ...

    async def get(self, memory: str, who: Who) -> replies.MemoryRow:
        """Return one memory."""
        ...

    async def commit(self, memory: str, who: Who, content: str, scope: Scope | None) -> replies.Committed:
        """Keep for good what was to pass; raises `Conflict` (`memory.not_passing`)."""
        ...

    async def share(
        self, memory: str, who: Who, *, scope: Scope, category: Category, move: bool, duplicates: Duplicates | None
    ) -> replies.Shared:
        """Let others know something of one's own; raises `Conflict` (`memory.not_kept`)."""
        ...

    async def forget(self, memory: str, who: Who, *, force: bool, purge: bool) -> replies.Forgotten:
        """Forget something; raises `Conflict` (`memory.core_protected`)."""
        ...

    async def forget_all(
        self, memories: Sequence[str], who: Who, *, force: bool, purge: bool, stop_on_error: bool
    ) -> replies.ForgottenAll:
        """Forget many."""
        ...

    async def revert(self, memory: str, who: Who, version: int | None) -> replies.MemoryRow:
        """Bring back an earlier version, or what was forgotten; raises `NotFound` (`memory.no_version`)."""
        ...

    async def history(self, memory: str, who: Who) -> replies.MemoryHistory:
        """Return what a memory was."""
        ...

    async def quarantine(self, author: str, who: Who, *, release: bool, why: str) -> replies.Quarantines:
        """Hide what an author wrote, or show it again; raises `NotFound` (`memory.no_author`)."""
        ...

    async def clean(self, who: Who, *, expire_only: bool) -> replies.Cleaned:
        """Remove what is over and too many of one's own."""
        ...

    async def export(self, path: str, query: Query, who: Who, *, overwrite: bool) -> replies.Exported:
        """Write a file; raises `Denied` (`memory.outside`), `Conflict` (`memory.file_exists`)."""
        ...

    async def load(
        self, path: str, who: Who, *, skip_invalid: bool, duplicates: Duplicates | None, scope: Scope | None
    ) -> replies.Imported:
        """Read a file; raises `Denied`, `NotFound` (`memory.no_file`), `Invalid` (`memory.bad_file`)."""
        ...

    async def stats(self, who: Who) -> replies.MemoryStats:
        """Return how much there is, and where."""
        ...
