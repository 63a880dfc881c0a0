"""Who may see and change which memory, and what may one hold? The rules of memory, in one place (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from knotwork.memory.model import CATEGORIES, EVERYBODY, OWN_SCOPES, SCOPES, SHARED_SCOPES, Category, Record
from knotwork.sdk.errors import Denied, Invalid, NotFound, TooLarge
from knotwork.sdk.memory import MemoryScope
from knotwork.trust.scopes import may_see
from knotwork.trust.who import Who

CONTENT_MAX_BYTES = 32_768
TAGS_MAX, TAG_MAX, RELATED_MAX, SOURCE_MAX = 10, 50, 20, 256
PRIORITY_MIN, PRIORITY_MAX = 1, 3
TTL_S = 24 * 3600
TTL_MAX_S = 366 * 24 * 3600
NS = 1_000_000_000
OWN: tuple[Category, ...] = ("recent", "tasks", "longterm", "core")
SHARED: tuple[Category, ...] = ("decisions", "architecture", "learnings")
PASSING: tuple[Category, ...] = ("recent", "tasks")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KEPT = ("scope", "category", "tags", "priority", "related", "source")
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be remembered. `ttl_s` None means as long as its category is kept.

    `said` names the fields that were given, None for all of them: of what it replaces the others stay as they are.
    """

    content: str
    scope: MemoryScope = "private"
    category: Category | None = None
    tags: tuple[str, ...] = ()
    priority: int = 2
    related: tuple[str, ...] = ()
    source: str = ""
    ttl_s: int | None = None
    said: frozenset[str] | None = None


def in_place_of(draft: Draft, old: Record) -> Draft:
    """Return a draft with everything that it does not say as it stands in what it replaces; a ttl begins anew."""
    unsaid = (name for name in _KEPT if draft.said is not None and name not in draft.said)
    kept = {name: getattr(old, name) for name in unsaid}
    if draft.category is None:
        kept["category"] = old.category
    return replace(draft, **kept)


def category_of(draft: Draft) -> Category:
    """Return its category: what is usual in its scope when it names none."""
    return draft.category or ("recent" if draft.scope in OWN_SCOPES else "learnings")


def check(draft: Draft) -> None:
    """Raise `Invalid` (`memory.invalid`) that says all that is wrong with a draft, `TooLarge` for too much content."""
    problems = list(_problems(draft))
    if problems:
        shown = " ".join(problems)
        raise Invalid(shown, code="memory.invalid", hint="Nothing was kept.", detail={"problems": problems})
    size = len(draft.content.encode())
    if size > CONTENT_MAX_BYTES:
        raise TooLarge(
            f"The content has {size} bytes; the limit is {CONTENT_MAX_BYTES}.", code="memory.too_large",
            hint="Keep a summary, or cut it into several that name each other in `related`.",
        )  # fmt: skip


def _problems(draft: Draft) -> list[str]:
    return [*_misplaced(draft), *_bad_content(draft), *_bad_words(draft), *_bad_ttl(draft)]


def _misplaced(draft: Draft) -> Iterator[str]:
    allowed = OWN if draft.scope in OWN_SCOPES else SHARED
    if draft.scope not in SCOPES:
        yield f"There is no scope {draft.scope[:40]!r}: {', '.join(SCOPES)}."
    elif category_of(draft) not in allowed:
        where = " or ".join(OWN_SCOPES if allowed is SHARED else SHARED_SCOPES)
        known = f"Category {category_of(draft)!r} belongs to {where}." if draft.category in CATEGORIES else ""
        yield f"{known} In {draft.scope} use {', '.join(allowed)}.".strip()


def _bad_content(draft: Draft) -> Iterator[str]:
    if not draft.content.strip():
        yield "The content is empty."
    if _HALF.search(draft.content):
        yield "The content has half a character in it (a lone surrogate)."


def _bad_words(draft: Draft) -> Iterator[str]:
    if len(draft.tags) > TAGS_MAX:
        yield f"{len(draft.tags)} tags; at most {TAGS_MAX}."
    yield from (
        f"Tag {tag[:60]!r} must be 1 to {TAG_MAX} printable characters." for tag in draft.tags if not _is_tag(tag)
    )
    if not PRIORITY_MIN <= draft.priority <= PRIORITY_MAX:
        yield f"Priority {draft.priority} is none: 1 (low), 2 or 3 (high)."
    if len(draft.related) > RELATED_MAX:
        yield f"{len(draft.related)} related memories; at most {RELATED_MAX}."
    yield from (f"Related {one[:60]!r} is no id." for one in draft.related if not _is_tag(one))
    if len(draft.source) > SOURCE_MAX or _CONTROL.search(draft.source) or _HALF.search(draft.source):
        yield f"The source must be at most {SOURCE_MAX} printable characters."


