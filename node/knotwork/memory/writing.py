"""How is something new remembered? Checked, looked through for secrets, compared with what is there, then kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace

import msgspec

from knotwork.memory import bulk, core_places, names, rules, scanning
from knotwork.memory.model import Record
from knotwork.memory.room import Memory
from knotwork.memory.rules import Draft
from knotwork.memory.settings import Duplicates
from knotwork.memory.twins import twin_key
from knotwork.sdk.errors import Conflict, Denied, KnotworkError
from knotwork.trust.who import Who

IN_THREAD_CHARS = 4096
"""A longer text is looked through beside the loop: the longest takes tens of milliseconds, and many come at once."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What became of a draft: its record, and the id of a twin when that was there already."""

    record: Record
    duplicate_of: str = ""


class Writing:
    """Remembers for one project."""

    def __init__(self, memory: Memory) -> None:
        """Write through `memory`."""
        self._memory = memory
        self._busy: dict[bytes, asyncio.Event] = {}

    async def remember(
        self, draft: Draft, who: Who, *, duplicates: Duplicates | None = None, origin: str = ""
    ) -> Remembered:
        """Remember something; `duplicates` decides what becomes of what is remembered already.

        Raises `Invalid` (`memory.invalid`, `memory.secret`), `TooLarge`, `Denied` (`memory.no_owner`), `Conflict`
        (`memory.duplicate`, `memory.core_full`), `Unavailable`.
        """
        if len(draft.content) > IN_THREAD_CHARS:
            record, key = await asyncio.to_thread(self._keyed, draft, who, origin)
        else:
            record, key = self._keyed(draft, who, origin)
        policy = duplicates or self._memory.settings.duplicates
        if policy == "allow":
            return Remembered(await self._keep(record, who))
        while key in self._busy:  # the same, written at the same time
            await self._busy[key].wait()
        done = self._busy[key] = asyncio.Event()
        try:
            merged = await self._with_twin(key, record, who, policy)
            if merged is None:
                return Remembered(await self._keep(record, who))
            return Remembered(merged, duplicate_of=merged.id)
        finally:
            del self._busy[key]
            done.set()

    async def replace(self, memory: str, draft: Draft, who: Who) -> Record:
        """Say something else in a memory's place; what it said stays in its history. Raises what `remember` does.

        What the draft does not say stays as it is, also until when it is kept, unless it passes: then it begins anew.
        """

        def how(old: Record) -> Record:
            wanted = rules.in_place_of(draft, old)
            if (old.scope, old.forgotten) != (wanted.scope, False):
                where = f"{old.id} is in {old.scope}" if not old.forgotten else f"{old.id} was forgotten"
                raise Conflict(f"{where}.", code="memory.elsewhere", hint="Name its scope, or remember it anew.")
            made = self.drafted(wanted, who)
            is_same = draft.said is not None and draft.ttl_s is None and made.category == old.category
            until_ns = old.expires_ns if is_same and made.category not in rules.PASSING else made.expires_ns
            if (old.category == "core") != (made.category == "core"):
                raise Conflict("A core memory stays one, others do not become one.", code="memory.elsewhere")
            return msgspec.structs.replace(
                old, content=made.content, category=made.category, tags=made.tags, priority=made.priority,
                related=made.related, source=made.source, expires_ns=until_ns, warnings=made.warnings,
            )  # fmt: skip

        return await self._memory.change(memory, who, "replaced", how)

    async def remember_all(
        self, drafts: Sequence[Draft], who: Who, *, duplicates: Duplicates | None, stop_on_error: bool
    ) -> list[Remembered | KnotworkError | None]:
        """Remember many; one answer each, None for what was not tried after an error when `stop_on_error`."""

        def one(draft: Draft) -> Awaitable[Remembered]:
            return self.remember(draft, who, duplicates=duplicates)

        return await bulk.each(drafts, one, stop_on_error=stop_on_error)

    def drafted(self, draft: Draft, who: Who, *, origin: str = "") -> Record:
        """Return the record of a draft, checked and looked through; raises what `remember` does."""
        rules.check(draft)
        owner = names.owner_in(draft.scope, who)
        if not owner:
            raise Denied(
                "Nobody owns this agent, so it has nothing personal.", code="memory.no_owner",
                hint="Set node.owner, or remember it privately.",
            )  # fmt: skip
        draft, warnings = self._looked_through(draft)
        now_ns, category = self._memory.now_ns(), rules.category_of(draft)
        ttl_s = rules.ttl_s(category, draft.ttl_s, self._memory.settings.recent_s)
        return Record(
            id=names.memory_id(now_ns, self._memory.chance()), scope=draft.scope, owner=owner, category=category,
            author=self._memory.by(who), created_ns=now_ns, updated_ns=now_ns, content=draft.content, tags=draft.tags,
            priority=draft.priority, related=draft.related, source=draft.source, origin=origin,
            expires_ns=now_ns + ttl_s * rules.NS if ttl_s else 0, warnings=warnings,
        )  # fmt: skip

    def _keyed(self, draft: Draft, who: Who, origin: str) -> tuple[Record, bytes]:
        """Return the record of a draft, and what it has in common with those that say the same."""
        record = self.drafted(draft, who, origin=origin)
        return record, twin_key(record)

    def cleared(self, content: str) -> tuple[str, tuple[str, ...]]:
        """Return a text as it may be kept, and the kinds of secrets in it; raises `Invalid` (`memory.secret`)."""
        return scanning.cleared(content, self._memory.settings.secrets)

    def _looked_through(self, draft: Draft) -> tuple[Draft, tuple[str, ...]]:
        """Return a draft as it may be kept, all of its texts, and the kinds of secrets in them."""
        content, of_content = self.cleared(draft.content)
        tags, related = [self.cleared(one) for one in draft.tags], [self.cleared(one) for one in draft.related]
        source, of_source = self.cleared(draft.source)
        kinds = (*of_content, *(kind for _, found in (*tags, *related) for kind in found), *of_source)
        made = replace(
            draft, content=content, tags=tuple(dict.fromkeys(tag[: rules.TAG_MAX] for tag, _ in tags)),
            related=tuple(dict.fromkeys(one[: rules.TAG_MAX] for one, _ in related)), source=source[: rules.SOURCE_MAX],
        )  # fmt: skip
        return (made if kinds else draft), tuple(dict.fromkeys(kinds))

    async def _twin(self, key: bytes, record: Record, who: Who) -> Record | None:
        """Return another living memory that says the same, and that `who` may know of."""
        ids = self._memory.shelf.twins.find(key)
        if not ids:
            return None
        now_ns = self._memory.now_ns()
        rows = await self._memory.shelf.ask(lambda index: [row for id_ in ids for row in index.find(id_)])
        for row in rows:
            one = row.record
            if one.id == record.id:  # somebody committed it just now
                continue
            is_same = not one.forgotten and not one.is_over(now_ns) and twin_key(one) == key
            is_same = is_same and not self._memory.is_hidden(one, who)
            if is_same and (one.scope, one.owner) == (record.scope, record.owner) and rules.may_change(one, who):
                return one
        return None

    async def with_twin_of(self, record: Record, who: Who) -> Record | None:
        """Return what says the same already, with what a record adds; None when nothing does, or both may stand.

        Raises `Conflict` (`memory.duplicate`) when nothing may be said twice.
        """
        policy = self._memory.settings.duplicates
        return await self._with_twin(twin_key(record), record, who, policy) if policy != "allow" else None

    async def _with_twin(self, key: bytes, record: Record, who: Who, policy: Duplicates) -> Record | None:
        twin = await self._twin(key, record, who)
        if twin is None:
            return None
        if policy == "refuse":
            raise Conflict(
                f"The same is remembered already, as {twin.id}.", code="memory.duplicate",
                hint="Change that one, or say duplicates = allow.", detail={"duplicate_of": twin.id},
            )  # fmt: skip

        def how(old: Record) -> Record:
            if old.forgotten:
                raise rules.not_found(old.id)
            tags = tuple(dict.fromkeys((*old.tags, *record.tags)))[: rules.TAGS_MAX]
            related = tuple(one for one in dict.fromkeys((*old.related, *record.related)) if one != old.id)
            return msgspec.structs.replace(
                old, tags=tags, related=related[: rules.RELATED_MAX], priority=max(old.priority, record.priority),
                source=record.source or old.source,
                expires_ns=max(old.expires_ns, record.expires_ns) if old.expires_ns and record.expires_ns else 0,
            )  # fmt: skip

        try:
            return await self._memory.change(twin.id, who, "merged", how)
        except KnotworkError as error:
            if error.code != "memory.not_found":
                raise
            return None  # it went just now

    async def _keep(self, record: Record, who: Who) -> Record:
        if record.category == "core":
            return await core_places.keep(self._memory, record, who)
        await self._memory.write(self._memory.place(record.id, record.scope, record.owner), record, 0)
        return record
