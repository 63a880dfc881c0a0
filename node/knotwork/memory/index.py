"""How does a node find memories fast? In a SQLite database of its own, made anew from the stores whenever it opens.

BM25 is SQLite's (FTS5). Everything here runs in one thread; nothing here decides who may see what: `rules.sights` says
where to look, and `rules.may_read` judges what was found.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from knotwork.memory.letters import composed, folded, pieces_of
from knotwork.memory.model import CATEGORIES, Category, Record
from knotwork.memory.rules import Sight
from knotwork.sdk.memory import MemoryScope, Place

SCHEMA = """
CREATE TABLE items (
  ord INTEGER PRIMARY KEY,
  realm TEXT NOT NULL,
  place TEXT NOT NULL,
  id TEXT NOT NULL,
  scope TEXT NOT NULL,
  owner TEXT NOT NULL,
  category TEXT NOT NULL,
  rank INTEGER NOT NULL,
  author TEXT NOT NULL,
  priority INTEGER NOT NULL,
  created_ns INTEGER NOT NULL,
  updated_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,
  forgotten INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  sight TEXT NOT NULL,
  tags TEXT NOT NULL,
  head BLOB NOT NULL,
  content TEXT NOT NULL,
  UNIQUE (scope, owner, place, realm)
);
CREATE INDEX items_by_id ON items (id);
CREATE INDEX items_by_count ON items (scope, owner, category, forgotten, expires_ns, author);
CREATE INDEX items_in_order ON items (scope, owner, rank, updated_ns DESC, id);
CREATE VIRTUAL TABLE words USING fts5(
  content, tags, sight, content='items', content_rowid='ord', tokenize="porter unicode61 remove_diacritics 2"
);
CREATE TRIGGER items_in AFTER INSERT ON items BEGIN
  INSERT INTO words(rowid, content, tags, sight) VALUES (new.ord, composed(new.content), new.tags, new.sight);
END;
CREATE TRIGGER items_out AFTER DELETE ON items BEGIN
  INSERT INTO words(words, rowid, content, tags, sight)
    VALUES ('delete', old.ord, composed(old.content), old.tags, old.sight);
