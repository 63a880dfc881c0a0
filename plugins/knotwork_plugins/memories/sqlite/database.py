"""How does the SQLite memory keep its word? One table, a counter of changes, and a sync before every answer.

What is removed leaves a row without a value for a while, so that whoever watches from another process hears of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from knotwork.sdk import Conflict, Kept, MemoryChange, MemoryScope, Place

NS = 1_000_000_000
GONE_KEPT_S = 3600
"""How long it is known that something was removed."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS memories (
  project TEXT NOT NULL,
  scope TEXT NOT NULL,
  owner TEXT NOT NULL,
  id TEXT NOT NULL,
  value BLOB,
  revision INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,
  PRIMARY KEY (project, scope, owner, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS memories_by_change ON memories (project, revision);
CREATE INDEX IF NOT EXISTS memories_by_end ON memories (expires_ns) WHERE expires_ns > 0;
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES (1, 0);
"""
_WHERE = "project = ? AND scope = ? AND owner = ? AND id = ?"


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, made when there is none; raises `sqlite3.Error`. Every commit is on disk when it returns."""
    db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    path.chmod(0o600)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(SCHEMA)
    return db


def identity(path: Path) -> tuple[int, int]:
    """Return which file lies at a path, whatever it is called; raises `OSError` when there is none."""
    found = path.stat()
    return found.st_dev, found.st_ino


def store(
    db: sqlite3.Connection, place: Place, value: bytes | None, now_ns: int, *, revision: int | None, ttl_s: int | None
) -> int:
    """Put a value, or None for none, where `revision` is (None: whatever is there); raises `Conflict`."""
    expires_ns = now_ns + ttl_s * NS if ttl_s is not None else 0
    db.execute("BEGIN IMMEDIATE")
    try:
        found = db.execute(f"SELECT revision, value, expires_ns FROM memories WHERE {_WHERE}", _key(place)).fetchone()  # noqa: S608  our own words
        there = found[0] if found is not None and _is_alive(found[1], found[2], now_ns) else 0
        if revision is not None and revision != there:
            raise Conflict(  # noqa: TRY301  taken back below
                f"Somebody else changed {place.id} first.", code="memory.changed", hint="Read it again."
            )
        made = next_revision(db)
        row = (*_key(place), value, made, expires_ns if value is not None else now_ns + GONE_KEPT_S * NS)
        db.execute("INSERT OR REPLACE INTO memories VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return made


def get(db: sqlite3.Connection, place: Place, now_ns: int) -> Kept | None:
    """Return what is there now."""
    found = db.execute(f"SELECT value, revision, expires_ns FROM memories WHERE {_WHERE}", _key(place)).fetchone()  # noqa: S608  our own words
    return Kept(place, found[0], found[1]) if found is not None and _is_alive(found[0], found[2], now_ns) else None


def every(db: sqlite3.Connection, project: str, scope: str | None, owner: str | None, now_ns: int) -> list[Kept]:
    """Return all that is there now."""
    rows = db.execute(
        "SELECT scope, owner, id, value, revision FROM memories WHERE project = ? AND value IS NOT NULL"
        " AND (expires_ns = 0 OR expires_ns > ?) AND scope = coalesce(?, scope) AND owner = coalesce(?, owner)",
        (project, now_ns, scope, owner),
    )
    return [Kept(_place(project, row), row[3], row[4]) for row in rows]


def changes(db: sqlite3.Connection, project: str, since: int) -> list[MemoryChange]:
    """Return what changed after a revision, in order."""
    rows = db.execute(
        "SELECT scope, owner, id, value, revision FROM memories WHERE project = ? AND revision > ? ORDER BY revision",
        (project, since),
    )
    return [MemoryChange(_place(project, row), row[3], row[4]) for row in rows]


def latest(db: sqlite3.Connection, project: str) -> int:
    """Return the revision of the newest change of a project."""
    found = db.execute("SELECT max(revision) FROM memories WHERE project = ?", (project,)).fetchone()
    return int(found[0] or 0)


def expire(db: sqlite3.Connection, now_ns: int) -> int:
    """Let go of what is over, and of what was removed long ago; returns how many records expired."""
    over = "SELECT project, scope, owner, id, value IS NULL FROM memories WHERE expires_ns > 0 AND expires_ns <= ?"
    if db.execute(f"{over} LIMIT 1", (now_ns,)).fetchone() is None:
        return 0
    db.execute("BEGIN IMMEDIATE")
    try:
        count = 0
        for project, scope, owner, id_, is_gone in _in_full(db, over, now_ns):
            key = (project, scope, owner, id_)
            if is_gone:
                db.execute(f"DELETE FROM memories WHERE {_WHERE}", key)  # noqa: S608  our own words
                continue
            until_ns, made = now_ns + GONE_KEPT_S * NS, next_revision(db)
            changed = "UPDATE memories SET value = NULL, revision = ?, expires_ns = ?"
            db.execute(f"{changed} WHERE {_WHERE}", (made, until_ns, *key))
            count += 1
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return count


def next_revision(db: sqlite3.Connection) -> int:
    """Return a number no change has had; inside a transaction."""
    found = db.execute("UPDATE counter SET revision = revision + 1 RETURNING revision").fetchall()
    return int(found[0][0])


def _in_full(db: sqlite3.Connection, query: str, now_ns: int) -> Iterator[tuple[str, str, str, str, int]]:
    yield from db.execute(query, (now_ns,)).fetchall()


def _key(place: Place) -> tuple[str, str, str, str]:
    return (place.project, place.scope, place.owner, place.id)


def _place(project: str, row: tuple[str, str, str, bytes, int]) -> Place:
    return Place(project, cast("MemoryScope", row[0]), row[1], row[2])


def _is_alive(value: bytes | None, expires_ns: int, now_ns: int) -> bool:
    return value is not None and (expires_ns == 0 or expires_ns > now_ns)
