"""How does memory travel as a file? One JSON object a line, of what one may see; and back in, as the importer's own.

An import forges nobody: whatever a line says, its owner is the one who imports, who is its author, too, and its origin
says that it was imported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from knotwork.memory import bulk, files, rules
from knotwork.memory.model import CATEGORIES, OWN_SCOPES, SCOPES, Category, Record
from knotwork.memory.query import Query
from knotwork.memory.reading import Reading
from knotwork.memory.room import Memory
from knotwork.memory.rules import Draft
from knotwork.memory.settings import Duplicates
from knotwork.memory.writing import Remembered, Writing
from knotwork.sdk.errors import Invalid, KnotworkError
from knotwork.sdk.memory import MemoryScope
from knotwork.trust.who import Who

LINES_MAX = 100_000
LINE_MAX_BYTES = 1024 * 1024
ERRORS_MAX = 100
PAGE = 500


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One memory in a file. What else stands in a line is passed over; times are RFC 3339."""

    content: str
    scope: str = "private"
    category: str = ""
    tags: list[str] = []
    priority: int = 2
    related: list[str] = []
    source: str = ""
    id: str = ""
    author: str = ""
    owner: str = ""
    project: str = ""
    created_at: str = ""
    updated_at: str = ""
    expires_at: str = ""
    version: int = 1
    origin: str = ""


_decoder = msgspec.json.Decoder(Line)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and where."""

    path: Path
    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What was read: how many were kept, were there already, or could not be; `errors` are (line, what is wrong)."""

    imported: int
    duplicates: int
    failed: int
    errors: tuple[tuple[int, str], ...]


class Carrying:
    """Writes and reads files of one project's memory."""

    def __init__(self, memory: Memory, reading: Reading, writing: Writing) -> None:
        """Find by `reading`, keep by `writing`."""
        self._memory, self._reading, self._writing = memory, reading, writing

    async def export(self, name: str, query: Query, who: Who, *, overwrite: bool) -> Exported:
        """Write what fits and may be seen; raises `Denied` (`memory.outside`), `Conflict` (`memory.file_exists`)."""
        file = files.allowed(name, self._memory.settings.folders, files.place_of(who))
        lines, cursor = [], ""
        while True:
            page = await self._reading.page(_with(query, cursor), who)
            lines += [_line(record) for record in page.records]
            cursor = page.next
            if not cursor:
                break
        size_bytes = await asyncio.to_thread(_write, file, lines, overwrite)
        return Exported(file.path, len(lines), size_bytes)

    async def load(
        self, name: str, who: Who, *, skip_invalid: bool, duplicates: Duplicates | None, scope: MemoryScope | None
    ) -> Imported:
        """Keep what stands in a file as one's own; `scope` puts all of it there.

        Without `skip_invalid` one bad line means that nothing is kept: `Invalid` (`memory.bad_file`) names them all.
        """
        file = files.allowed(name, self._memory.settings.folders, files.place_of(who))
        found = await asyncio.to_thread(lambda: list(_read(file)))
        drafts, errors = _drafts(found, scope)
        drafts, refused = await asyncio.to_thread(self._refused, drafts, who)  # before anything is kept
        errors = sorted([*errors, *refused])
        if errors and not skip_invalid:
            shown = "; ".join(f"line {number}: {why}" for number, why in errors[:5])
            raise Invalid(
                f"{len(errors)} lines of {file.path} are wrong: {shown}.", code="memory.bad_file",
                hint="Nothing was imported. Mend them, or say skip_invalid.",
                detail={"errors": [{"line": number, "message": why} for number, why in errors[:ERRORS_MAX]]},
            )  # fmt: skip

        def one(asked: tuple[int, Draft, str]) -> Awaitable[Remembered]:
            _, draft, origin = asked
            return self._writing.remember(draft, who, duplicates=duplicates, origin=origin)

        answers = await bulk.each(drafts, one, stop_on_error=False)
        failed = [
            (drafts[place][0], str(answer)) for place, answer in enumerate(answers) if isinstance(answer, KnotworkError)
        ]
        kept = [answer for answer in answers if isinstance(answer, Remembered)]
        twins = sum(bool(answer.duplicate_of) for answer in kept)
        all_errors = sorted([*errors, *failed])
        return Imported(len(kept) - twins, twins, len(all_errors), tuple(all_errors[:ERRORS_MAX]))

    def _refused(
        self, drafts: list[tuple[int, Draft, str]], who: Who
    ) -> tuple[list[tuple[int, Draft, str]], list[tuple[int, str]]]:
        """Return the drafts that may be kept, and what is wrong with the others: such as a secret in them."""
        kept, errors = [], []
        for number, draft, origin in drafts:
            try:
                self._writing.drafted(draft, who, origin=origin)
            except KnotworkError as error:
                errors.append((number, error.message[:200]))
            else:
                kept.append((number, draft, origin))
        return kept, errors