END;
"""
_COLUMNS = (
    "realm, place, id, scope, owner, category, rank, author, priority, created_ns, updated_ns, expires_ns, forgotten,"
    " revision, sight, tags, head, content"
)
_PUT = f"INSERT INTO items ({_COLUMNS}) VALUES ({', '.join('?' * 18)})"  # noqa: S608  our own words
_OUT = "DELETE FROM items WHERE scope = ? AND owner = ? AND place = ? AND realm = ?"
_WORD = re.compile(r"\w+")
WORDS_MAX, RANKED_MAX = 32, 1000
"""As many words of a query count, and as many of the memories that have them are put in order: those written last."""
BEGINNING_MIN = 3
"""The last word of a query may be one that is still being written, when it is so long and few have it as it is."""
_SEPARATOR = "\x1f"
_AUTHORS = "json_extract(CAST(head AS TEXT), '$.author."
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the index: a record with its revision, or None for what is gone."""

    place: Place
    record: Record | None
    revision: int


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the index has it (without its past), and the revision it was read at."""

    record: Record
    revision: int


@dataclass(frozen=True, slots=True)
class Filter:
    """What is looked for. Times in nanoseconds; `hidden` are ids of authors whose memories are not shown."""

    sights: tuple[Sight, ...]
    now_ns: int
    categories: tuple[Category, ...] = ()
    tags: tuple[str, ...] = ()
    priority_min: int = 1
    priority_max: int = 3
    created_after_ns: int = 0
    created_before_ns: int = 0
    updated_after_ns: int = 0
    updated_before_ns: int = 0
    author: str = ""
    hidden: tuple[str, ...] = ()
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class After:
    """Where a page begins: behind the row with these."""

    rank: int
    updated_ns: int
    id: str


Counts = dict[tuple[MemoryScope, Category], tuple[int, int, int]]
"""By scope and category: how many there are, how many of them are over, and how many of the others were forgotten."""
COUNTED_MAX = 1000


class Index:
    """The database. Used by one thread at a time."""

    def __init__(self, path: Path | None) -> None:
        """Make it anew at `path`, in memory without one; raises `sqlite3.Error`, `OSError`."""
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in (path, path.with_name(f"{path.name}-journal")):
                old.unlink(missing_ok=True)
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        if path is not None:
            path.chmod(0o600)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;")
        for name, of in (("composed", composed), ("folded", folded)):
            self._db.create_function(name, 1, of, deterministic=True)
        self._db.executescript(SCHEMA)
        self._counted: dict[tuple[tuple[Sight, ...], tuple[str, ...]], tuple[int, Counts]] = {}

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def apply(self, changes: Iterable[Change]) -> None:
        """Take in changes, in order; one older than what is there is passed over, and revision 0 counts as newest."""
        self._counted.clear()
        self._db.execute("BEGIN")
        for change in changes:
            place = change.place
            key = (place.scope, place.owner, place.id, place.project)
            known = self._db.execute(
                "SELECT revision FROM items WHERE scope = ? AND owner = ? AND place = ? AND realm = ?", key
            ).fetchone()
            if known is not None:
                if change.revision and known[0] >= change.revision:
                    continue
                self._db.execute(_OUT, key)
            if change.record is not None:
                self._db.execute(_PUT, _row(place, change.record, change.revision))
        self._db.execute("COMMIT")

    def keep_only(self, realm: str, scopes: Sequence[str], places: set[Place]) -> list[Place]:
        """Drop what lies in a realm's scopes but not in one of these places; returns what was dropped."""
        marks = ", ".join("?" * len(scopes))
        rows = self._db.execute(
            f"SELECT realm, scope, owner, place FROM items WHERE realm = ? AND scope IN ({marks})",  # noqa: S608  our own words
            (realm, *scopes),
        ).fetchall()
        gone = [place for row in rows if (place := Place(*row)) not in places]
        self.apply([Change(place, None, 0) for place in gone])
        return gone

    def find(self, memory: str) -> list[Row]:
        """Return every record of an id: one, unless a move was interrupted."""
        rows = self._db.execute("SELECT head, content, revision FROM items WHERE id = ?", (memory,)).fetchall()
        return [_read(row) for row in rows]

    def taken(self, places: Sequence[Place]) -> dict[str, tuple[bool, int, int]]:
        """Return by place whether what lies there was forgotten, since when, and until when it is kept."""
        if not places:
            return {}
        one = places[0]
        rows = self._db.execute(
            "SELECT place, forgotten, updated_ns, expires_ns FROM items WHERE scope = ? AND owner = ? AND realm = ?"
            " AND place >= 'c' AND place < 'd'",
            (one.scope, one.owner, one.project),
        )
        wanted = {place.id for place in places}
        return {row[0]: (bool(row[1]), row[2], row[3]) for row in rows if row[0] in wanted}

    def page(self, wanted: Filter, limit: int, after: After | None = None, *, newest: bool = False) -> list[Row]:
        """Return up to `limit` records: by category, then newest first; with `newest` by time alone."""
        found: list[tuple[int, int, str, Row]] = []
        order = "updated_ns DESC, id" if newest else "rank, updated_ns DESC, id"
        for sight in wanted.sights:
            where, values = _where(wanted, (sight,))
            if after is not None:
                behind = "(updated_ns < ? OR (updated_ns = ? AND id > ?))"
                where += f" AND {behind}" if newest else f" AND (rank > ? OR (rank = ? AND {behind}))"
                values += [after.updated_ns, after.updated_ns, after.id] if newest else _behind(after)
            query = f"SELECT rank, updated_ns, id, head, content, revision FROM items WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608  our own words
            rows = self._db.execute(query, (*values, limit))
            found += [(0 if newest else row[0], -row[1], row[2], _read(row[3:])) for row in rows]
        return [row[3] for row in sorted(found, key=lambda one: one[:3])[:limit]]

    def words(self, wanted: Filter, text: str, limit: int) -> list[str]:
        """Return the ids of what has words of a text, best first (BM25); when nothing has, of what holds its pieces.

        What has all of them comes first, then what has those that few others have, then the newest with the rest. The
        first ones are the same whatever the `limit`: a page after another asks for more.
        """
        terms = [f'"{term}"' for term in dict.fromkeys(_WORD.findall(composed(text))[:WORDS_MAX])]
        if terms and len(terms[-1]) >= BEGINNING_MIN + 2 and not self._is_common(terms[-1]):
            terms[-1] = f"({terms[-1]} OR {terms[-1]}*)"
        found: dict[str, None] = {}
        if terms and wanted.sights:
            if len(terms) > 1:
                found |= dict.fromkeys(self._ranked(wanted, " AND ".join(terms), limit))
            if len(found) < limit:
                rare = [term for term in terms if not self._is_common(term)]
                found |= dict.fromkeys(self._ranked(wanted, " OR ".join(rare or terms), limit))
                if rare and len(rare) < len(terms) and len(found) < limit:
                    found |= dict.fromkeys(self._ranked(wanted, " OR ".join(terms), limit, newest=True))
        if found:
            return list(found)[:limit]
        where, values = _where(wanted, wanted.sights)
        lower = "lower" if text.isascii() else "folded"  # SQLite knows the small letters of ASCII alone, and fast
        pieces = pieces_of(text)[:WORDS_MAX]
        holds = " AND ".join([f"instr({lower}(content), {lower}(?))"] * len(pieces))
        rows = self._db.execute(
            f"SELECT id FROM items WHERE {holds} AND {where} ORDER BY rank, updated_ns DESC, id LIMIT ?",  # noqa: S608  our own words
            (*pieces, *values, limit),
        ).fetchall()
        return [row[0] for row in rows]

    def _is_common(self, term: str) -> bool:
        """Return whether more have a word than are put in order."""
        query = "SELECT 1 FROM words WHERE words MATCH ? LIMIT 1 OFFSET ?"
        return self._db.execute(query, (f"{{content tags}} : {term}", RANKED_MAX)).fetchone() is not None

    def _ranked(self, wanted: Filter, said: str, limit: int, *, newest: bool = False) -> list[str]:
        """Return the ids of what fits words, best first; of very many those written last, with `newest` them alone."""
        where, values = _where(wanted, wanted.sights)
        seen = " OR ".join(f'"{_sight(sight.scope, sight.owner)}"' for sight in wanted.sights)
        asked = f"sight : ({seen}) AND {{content tags}} : ({said})"
        since = None
        if not newest:
            query = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT 1 OFFSET ?"
            since = self._db.execute(query, (asked, RANKED_MAX)).fetchone()
        order = "words.rowid DESC" if newest else "bm25(words, 1.0, 2.0, 0.0), updated_ns DESC, id"
        rows = self._db.execute(
            "SELECT id FROM words JOIN items ON items.ord = words.rowid"  # noqa: S608  our own words
            f" WHERE words MATCH ? AND words.rowid > ? AND {where} ORDER BY {order} LIMIT ?",
            (asked, since[0] if since is not None else 0, *values, limit),
        )
        return [row[0] for row in rows]

    def fitting(self, wanted: Filter, ids: Sequence[str]) -> list[str]:
        """Return those of these ids that fit, in their order."""
        where, values = _where(wanted, wanted.sights)
        marks = ", ".join("?" * len(ids))
        query = f"SELECT id FROM items INDEXED BY items_by_id WHERE id IN ({marks}) AND {where}"  # noqa: S608  our own words
        found = {row[0] for row in self._db.execute(query, (*ids, *values))}
        return [one for one in ids if one in found]

    def named(self, wanted: Filter, ids: Sequence[str]) -> list[Row]:
        """Return the records of those of these ids that fit, in their order."""
        where, values = _where(wanted, wanted.sights)
        marks = ", ".join("?" * len(ids))
        query = (
            "SELECT head, content, revision FROM items INDEXED BY items_by_id"  # noqa: S608  our own words; else all are read
            f" WHERE id IN ({marks}) AND {where}"
        )
        rows = {row.record.id: row for row in map(_read, self._db.execute(query, (*ids, *values)))}
        return [rows[one] for one in ids if one in rows]

    def counts(self, wanted: Filter) -> Counts:
        """Return by scope and category how many there are, how many of them are over, and how many were forgotten."""
        key = (wanted.sights, wanted.hidden)
        known = self._counted.get(key)
        if known is not None and wanted.now_ns < known[0]:
            return known[1]
        found: Counts = {}
        next_ns = 2**63 - 1
        hidden, names = _hidden(wanted)
        for sight in wanted.sights:
            where, values = _place_of(sight)
            query = (
                "SELECT scope, category, count(*), sum(expires_ns > 0 AND expires_ns <= ?),"  # noqa: S608  our own words
                " sum(forgotten AND (expires_ns = 0 OR expires_ns > ?)),"
                f" min(iif(expires_ns > ?, expires_ns, NULL)) FROM items WHERE {where}{hidden} GROUP BY scope, category"
            )
            rows = self._db.execute(query, (*[wanted.now_ns] * 3, *values, *names))
            for scope, category, count, over, forgotten, end_ns in rows:
                before = found.get((scope, category), (0, 0, 0))
                found[scope, category] = (before[0] + count, before[1] + over, before[2] + forgotten)
                next_ns = min(next_ns, end_ns or next_ns)
        if len(self._counted) >= COUNTED_MAX:
            self._counted.clear()
        self._counted[key] = (next_ns, found)
        return found

    def everything(self) -> list[tuple[Place, Record]]:
        """Return all that is not forgotten."""
        rows = self._db.execute(
            "SELECT realm, scope, owner, place, head, content, revision FROM items WHERE NOT forgotten"
        )
        return [(Place(*row[:4]), _read(row[4:]).record) for row in rows]

    def author_ids(self, name: str) -> dict[str, str]:
        """Return the ids, with their names, of authors who have this name or id."""
        rows = self._db.execute(
            f"SELECT DISTINCT author, {_AUTHORS}name') FROM items WHERE author = ? OR {_AUTHORS}name') = ?",  # noqa: S608  our own words
            (name, name),
        )
        return dict(rows.fetchall())

    def written_by(self, author: str) -> int:
        """Return how many memories an author has."""
        return int(self._db.execute("SELECT count(*) FROM items WHERE author = ?", (author,)).fetchone()[0])


