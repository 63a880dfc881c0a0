"""How does memory travel as a file? One JSON object a line, of what one may see; and back in, as the importer's own.

An import forges nobody: whatever a line says, its owner is the one who imports, who is its author, too, and its origin
says that it was imported. What is related to another line of the file is related to what that line became.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What a line asks to be remembered; `id` is what it was called where it comes from, "" when that is not told."""

    number: int
    draft: Draft
    id: str

    @property
    def origin(self) -> str:
        """Return what is written down of where it comes from."""
        return f"import {self.id[:64]}".strip()


class Carrying:
    """Writes and reads files of one project's memory."""

    def __init__(self, memory: Memory, reading: Reading, writing: Writing) -> None:
        """Find by `reading`, keep by `writing`."""
        self._memory, self._reading, self._writing = memory, reading, writing

    async def export(self, name: str, query: Query, who: Who, *, overwrite: bool) -> Exported:
        """Write what fits and may be seen, all of it or nothing.

        Raises `Denied` (`memory.outside`), `Conflict` (`memory.file_exists`), `Unavailable` (`memory.no_answer`).
        """
        file = files.allowed(name, self._memory.settings.folders, files.place_of(who))
        found = await self._reading.every(query, who)
        size_bytes = await asyncio.to_thread(_write, file, found, overwrite)
        return Exported(file.path, len(found), size_bytes)

    async def load(
        self, name: str, who: Who, *, skip_invalid: bool, duplicates: Duplicates | None, scope: MemoryScope | None
    ) -> Imported:
        """Keep what stands in a file as one's own; `scope` puts all of it there.

        Without `skip_invalid` one bad line means that nothing is kept: `Invalid` (`memory.bad_file`) names them all.
        What was kept until some time is kept until then; a line whose time is over is passed over, and named.
        """
        file = files.allowed(name, self._memory.settings.folders, files.place_of(who))
        found = await asyncio.to_thread(lambda: list(_read(file)))
        asked, errors, over = await asyncio.to_thread(_asked, found, scope, self._memory.now_ns())
        asked, refused = await asyncio.to_thread(self._refused, asked, who)  # before anything is kept
        errors = sorted([*errors, *refused])
        if errors and not skip_invalid:
            shown = "; ".join(f"line {number}: {why}" for number, why in errors[:5])
            raise Invalid(
                f"{len(errors)} lines of {file.path} are wrong: {shown}.", code="memory.bad_file",
                hint="Nothing was imported. Mend them, or say skip_invalid.",
                detail={"errors": [{"line": number, "message": why} for number, why in errors[:ERRORS_MAX]]},
            )  # fmt: skip

        ids = {line.id for line in asked if line.id}
        named: dict[str, str] = {}
        """What is called otherwise here than where it comes from."""

        def one(line: Asked) -> Awaitable[Remembered]:
            related = tuple(dict.fromkeys(named.get(other, other) for other in line.draft.related))
            draft = replace(line.draft, related=related)
            return self._writing.remember(draft, who, duplicates=duplicates, origin=line.origin)

        kept = twins = 0
        early: list[str] = []
        for wave in await asyncio.to_thread(lambda: list(waves(asked))):
            before = set(named)
            answers = await bulk.each(wave, one, stop_on_error=False)
            for line, answer in zip(wave, answers, strict=True):
                if isinstance(answer, Remembered):
                    kept, twins = kept + 1, twins + bool(answer.duplicate_of)
                    if not before >= {*line.draft.related} & ids:
                        early.append(answer.record.id)
                    named[line.id] = answer.record.id
                else:
                    errors.append((line.number, str(answer)))
        await self._relate(early, named, who)
        errors = sorted([*errors, *over])
        return Imported(kept - twins, twins, len(errors), tuple(errors[:ERRORS_MAX]))

    async def _relate(self, memories: Sequence[str], named: Mapping[str, str], who: Who) -> None:
        """Let those that came before what they are related to, in a circle, name it as it is called here."""

        def renamed(old: Record) -> Record:
            related = tuple(dict.fromkeys(named.get(other, other) for other in old.related))
            return msgspec.structs.replace(old, related=related)

        def one(memory: str) -> Awaitable[Record]:
            return self._memory.change(memory, who, "related", renamed)

        await bulk.each(memories, one, stop_on_error=False)

    def _refused(self, asked: list[Asked], who: Who) -> tuple[list[Asked], list[tuple[int, str]]]:
        """Return the lines that may be kept, and what is wrong with the others: such as a secret in them."""
        kept, errors = [], []
        for line in asked:
            try:
                self._writing.drafted(line.draft, who, origin=line.origin)
            except KnotworkError as error:
                errors.append((line.number, error.message[:200]))
            else:
                kept.append(line)
        return kept, errors


