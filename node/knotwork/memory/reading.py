"""How is something found again? By category and age, by words, by meaning; only what one may see leaves this module."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from knotwork.bus.fitting import fitting
from knotwork.memory import core_places, fusing, rules, telling
from knotwork.memory.index import After, Counts, Filter, Index, Row
from knotwork.memory.meaning import Meaning
from knotwork.memory.model import CATEGORIES, OWN_SCOPES, SCOPES, Record
from knotwork.memory.query import Query
from knotwork.memory.room import Held, Memory
from knotwork.sdk.errors import Invalid, KnotworkError, Unavailable
from knotwork.sdk.memory import MemoryScope
from knotwork.trust.who import Who

SEARCH_MAX = 200
"""As many of the best by words, and by meaning, make one order."""


@dataclass(frozen=True, slots=True)
class Page:
    """What was found. `current` is False when a store did not answer; `by` says for each id how a search found it."""

    records: list[Record]
    next: str
    current: bool
    summary: str = ""
    by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Reading:
    """Finds memories of one project."""

    def __init__(self, memory: Memory, meaning: Meaning) -> None:
        """Read the index of `memory`; `meaning` knows what texts mean, when that is configured."""
        self._memory, self._meaning = memory, meaning

    async def recall(self, query: Query, who: Who) -> tuple[Page, Counts]:
        """Return what fits, with a summary and counts of all that `who` may see in these scopes."""
        page = await self.page(query, who)
        wanted = self._filter(query, who)
        counts = await self._memory.shelf.ask(lambda index: index.counts(wanted))
        others: int | None = None if page.next else 0
        if query == Query(scopes=query.scopes, limit=query.limit):  # all of it, so it is known how much there is
            others = max(0, sum(count - over - gone for count, over, gone in counts.values()) - len(page.records))
        text = telling.summary(page.records, others, wanted.now_ns, whole=page.current)
        return dataclasses.replace(page, summary=text), counts

    async def page(self, query: Query, who: Who) -> Page:
        """Return a page of what fits; raises `Invalid` (`ops.bad_cursor`)."""
        current = await self._memory.shelf.caught_up(query.scopes or SCOPES)
        notes = () if current else (telling.AWAY,)
        if query.text:
            found = await self._searched(query, who, current=current)
            return dataclasses.replace(found, notes=(*notes, *found.notes))
        wanted, after = self._filter(query, who), _after(query.cursor)
        rows = await self._memory.shelf.ask(
            lambda index: index.page(wanted, query.limit + 1, after, newest=query.newest)
        )
        records = fitting([row.record for row in rows[: query.limit]], _size)
        more = _cursor(records[-1]) if len(rows) > len(records) else ""
        return Page(self._seen(records, who), more, current, notes=notes)

    async def every(self, query: Query, who: Who) -> list[Record]:
        """Return all that fits, as it is at one moment: what is changed between two pages would be in neither.

        Raises `Unavailable` (`memory.no_answer`) when a store keeps some of it back.
        """
        if not await self._memory.shelf.caught_up(query.scopes or SCOPES):
            raise Unavailable(
                "A store does not answer, and what it keeps would be missing.", code="memory.no_answer",
                hint="Try again in a moment, or name the scopes that are there: see `knotwork memory stats`.",
            )  # fmt: skip
        wanted = self._filter(query, who)
        rows = await self._memory.shelf.ask(lambda index: index.page(wanted, sys.maxsize, newest=query.newest))
        return self._seen([row.record for row in rows], who)

    async def get(self, memory: str, who: Who) -> Held:
        """Return one memory with its past; raises `NotFound`, for a forgotten one too."""
        held = await self._memory.held(memory, who)
        if held.record.forgotten:
            raise rules.not_found(memory)
        return held

    async def counts(self, who: Who, scopes: tuple[MemoryScope, ...] = ()) -> tuple[Counts, bool]:
        """Return what there is, and whether every store was asked."""
        current = await self._memory.shelf.caught_up(scopes or SCOPES)
        wanted = self._filter(Query(scopes=scopes), who)
        return await self._memory.shelf.ask(lambda index: index.counts(wanted)), current

    async def core(self, who: Who) -> dict[MemoryScope, int]:
        """Return how many core memories an agent has, by scope."""
        now_ns = self._memory.now_ns()
        known = await core_places.taken(self._memory, who)
        counts = dict.fromkeys(OWN_SCOPES, 0)
        for scope, found in known.items():
            counts[scope] = sum(not gone and (not until or until > now_ns) for gone, _, until in found.values())
        return counts

    def _filter(self, query: Query, who: Who) -> Filter:
        where = rules.left_behind if query.forgotten else rules.sights
        return Filter(
            sights=tuple(where(who, query.scopes or SCOPES)), now_ns=self._memory.now_ns(),
            categories=query.categories, tags=query.tags, priority_min=query.priority_min,
            priority_max=query.priority_max, created_after_ns=query.created_after_ns,
            created_before_ns=query.created_before_ns, updated_after_ns=query.updated_after_ns,
            updated_before_ns=query.updated_before_ns, author=query.author,
            hidden=() if who.kind == "person" and query.author else self._memory.shelf.hidden,
            forgotten=query.forgotten,
        )  # fmt: skip

    def _seen(self, records: Sequence[Record], who: Who) -> list[Record]:
        """Return those that `who` may see: all of them, unless the query is wrong; this is where it is decided.

        What was forgotten is there for those alone who can bring it back.
        """
        return [one for one in records if (rules.may_change if one.forgotten else rules.may_read)(one, who)]

    async def _searched(self, query: Query, who: Who, *, current: bool) -> Page:
        wanted, start = self._filter(query, who), _start(query.cursor)
        notes: tuple[str, ...] = ()
        by_meaning: list[str] = []
        try:
            by_meaning = await self._meaning.nearest(query.text, wanted, SEARCH_MAX)
        except KnotworkError as error:
            notes = (f"Searched by words alone: {error.message}",)

        # alone the best by words stand in their order, so no more of them are looked for than are shown, and one more
        count = SEARCH_MAX if by_meaning else min(start + query.limit + 1, SEARCH_MAX)

        def look(index: Index) -> tuple[list[Row], list[str], set[str], set[str]]:
            said = index.words(wanted, query.text, count)
            near = index.fitting(wanted, by_meaning) if by_meaning else []
            order = fusing.fuse(said, near) if near else said
            return index.named(wanted, order[start : start + query.limit]), order, set(said), set(near)

        rows, order, said, near = await self._memory.shelf.ask(look)
        shown, end = fitting([row.record for row in rows], _size), start + query.limit
        if len(shown) < len(rows):  # the next page begins with the first that had no room
            end = order.index(rows[len(shown)].record.id, start)
        records = self._seen(shown, who)
        by = {
            one.id: tuple(way for way, ids in (("words", said), ("meaning", near)) if one.id in ids) for one in records
        }
        following = _encode([str(end)]) if len(order) > end else ""
        return Page(records, following, current, by=by, notes=notes)


def _size(record: Record) -> int:
    """Return how many bytes a record has in an answer."""
    return len(msgspec.json.encode(record))


def _cursor(last: Record) -> str:
    return _encode([CATEGORIES.index(last.category), last.updated_ns, last.id])


def _after(cursor: str) -> After | None:
    match _decode(cursor):
        case []:
            return None
        case [int(rank), int(updated_ns), str(id_)]:
            return After(rank, updated_ns, id_)
    raise _bad_cursor()


def _start(cursor: str) -> int:
    match _decode(cursor):
        case []:
            return 0
        case [str(start)] if start.isdecimal() and len(start) < 6:  # noqa: PLR2004  more is never found
            return int(start)
    raise _bad_cursor()


def _encode(parts: list[int | str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def _decode(cursor: str) -> list[object]:
    if not cursor:
        return []
    try:
        found = msgspec.json.decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise _bad_cursor() from None
    if not isinstance(found, list) or not found:
        raise _bad_cursor()
    if any(isinstance(one, int) and not -(2**63) <= one < 2**63 for one in found):
        raise _bad_cursor()
    return found


def _bad_cursor() -> Invalid:
    return Invalid(
        "This is no cursor of ours.", code="ops.bad_cursor",
        hint="Use `next` of the page before, or no cursor to begin.",
    )  # fmt: skip
