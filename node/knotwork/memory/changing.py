"""How does a memory go on? It is committed for good, shared with others, forgotten, and brought back."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace

import msgspec

from knotwork.memory import bulk, names, rules
from knotwork.memory.model import OWN_SCOPES, SHARED_SCOPES, Category, Record, Version
from knotwork.memory.room import TRIES, Held, Memory, busy
from knotwork.memory.rules import Draft
from knotwork.memory.settings import Duplicates
from knotwork.memory.writing import Remembered, Writing
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, NotFound
from knotwork.sdk.memory import MemoryScope, Place
from knotwork.trust.who import Who


class Changing:
    """Changes memories of one project."""

    def __init__(self, memory: Memory, writing: Writing) -> None:
        """Change through `memory`; what is new is written by `writing`."""
        self._memory, self._writing = memory, writing

    async def commit(self, memory: str, who: Who, content: str = "", scope: MemoryScope | None = None) -> Remembered:
        """Keep for good what was to pass: recent things and tasks become longterm, perhaps said better, or elsewhere.

        What is kept so already is not kept twice: it gets what this one adds, which is forgotten. It is looked through for
        secrets, also when it was kept before that was asked for.

        Raises `NotFound`, `Denied`, `Invalid` (`memory.invalid`, `memory.secret`), `Conflict` (`memory.not_passing`,
        `memory.duplicate`).
        """
        if scope is not None and scope not in OWN_SCOPES:
            raise Invalid("An insight is kept in private or personal.", code="memory.invalid", hint="Then share it.")

        def how(old: Record) -> Record:
            if old.forgotten or old.category not in rules.PASSING:
                now = "forgotten" if old.forgotten else f"in {old.category}"
                raise Conflict(
                    f"{old.id} is {now}: only recent things and tasks can be committed.", code="memory.not_passing",
                    hint="It is kept already, unless it was forgotten.",
                )  # fmt: skip
            return self._looked_through(old, Draft(content or old.content, scope or old.scope, "longterm"), who)

        held = await self._memory.held(memory, who)
        rules.admit_change(held.record, who)
        made = how(held.record)
        target = scope or held.record.scope
        there = msgspec.structs.replace(made, scope=target, owner=names.owner_in(target, who))
        if (twin := await self._writing.with_twin_of(there, who)) is not None:
            await self.forget(memory, who)
            return Remembered(twin, duplicate_of=twin.id)
        if target == held.record.scope:
            return Remembered(await self._memory.change(memory, who, "committed", how))
        return Remembered(await self._moved(held, made, target, who))

    def _looked_through(self, old: Record, said: Draft, who: Who) -> Record:
        """Return a record with what is said now, for good, as it may be kept today; what is not said stays."""
        draft = replace(said, tags=old.tags, priority=old.priority, related=old.related, source=old.source)
        made = self._writing.drafted(draft, who)
        return msgspec.structs.replace(
            old, content=made.content, category=made.category, tags=made.tags, related=made.related, source=made.source,
            warnings=made.warnings, expires_ns=0,
        )  # fmt: skip

    async def share(
        self,
        memory: str,
        who: Who,
        *,
        scope: MemoryScope,
        category: Category,
        move: bool,
        duplicates: Duplicates | None,
    ) -> Remembered:
        """Let a team or everybody know something of one's own: a copy, or with `move` the thing itself.

        What is kept until some time is kept until then there, too.

        Raises `NotFound`, `Denied`, `Invalid`, `Conflict` (`memory.not_kept`).
        """
        if scope not in SHARED_SCOPES:
            raise Invalid("It is shared with team or public.", code="memory.invalid")
        held = await self._memory.held(memory, who)
        record = held.record
        rules.admit_change(record, who)
        if record.forgotten or record.scope not in OWN_SCOPES or record.category not in ("longterm", "core"):
            now = "forgotten" if record.forgotten else f"in {record.scope}/{record.category}"
            known = record.scope not in OWN_SCOPES
            hint = "It is known to others already." if known else "Keep it for good first: `knotwork memory commit`."
            raise Conflict(
                f"{memory} is {now}: only one's own longterm and core memories can be shared.", code="memory.not_kept",
                hint="Bring it back first: `knotwork memory revert`." if record.forgotten else hint,
            )  # fmt: skip
        if move and record.category == "core" and who.kind == "agent" and record.author.id != who.id:
            raise Denied(
                f"{memory} is a core memory that {record.author.name} keeps: it is not moved away by another agent.",
                code="memory.not_yours", hint="Share a copy of it (keepPrivate; without --move at a shell).",
            )  # fmt: skip
        draft = Draft(
            record.content, scope, category, record.tags, record.priority, record.related, record.source,
            rules.left_s(record.expires_ns, self._memory.now_ns()),
        )  # fmt: skip
        made = await self._writing.remember(draft, who, duplicates=duplicates, origin=record.id)
        if move:
            await self.forget(memory, who, force=True)
        return made

    async def forget(self, memory: str, who: Who, *, force: bool = False, purge: bool = False) -> Record:
        """Forget something: it can be brought back for a while, unless it is to be purged.

        Raises `NotFound`, `Denied` (`memory.not_yours`), `Conflict` (`memory.core_protected`) without `force`.
        """
        for _ in range(TRIES):
            held = await self._memory.held(memory, who)
            record = held.record
            rules.admit_change(record, who)
            if record.forgotten and not purge:
                raise rules.not_found(memory)
            if record.category == "core" and not force:
                raise Conflict(
                    f"{memory} is a core memory.", code="memory.core_protected", hint="Say force when it is meant."
                )
            try:
                await self._gone(held, who, purge=purge or not self._memory.settings.undo_s)
            except Conflict as error:
                if error.code != "memory.changed":
                    raise
                continue
            return record
        raise busy(memory)

    async def forget_all(
        self, memories: Sequence[str], who: Who, *, force: bool, purge: bool, stop_on_error: bool
    ) -> list[Record | KnotworkError | None]:
        """Forget many; one answer each, None for what was not tried after an error when `stop_on_error`."""

        def one(memory: str) -> Awaitable[Record]:
            return self.forget(memory, who, force=force, purge=purge)

        return await bulk.each(memories, one, stop_on_error=stop_on_error)

    async def revert(self, memory: str, who: Who, number: int | None = None) -> Record:
        """Bring back what was forgotten, or what a memory was in an earlier version (by default the one before).

        A version is said anew, so it is looked through as one says it now.

        Raises `NotFound` (`memory.not_found`, `memory.no_version`), `Denied`, `Invalid` (`memory.secret`).
        """

        def how(old: Record) -> Record:
            if old.forgotten and number is None:
                return msgspec.structs.replace(old, forgotten=False, expires_ns=old.resumes_ns, resumes_ns=0)
            version = _version(old, self._memory.past(old, who), number)
            expires_ns = old.resumes_ns if old.forgotten else old.expires_ns
            if version.category in rules.PASSING and not expires_ns:
                expires_ns = self._memory.now_ns() + self._memory.settings.recent_s * rules.NS
            if version.category not in rules.PASSING and old.category in rules.PASSING:
                expires_ns = 0
            was = msgspec.structs.replace(
                old, tags=version.tags, priority=version.priority, related=version.related, source=version.source,
                forgotten=False, resumes_ns=0,
            )  # fmt: skip
            made = self._looked_through(was, Draft(version.content, old.scope, version.category), who)
            return msgspec.structs.replace(made, expires_ns=expires_ns)

        return await self._memory.change(memory, who, "reverted", how)

    async def history(self, memory: str, who: Who) -> Record:
        """Return a memory with all that it was and `who` may see, also when it was forgotten; raises `NotFound`."""
        record = (await self._memory.held(memory, who)).record
        return msgspec.structs.replace(record, past=self._memory.past(record, who))

    async def _moved(self, held: Held, made: Record, scope: MemoryScope, who: Who) -> Record:
        """Keep a record in another scope of its owner, without its past, and let go of the old one."""
        owner = names.owner_in(scope, who)
        if not owner:
            raise rules.not_found(held.record.id)
        now_ns = self._memory.now_ns()
        moved = msgspec.structs.replace(
            made, scope=scope, owner=owner, author=self._memory.by(who), past=(), updated_ns=now_ns,
            version=held.record.version + 1,
        )  # fmt: skip
        place = self._memory.place(moved.id, scope, owner)
        await self._memory.write(place, moved, 0)
        try:
            await self._memory.remove(held)
        except Conflict:  # it was changed meanwhile: that change counts, and nothing was moved
            await self._memory.remove(Held(place, moved, await self._revision(place)))
            raise busy(held.record.id) from None
        return moved

    async def _revision(self, place: Place) -> int:
        found = await self._memory.fresh(place)
        return found.revision if found is not None else 0

    async def _gone(self, held: Held, who: Who, *, purge: bool) -> None:
        if purge:
            await self._memory.remove(held)
            return
        record, now_ns = held.record, self._memory.now_ns()
        until_ns = now_ns + self._memory.settings.undo_s * rules.NS
        if record.expires_ns:
            until_ns = min(until_ns, record.expires_ns)
        gone = msgspec.structs.replace(record, forgotten=True, expires_ns=until_ns, resumes_ns=record.expires_ns)
        await self._memory.write(held.place, self._memory.versioned(record, gone, "forgotten", who), held.revision)


def _version(record: Record, past: Sequence[Version], number: int | None) -> Version:
    """Return a version of a record's `past`; raises `NotFound` (`memory.no_version`)."""
    known = [one for one in past if number in (None, one.number)]
    if not known:
        kept = ", ".join(str(one.number) for one in past) or "none"
        raise NotFound(
            f"{record.id} has no version {number}." if number else f"{record.id} was never changed.",
            code="memory.no_version", hint=f"Versions kept: {kept}; see `knotwork memory history`.",
        )  # fmt: skip
    return known[-1]