def _row(place: Place, record: Record, revision: int) -> tuple[object, ...]:
    head = _encoder.encode(msgspec.structs.replace(record, content="", past=()))
    tags = _SEPARATOR.join(["", *(tag.casefold() for tag in record.tags), ""]) if record.tags else ""
    return (
        place.project, place.id, record.id, record.scope, record.owner, record.category, CATEGORIES.index(record.category),
        record.author.id, record.priority, record.created_ns, record.updated_ns, record.expires_ns, record.forgotten,
        revision, _sight(record.scope, record.owner), tags, head, record.content,
    )  # fmt: skip


def _read(row: tuple[bytes, str, int]) -> Row:
    return Row(msgspec.structs.replace(_decoder.decode(row[0]), content=row[1]), row[2])


def _sight(scope: str, owner: str) -> str:
    """Return a word for those who may see it, so that a search begins with what they have."""
    return f"{scope}{hashlib.blake2b(owner.encode(), digest_size=8).hexdigest()}0"


def _behind(after: After) -> list[object]:
    return [after.rank, after.rank, after.updated_ns, after.updated_ns, after.id]


def _place_of(sight: Sight) -> tuple[str, list[object]]:
    where = "scope = ? AND owner = ?" + ("" if sight.core else " AND category != 'core'")
    values: list[object] = [sight.scope, sight.owner]
    if sight.author:
        where, values = f"{where} AND author = ?", [*values, sight.author]
    if sight.person:
        where, values = f"{where} AND {_AUTHORS}owner') = ?", [*values, sight.person]
    return where, values


