"""How is memory told to those who ask? One project's memory, as the ops' replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from knotwork.desk.moments import moment, rfc3339
from knotwork.memory import names
from knotwork.memory.model import Quarantine, Record, Version
from knotwork.memory.rules import NS
from knotwork.ops import memory_replies as replies
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.memory.query import Query
    from knotwork.memory.remembering import Remembering
    from knotwork.memory.rules import Draft
    from knotwork.memory.writing import Remembered
    from knotwork.ops.memory_ports import Duplicates
    from knotwork.ops.memory_replies import Category, Scope
    from knotwork.trust.who import Who


class MemoryDesk:
    """One project's memory (`ops.memory_ports.Memories`)."""

    def __init__(self, rooms: Remembering) -> None:
        """Answer from `rooms`."""
        self._rooms = rooms

    async def remember(
        self, draft: Draft, who: Who, *, replaces: str, duplicates: Duplicates | None
    ) -> replies.Remembered:
        """Remember something, or say it in the place of another."""
        if replaces:
            return self._remembered(await self._rooms.writing.replace(replaces, draft, who))
        made = await self._rooms.writing.remember(draft, who, duplicates=duplicates)
        return self._remembered(made.record, made.duplicate_of)

    async def remember_all(
        self, drafts: Sequence[Draft], who: Who, *, duplicates: Duplicates | None, stop_on_error: bool
    ) -> replies.RememberedAll:
        """Remember many."""
        answers = await self._rooms.writing.remember_all(
            drafts, who, duplicates=duplicates, stop_on_error=stop_on_error
        )
        kept: list[Remembered | None] = [
            answer if answer is not None and not isinstance(answer, KnotworkError) else None for answer in answers
        ]
        stored = sum(answer is not None for answer in kept)
        return replies.RememberedAll(
            stored=stored, failed=len(answers) - stored, ids=[answer.record.id if answer else "" for answer in kept],
            duplicates=sum(bool(answer and answer.duplicate_of) for answer in kept),
            errors=[_bulk(index, error) for index, error in enumerate(answers) if isinstance(error, KnotworkError)],
        )  # fmt: skip

    async def recall(self, query: Query, who: Who) -> replies.Recalled:
        """Return what fits by scope, with a summary."""
        page, counts = await self._rooms.reading.recall(query, who)
        lists: dict[str, list[replies.MemoryRow]] = {"private": [], "personal": [], "team": [], "public": []}
        for record in page.records:
            lists[record.scope].append(row(record, page.by.get(record.id, ())))
        totals = dict.fromkeys(lists, 0)
        expired = 0
        for (scope, _), (count, over, gone) in counts.items():
            totals[scope] += count - over - gone
            expired += over
        return replies.Recalled(
            private=lists["private"], personal=lists["personal"], team=lists["team"], public=lists["public"],
            summary=page.summary,
            counts=replies.MemoryCounts(
                **totals, total=sum(totals.values()), returned=len(page.records), expired=expired
            ),
            next=page.next, current=page.current, notes=[*page.notes, *self._notes(query.scopes)],
        )  # fmt: skip

    async def page(self, query: Query, who: Who) -> replies.MemoryPage:
        """Return what fits in one list."""
        page = await self._rooms.reading.page(query, who)
        rows = [row(record, page.by.get(record.id, ())) for record in page.records]
        return replies.MemoryPage(memories=rows, next=page.next, current=page.current, notes=list(page.notes))

    async def get(self, memory: str, who: Who) -> replies.MemoryRow:
        """Return one memory."""
        return row((await self._rooms.reading.get(memory, who)).record)

    async def commit(self, memory: str, who: Who, content: str, scope: Scope | None) -> replies.Committed:
        """Keep for good what was to pass."""
        before = (await self._rooms.memory.held(memory, who)).record
        done = await self._rooms.changing.commit(memory, who, content, scope)
        made = done.record
        return replies.Committed(
            id=made.id, previous_category=before.category, previous_scope=before.scope, category=made.category,
            scope=made.scope, version=made.version, duplicate_of=done.duplicate_of,
        )  # fmt: skip

    async def share(
        self, memory: str, who: Who, *, scope: Scope, category: Category, move: bool, duplicates: Duplicates | None
    ) -> replies.Shared:
        """Let others know something of one's own."""
        made = await self._rooms.changing.share(
            memory, who, scope=scope, category=category, move=move, duplicates=duplicates
        )
        return replies.Shared(
            id=made.record.id, original=memory, scope=made.record.scope, category=made.record.category,
            original_deleted=move, duplicate_of=made.duplicate_of, note=" ".join(self._notes((scope,))),
        )  # fmt: skip

    async def forget(self, memory: str, who: Who, *, force: bool, purge: bool) -> replies.Forgotten:
        """Forget something."""
        gone = await self._rooms.changing.forget(memory, who, force=force, purge=purge)
        settings, until_ns = self._rooms.memory.settings, 0
        if settings.undo_s and not purge:
            until_ns = self._rooms.memory.now_ns() + settings.undo_s * NS
            until_ns = min(until_ns, gone.expires_ns) if gone.expires_ns else until_ns
        return replies.Forgotten(id=gone.id, scope=gone.scope, category=gone.category, until=moment(until_ns))

    async def forget_all(
        self, memories: Sequence[str], who: Who, *, force: bool, purge: bool, stop_on_error: bool
    ) -> replies.ForgottenAll:
        """Forget many."""
        answers = await self._rooms.changing.forget_all(
            memories, who, force=force, purge=purge, stop_on_error=stop_on_error
        )
        deleted = sum(isinstance(answer, Record) for answer in answers)
        errors = [
            _bulk(index, error, memories[index])
            for index, error in enumerate(answers)
            if isinstance(error, KnotworkError)
        ]
        return replies.ForgottenAll(deleted=deleted, failed=len(answers) - deleted, errors=errors)

    async def revert(self, memory: str, who: Who, version: int | None) -> replies.MemoryRow:
        """Bring back an earlier version, or what was forgotten."""
        return row(await self._rooms.changing.revert(memory, who, version))

    async def history(self, memory: str, who: Who) -> replies.MemoryHistory:
        """Return what a memory was."""
        record = await self._rooms.changing.history(memory, who)
        versions = [_version(one) for one in record.past]
        return replies.MemoryHistory(memory=row(record), forgotten=record.forgotten, versions=versions)

    async def quarantine(self, author: str, who: Who, *, release: bool, why: str) -> replies.Quarantines:
        """Hide what an author wrote, or show it again."""
        keeping = self._rooms.keeping
        changed = await (keeping.release(author) if release else keeping.quarantine(author, who, why))
        return replies.Quarantines(changed=await self._quarantined(changed), hidden=await self._hidden())

    async def clean(self, who: Who, *, expire_only: bool) -> replies.Cleaned:
        """Remove what is over and too many of one's own."""
        done = await self._rooms.keeping.clean(who, expire_only=expire_only)
        return replies.Cleaned(
            expired=done.expired, deleted=done.forgotten + done.too_many, forgotten=done.forgotten,
            too_many=done.too_many, errors=list(done.errors),
        )  # fmt: skip

    async def export(self, path: str, query: Query, who: Who, *, overwrite: bool) -> replies.Exported:
        """Write a file."""
        done = await self._rooms.carrying.export(path, query, who, overwrite=overwrite)
        return replies.Exported(
            exported=done.count, path=str(done.path), bytes=done.size_bytes, node=self._rooms.memory.node
        )

    async def load(
        self, path: str, who: Who, *, skip_invalid: bool, duplicates: Duplicates | None, scope: Scope | None
    ) -> replies.Imported:
        """Read a file."""
        done = await self._rooms.carrying.load(path, who, skip_invalid=skip_invalid, duplicates=duplicates, scope=scope)
        errors = [replies.LineError(line=line, message=message) for line, message in done.errors]
        return replies.Imported(
            imported=done.imported, duplicates=done.duplicates, skipped=done.failed, errors=errors
        )  # fmt: skip

    async def stats(self, who: Who) -> replies.MemoryStats:
        """Return how much there is, and where."""
        counts, current = await self._rooms.reading.counts(who)
        core = await self._rooms.reading.core(who)
        memory, settings = self._rooms.memory, self._rooms.memory.settings
        rows = [
            replies.CategoryCount(
                scope=scope, category=category, count=count - over - gone, expired=over, forgotten=gone
            )
            for (scope, category), (count, over, gone) in counts.items()
        ]
        return replies.MemoryStats(
            total=sum(one.count for one in rows), counts=rows, core_private=core["private"],
            core_personal=core["personal"], core_max=names.CORE_MAX,
            stores=cast("dict[Scope, str]", dict(settings.kept)),
            index=memory.shelf.states(), commons=memory.common, embeddings=settings.embeddings,
            with_vectors=self._rooms.meaning.known, quarantined=await self._hidden(),
            folders=[str(folder) for folder in settings.folders], current=current,
        )  # fmt: skip

    def _remembered(self, record: Record, duplicate_of: str = "") -> replies.Remembered:
        return replies.Remembered(
            id=record.id, scope=record.scope, category=record.category, expires_at=moment(record.expires_ns),
            duplicate_of=duplicate_of, version=record.version, warnings=list(record.warnings),
            note=" ".join(self._notes((record.scope,))),
        )  # fmt: skip

    def _notes(self, scopes: Sequence[str]) -> list[str]:
        """Return what has to be said of scopes that others projects cannot see though they should."""
        if self._rooms.memory.common or not (set(scopes) & {"personal", "public"}):
            return []
        return ["This NATS gives us no account for what projects share: it is kept in this project alone."]

    async def _hidden(self) -> list[replies.Quarantined]:
        return await self._quarantined(self._rooms.keeping.quarantined())

    async def _quarantined(self, some: Sequence[Quarantine]) -> list[replies.Quarantined]:
        return [
            replies.Quarantined(
                author_id=one.author, author=one.name, by=one.by.name, at=rfc3339(one.at_ns), why=one.why,
                memories=await self._rooms.keeping.written_by(one.author),
            )
            for one in some
        ]  # fmt: skip


def row(record: Record, found_by: Sequence[str] = ()) -> replies.MemoryRow:
    """Return a record as it is told."""
    by = record.author
    return replies.MemoryRow(
        id=record.id, scope=record.scope, category=record.category, content=record.content, tags=list(record.tags),
        priority=record.priority, related=list(record.related), source=record.source, author=by.name, author_id=by.id,
        owner=by.owner, project=by.project, node=by.node, created_at=moment(record.created_ns),
        updated_at=moment(record.updated_ns), expires_at=moment(record.expires_ns), version=record.version,
        origin=record.origin, warnings=list(record.warnings), found_by=list(found_by),
    )  # fmt: skip


def _version(one: Version) -> replies.MemoryVersion:
    return replies.MemoryVersion(
        number=one.number, content=one.content, category=one.category, what=one.what, by=one.by.name,
        since=moment(one.since_ns), until=moment(one.until_ns), tags=list(one.tags), priority=one.priority,
        related=list(one.related), source=one.source, author=one.author.name if one.author is not None else "",
    )  # fmt: skip


def _bulk(index: int, error: KnotworkError, memory: str = "") -> replies.BulkError:
    return replies.BulkError(index=index, id=memory, code=error.code, message=str(error))
