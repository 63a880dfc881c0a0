"""Where is something remembered, and how is it read, written and changed? The one way to every record of a project."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from knotwork.bus import clock
from knotwork.memory import asking, names, rules
from knotwork.memory.model import Author, Record, Version, author, belongs, decode, encode
from knotwork.memory.settings import Around, Settings
from knotwork.memory.shelf import Shelf, open_shelf
from knotwork.sdk.errors import Conflict, TooLarge
from knotwork.sdk.memory import MEMORY_VALUE_MAX_BYTES, MemoryScope, Place
from knotwork.trust.who import Who

TRIES = 8
RECORD_MAX_BYTES = MEMORY_VALUE_MAX_BYTES - 16 * 1024


@dataclass(frozen=True, slots=True)
class Held:
    """A record with its past, where it lies, and the revision it was read at."""

    place: Place
    record: Record
    revision: int


@dataclass(eq=False)
class Memory:
    """The memory of one project on this node; made by `open_memory`. `now_ns` is handed in for tests."""

    project: str
    node: str
    shelf: Shelf
    around: Around
    common: bool
    now_ns: Callable[[], int] = field(default=clock.now_ns)

    @property
    def settings(self) -> Settings:
        """Return what is in force now."""
        return self.around.settings()

    def by(self, who: Who) -> Author:
        """Return who writes, as this node knows it."""
        made = author(who)
        return msgspec.structs.replace(made, node=who.node or self.node)

    def place(self, memory: str, scope: MemoryScope, owner: str) -> Place:
        """Return where a memory lies."""
        return names.place(memory, scope, owner, self.project, common=self.common)

    def chance(self) -> bytes:
        """Return what makes ids different."""
        return os.urandom(6)

    async def write(self, place: Place, record: Record, revision: int) -> int:
        """Keep a record where `revision` is now (0: nothing), put it into the index, and return its new revision.

        Raises `Conflict` (`memory.changed`), `Unavailable`, `PluginFailed`; what it returned from survives everything.
        """
        value = encode(record)
        if len(value) > RECORD_MAX_BYTES:
            raise TooLarge(f"{record.id} with its history has {len(value)} bytes.", code="memory.too_large")
        ttl_s = rules.left_s(record.expires_ns, self.now_ns())
        instance = self.settings.kept[record.scope]
        answer = await asking.asked(
            self.around, instance, lambda store: store.store(place, value, revision=revision, ttl_s=ttl_s)
        )
        made = asking.revision(instance, answer)
        self.shelf.put(place, record, made)
        return made

    async def remove(self, held: Held) -> None:
        """Remove a record for good; raises `Conflict` (`memory.changed`)."""
        instance = self.settings.kept[held.record.scope]
        answer = await asking.asked(
            self.around, instance, lambda store: store.delete(held.place, revision=held.revision)
        )
        self.shelf.put(held.place, None, asking.revision(instance, answer))

    async def held(self, memory: str, who: Who) -> Held:
        """Return a memory as it is now, with its past; a forgotten one, too.

        Raises `NotFound` (`memory.not_found`) for what is not there and for what `who` may not see.
        """
        if not names.is_id(memory):
            raise rules.not_found(memory)
        await self.shelf.caught_up()
        rows = await self.shelf.ask(lambda index: index.find(memory))
        for row in sorted(rows, key=lambda one: -one.record.updated_ns):
            if not self._may_hold(row.record, who):
                continue
            found = await self.fresh(self.place(memory, row.record.scope, row.record.owner))
            if found is not None and found.record.id == memory and self._may_hold(found.record, who):
                return found
        raise rules.not_found(memory)

    def _may_hold(self, record: Record, who: Who) -> bool:
        """Return whether `who` may see it; what was forgotten is there for those alone who can bring it back."""
        if self.is_hidden(record, who):
            return False
        return rules.may_change(record, who) if record.forgotten else rules.may_read(record, who)

    async def fresh(self, place: Place) -> Held | None:
        """Return what lies in a place now, None for nothing."""
        instance = self.settings.kept[place.scope]
        kept = asking.kept(instance, await asking.asked(self.around, instance, lambda store: store.get(place)))
        record = decode(kept.value) if kept is not None else None
        if kept is None or record is None or not belongs(record, place) or record.is_over(self.now_ns()):
            return None
        return Held(place, record, kept.revision)

    def is_hidden(self, record: Record, who: Who) -> bool:
        """Return whether its author is in quarantine; a person who owns the node sees it all the same."""
        return record.author.id in self.shelf.hidden and who.kind != "person"

    async def change(self, memory: str, who: Who, what: str, how: Callable[[Record], Record]) -> Record:
        """Change a memory that `who` may change, and keep what it was; `how` returns it as it is to be.

        Raises `NotFound`, `Denied` (`memory.not_yours`), `Conflict` when others change it all the time.
        """
        for _ in range(TRIES):
            held = await self.held(memory, who)
            rules.admit_change(held.record, who)
            made = self.versioned(held.record, self.signed(held.record, how(held.record), who), what, who)
            try:
                await self.write(held.place, made, held.revision)
            except Conflict as error:
                if error.code != "memory.changed":
                    raise
                continue
            return made
        raise busy(memory)

    def signed(self, old: Record, new: Record, who: Who) -> Record:
        """Return the new record as written by `who` when it is personal and says something else.

        All agents of its owner may change it, and nobody's words stand under another's name: those that it said before
        stay whose they were. What a team or everybody sees stays its agent's, also when the person whose agent that is
        mends it.
        """
        if new.scope != "personal" or new.content == old.content:
            return new
        said = next((one.author for one in reversed(old.past) if one.author and one.content == new.content), None)
        if said is None and old.author.id == who.id:
            return new
        return msgspec.structs.replace(new, author=said or self.by(who))

    def past(self, record: Record, who: Who) -> tuple[Version, ...]:
        """Return what a memory was, as far as `who` may know: what an author in quarantine wrote is for people alone."""
        hidden = self.shelf.hidden if who.kind != "person" else ()
        return tuple(one for one in record.past if one.author is None or one.author.id not in hidden)

    def versioned(self, old: Record, new: Record, what: str, who: Who) -> Record:
        """Return the new record with what it was before among its past, the oldest left out when there is no room."""
        now_ns = self.now_ns()
        if all(getattr(old, part) == getattr(new, part) for part in _TOLD):
            return msgspec.structs.replace(new, updated_ns=now_ns)
        was = Version(
            number=old.version, content=old.content, category=old.category, what=what, by=self.by(who),
            since_ns=old.updated_ns, until_ns=now_ns, tags=old.tags, priority=old.priority, related=old.related,
            source=old.source, author=old.author,
        )  # fmt: skip
        past = (*old.past, was)[-self.settings.versions_max :] if self.settings.versions_max else ()
        made = msgspec.structs.replace(new, version=old.version + 1, updated_ns=now_ns, past=past)
        while made.past and len(encode(made)) > RECORD_MAX_BYTES:
            made = msgspec.structs.replace(made, past=made.past[1:])
        return made


_TOLD = ("content", "category", "tags", "priority", "related", "source", "forgotten")
"""What counts as a change of a memory."""


def busy(memory: str) -> Conflict:
    """Return the error of a memory that others change all the time."""
    return Conflict(f"{memory} is being changed by others.", code="memory.changed", hint="Try again in a moment.")


@asynccontextmanager
async def open_memory(
    project: str, around: Around, *, node: str, index: Path | None, common: bool
) -> AsyncIterator[Memory]:
    """Remember for a project inside the block.

    `index` is where the index of this node is made, None for one in memory; `common` says whether what projects have in
    common can be reached: what is personal or public is kept with the project else.
    """
    async with open_shelf(project, around, index, common=common) as shelf:
        yield Memory(project, node, shelf, around, common)