def _hidden(wanted: Filter) -> tuple[str, list[object]]:
    marks = ", ".join("?" * len(wanted.hidden))
    return (f" AND author NOT IN ({marks})", list(wanted.hidden)) if wanted.hidden else ("", [])


def _where(wanted: Filter, sights: Sequence[Sight]) -> tuple[str, list[object]]:
    """Return the condition of a filter and its values."""
    places = [_place_of(sight) for sight in sights]
    parts = ["(" + " OR ".join(f"({where})" for where, _ in places) + ")" if places else "0"]
    values: list[object] = [value for _, some in places for value in some]

    def add(part: str, *more: object) -> None:
        parts.append(part)
        values.extend(more)

    add("forgotten = ?", int(wanted.forgotten))
    add("(expires_ns = 0 OR expires_ns > ?)", wanted.now_ns)
    if wanted.categories:
        add(f"category IN ({', '.join('?' * len(wanted.categories))})", *wanted.categories)
    for tag in wanted.tags:
        add("instr(items.tags, ?)", f"{_SEPARATOR}{tag.casefold()}{_SEPARATOR}")
    if (wanted.priority_min, wanted.priority_max) != (1, 3):
        add("priority BETWEEN ? AND ?", wanted.priority_min, wanted.priority_max)
    if wanted.author:
        add("author = ?", wanted.author)
    for column, after_ns, before_ns in (
        ("created_ns", wanted.created_after_ns, wanted.created_before_ns),
        ("updated_ns", wanted.updated_after_ns, wanted.updated_before_ns),
    ):
        if after_ns:
            add(f"{column} >= ?", after_ns)
        if before_ns:
            add(f"{column} < ?", before_ns)
    hidden, names = _hidden(wanted)
    return " AND ".join(parts) + hidden, values + names
