"""Memory for the doors' tests: one that is always the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knotwork.memory.query import Query
from knotwork.memory.rules import Draft
from knotwork.ops import memory_replies as replies
from knotwork.sdk.errors import NotFound
from knotwork.trust.who import Who

ROW = replies.MemoryRow(id="m019a8f3c2d1e4b7a9c0d1e2f", scope="private", category="recent", content="It is so.")
HIDDEN = replies.Quarantined(author_id="a-1", author="reviewer", by="me", at="2026-01-01T00:00:00Z")


class StandInMemory:
    """One memory."""

    async def remember(self, draft: Draft, who: Who, *, replaces: str, duplicates: Any) -> replies.Remembered:
        return replies.Remembered(id=ROW.id, scope=draft.scope, category=draft.category or "recent")

    async def remember_all(
        self, drafts: Sequence[Draft], who: Who, *, duplicates: Any, stop_on_error: bool
    ) -> replies.RememberedAll:
        return replies.RememberedAll(stored=len(drafts), failed=0, ids=[ROW.id for _ in drafts])

    async def recall(self, query: Query, who: Who) -> replies.Recalled:
        return replies.Recalled(private=[ROW], summary="It is so.", counts=replies.MemoryCounts(private=1, total=1))

    async def page(self, query: Query, who: Who) -> replies.MemoryPage:
        return replies.MemoryPage(memories=[ROW])

    async def get(self, memory: str, who: Who) -> replies.MemoryRow:
        if memory == "none":
            raise NotFound("There is no such memory.", code="memory.not_found")
        return ROW

    async def commit(self, memory: str, who: Who, content: str, scope: Any) -> replies.Committed:
        return replies.Committed(
            id=memory, previous_category="recent", previous_scope="private", category="longterm", scope="private", version=2
        )  # fmt: skip

    async def share(
        self, memory: str, who: Who, *, scope: Any, category: Any, move: bool, duplicates: Any
    ) -> replies.Shared:
        return replies.Shared(id=ROW.id, original=memory, scope=scope, category=category, original_deleted=move)

    async def forget(self, memory: str, who: Who, *, force: bool, purge: bool) -> replies.Forgotten:
        return replies.Forgotten(id=memory, scope="private", category="recent")

    async def forget_all(
        self, memories: Sequence[str], who: Who, *, force: bool, purge: bool, stop_on_error: bool
    ) -> replies.ForgottenAll:
        return replies.ForgottenAll(deleted=len(memories), failed=0)

    async def revert(self, memory: str, who: Who, version: int | None) -> replies.MemoryRow:
        return ROW

    async def history(self, memory: str, who: Who) -> replies.MemoryHistory:
        return replies.MemoryHistory(memory=ROW, versions=[])

    async def quarantine(self, author: str, who: Who, *, release: bool, why: str) -> replies.Quarantines:
        return replies.Quarantines(changed=[HIDDEN], hidden=[] if release else [HIDDEN])

    async def clean(self, who: Who, *, expire_only: bool) -> replies.Cleaned:
        return replies.Cleaned(expired=0, deleted=0, forgotten=0, too_many=0)

    async def export(self, path: str, query: Query, who: Who, *, overwrite: bool) -> replies.Exported:
        return replies.Exported(exported=1, path=path, bytes=10, node="here")

    async def load(self, path: str, who: Who, *, skip_invalid: bool, duplicates: Any, scope: Any) -> replies.Imported:
        return replies.Imported(imported=1, duplicates=0, skipped=0)

    async def stats(self, who: Who) -> replies.MemoryStats:
        return replies.MemoryStats(
            total=1, counts=[], core_private=0, core_personal=0, core_max=100, stores={"private": "kv"}, index={},
            commons=True,
        )  # fmt: skip