def _bad_ttl(draft: Draft) -> Iterator[str]:
    if draft.ttl_s is None:
        return
    if category_of(draft) == "core":
        yield "A core memory does not expire: leave out ttl_s."
    if not 1 <= draft.ttl_s <= TTL_MAX_S:
        yield f"ttl_s must be 1 to {TTL_MAX_S} seconds."


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= TAG_MAX and bool(text.strip()) and not _CONTROL.search(text) and not _HALF.search(text)


def ttl_s(category: Category, wanted_s: int | None, usual_s: int = TTL_S) -> int | None:
    """Return for how many seconds it is kept, None for ever; `usual_s` is how long recent things and tasks are."""
    return wanted_s if wanted_s is not None else usual_s if category in PASSING else None


def left_s(expires_ns: int, now_ns: int) -> int | None:
    """Return the whole seconds a record still has, one at least, None for ever."""
    return max(1, -(-(expires_ns - now_ns) // NS)) if expires_ns else None


@dataclass(frozen=True, slots=True)
class Sight:
    """A part of memory that somebody may see: what is one owner's in one scope, perhaps without its core.

    Of an `author` alone, or of the agents of one `person`, when it names one.
    """

    scope: MemoryScope
    owner: str
    core: bool = True
    author: str = ""
    person: str = ""


def sights(who: Who, scopes: tuple[MemoryScope, ...] = SCOPES) -> list[Sight]:
    """Return where somebody may look, of these scopes. What is found there is judged by `may_read` all the same."""
    found = [Sight("private", who.id)]
    if who.parent:
        found.append(Sight("private", who.parent, core=False))
    if who.owner:
        found.append(Sight("personal", who.owner))
    found += [Sight("team", who.project), Sight("public", EVERYBODY)]
    return [one for one in found if one.scope in scopes]


def left_behind(who: Who, scopes: tuple[MemoryScope, ...] = SCOPES) -> list[Sight]:
    """Return where what was forgotten lies that somebody can bring back: what others took back is not to be read on."""
    own = [
        one
        for one in sights(who, scopes)
        if one.scope in OWN_SCOPES and (one.scope, one.owner) != ("private", who.parent)
    ]
    shared = [one for one in sights(who, scopes) if one.scope not in OWN_SCOPES]
    if who.kind == "person":
        return [*own, *(replace(one, person=who.owner) for one in shared if who.owner)]
    return [*own, *(replace(one, author=who.id) for one in shared)]


def may_read(record: Record, by: Who) -> bool:
    """Return whether `by` may see a memory; sub-agents see what their parent keeps for itself, but not its core."""
    of = record.author.who()
    match record.scope:
        case "private" if record.owner != of.id:
            return False
        case "personal" if not of.owner or record.owner != of.owner:
            return False
        case "team" if record.owner != of.project:
            return False
        case "private" if by.parent and by.parent == of.id and by.project == of.project:
            return record.category != "core"
    if record.scope == "private":
        return may_see("private", of, by)
    return may_see(record.scope, of, by) and (record.scope != "personal" or of.owner == by.owner)


def may_change(record: Record, by: Who) -> bool:
    """Return whether `by` may change a memory: private ones their agent, personal ones all agents of the owner.

    What a team or everybody sees is its author's alone, and of the person whose agent that is.
    """
    of = record.author.who()
    if not may_read(record, by):
        return False
    is_author = of.id == by.id and of.project == by.project
    if record.scope in OWN_SCOPES:
        return is_author or record.scope == "personal"
    is_person = by.kind == "person" and bool(by.owner) and by.owner == of.owner and by.project == of.project
    return is_author or is_person


def not_found(memory: str) -> NotFound:
    """Return the one error for what is not there and for what may not be seen."""
    return NotFound(
        f"There is no memory {memory[:64]!r} that you may see.", code="memory.not_found",
        hint="It may have expired or been forgotten; see `knotwork memory list`.",
    )  # fmt: skip


def admit_change(record: Record, by: Who) -> None:
    """Raise `Denied` (`memory.not_yours`) when `by` sees it but may not change it, `NotFound` when it may not see it."""
    if not may_read(record, by):
        raise not_found(record.id)
    if not may_change(record, by):
        raise Denied(
            f"{record.id} was written by {record.author.name}: only its author may do that.", code="memory.not_yours",
            hint="Ask the author, or write one of your own.",
        )  # fmt: skip