def waves(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Yield lines behind those that they are related to, so that it is known what these are called here (pure).

    Those that are related in a circle, and what is behind them, come together in the end.
    """
    places = {line.id: place for place, line in enumerate(asked) if line.id}
    sorter = TopologicalSorter[int]()
    for at, line in enumerate(asked):
        sorter.add(at, *({places[one] for one in line.draft.related if one in places} - {at}))
    with contextlib.suppress(CycleError):  # what is not in a circle, or behind one, is told all the same
        sorter.prepare()
    left = set(range(len(asked)))
    while ready := sorter.get_ready():
        yield [asked[place] for place in sorted(ready)]
        left -= {*ready}
        sorter.done(*ready)
    if left:
        yield [asked[place] for place in sorted(left)]


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


def _write(file: files.Allowed, found: list[Record], overwrite: bool) -> int:  # noqa: FBT001  handed to a thread
    with files.writing(file, overwrite=overwrite) as opened:
        return sum(opened.write(_line(record)) for record in found)


def _read(file: files.Allowed) -> Iterator[tuple[int, bytes]]:
    with files.reading(file) as opened:
        number = 0
        while line := opened.readline(LINE_MAX_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)  # editors and shells of Windows write it
            if number > LINES_MAX:
                raise Invalid(f"{file.path} has more than {LINES_MAX} lines.", code="memory.bad_file", hint="Cut it.")
            while not line.endswith(b"\n") and len(line) > LINE_MAX_BYTES and (more := opened.readline(LINE_MAX_BYTES)):
                if more.endswith(b"\n"):
                    break
            if line.strip():
                yield number, line


def _asked(
    found: list[tuple[int, bytes]], scope: MemoryScope | None, now_ns: int
) -> tuple[list[Asked], list[tuple[int, str]], list[tuple[int, str]]]:
    """Return what lines ask for, what is wrong with others, and those whose time is over."""
    asked, errors, over = [], [], []
    for number, raw in found:
        try:
            if len(raw) > LINE_MAX_BYTES and not raw.endswith(b"\n"):
                raise Invalid(f"the line has more than {LINE_MAX_BYTES} bytes")
            line = _decoder.decode(raw)
            ends_ns = _ends_ns(line.expires_at)
            if ends_ns and ends_ns <= now_ns:
                over.append((number, f"it was kept until {line.expires_at}, which is over"))
                continue
            asked.append(Asked(number, _draft(line, scope, rules.left_s(ends_ns, now_ns)), line.id))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            errors.append((number, str(error)[:200]))
        except KnotworkError as error:
            errors.append((number, error.message[:200]))
    return asked, errors, over


def _ends_ns(text: str) -> int:
    """Return until when a line is kept, 0 for ever; raises `Invalid` for what is no time."""
    if not text:
        return 0
    try:
        when = datetime.fromisoformat(text)
        return int((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() * 1e9)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"expires_at {text[:40]!r} is no time (RFC 3339)") from error


def _draft(line: Line, scope: MemoryScope | None, left_s: int | None) -> Draft:
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
        line.content, wanted, category, tuple(line.tags), line.priority, tuple(line.related), line.source, left_s
    )  # fmt: skip
    rules.check(draft)
    return draft