def _with(query: Query, cursor: str) -> Query:
    return Query(
        scopes=query.scopes, categories=query.categories, tags=query.tags, updated_after_ns=query.updated_after_ns,
        created_after_ns=query.created_after_ns, limit=PAGE, cursor=cursor,
    )  # fmt: skip


def _line(record: Record) -> bytes:
    line = Line(
        id=record.id, scope=record.scope, category=record.category, content=record.content, tags=list(record.tags),
        priority=record.priority, related=list(record.related), source=record.source, author=record.author.name,
        owner=record.author.owner, project=record.author.project, created_at=_at(record.created_ns),
        updated_at=_at(record.updated_ns), expires_at=_at(record.expires_ns), version=record.version,
        origin=record.origin,
    )  # fmt: skip
    return msgspec.json.encode(line) + b"\n"


def _at(when_ns: int) -> str:
    return datetime.fromtimestamp(when_ns / 1e9, UTC).isoformat() if when_ns else ""


def _write(file: files.Allowed, lines: list[bytes], overwrite: bool) -> int:  # noqa: FBT001  handed to a thread
    with files.writing(file, overwrite=overwrite) as opened:
        return sum(opened.write(line) for line in lines)


def _read(file: files.Allowed) -> Iterator[tuple[int, bytes]]:
    with files.reading(file) as opened:
        number = 0
        while line := opened.readline(LINE_MAX_BYTES + 1):
            number += 1
            if number > LINES_MAX:
                raise Invalid(f"{file.path} has more than {LINES_MAX} lines.", code="memory.bad_file", hint="Cut it.")
            while not line.endswith(b"\n") and len(line) > LINE_MAX_BYTES and (more := opened.readline(LINE_MAX_BYTES)):
                if more.endswith(b"\n"):
                    break
            if line.strip():
                yield number, line


def _drafts(
    found: list[tuple[int, bytes]], scope: MemoryScope | None
) -> tuple[list[tuple[int, Draft, str]], list[tuple[int, str]]]:
    """Return the drafts with their lines and origins, and what is wrong with the other lines."""
    drafts, errors = [], []
    for number, raw in found:
        try:
            line = _decoder.decode(raw)
            drafts.append((number, _draft(line, scope), f"import {line.id[:64]}".strip()))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            errors.append((number, str(error)[:200]))
        except KnotworkError as error:
            errors.append((number, error.message[:200]))
    return drafts, errors


def _draft(line: Line, scope: MemoryScope | None) -> Draft:
    wanted = scope or next((one for one in SCOPES if one == line.scope), None)
    if wanted is None:
        raise Invalid(f"there is no scope {line.scope[:40]!r}")
    known: dict[str, Category] = {category: category for category in CATEGORIES}
    category = known.get(line.category)
    if line.category and category is None:
        raise Invalid(f"there is no category {line.category[:40]!r}")
    if category is not None and (category in rules.OWN) != (wanted in OWN_SCOPES):
        category = "learnings" if wanted not in OWN_SCOPES else "longterm"  # it was of another kind of scope
    draft = Draft(
        line.content, wanted, category, tuple(line.tags), line.priority, tuple(line.related), line.source
    )  # fmt: skip
    rules.check(draft)
    return draft
