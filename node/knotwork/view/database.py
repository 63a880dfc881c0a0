"""Can the database of a project be used as it is? It is opened, or made anew, and written all or nothing.

Everything in it can be read from the streams again: a file that is damaged, of another version, or gone is made anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from knotwork.bus import space
from knotwork.view import schema

log = logging.getLogger(__name__)
BUSY_S = 10.0
CACHE_KIB = 16 * 1024
CHECKPOINT_PAGES = 4000
BEYOND_REPAIR = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_FORMAT,
})  # fmt: skip
"""Errors that a file made anew does not have."""


def mark(path: Path) -> None:
    """Note beside a database that it is to be made anew, whoever writes it next; raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mark(path).touch(0o600)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.anew")


class Place(NamedTuple):
    """Up to where a stream was read, and when that stream was made, as the server says."""

    seq: int
    created: str


class Database:
    """The database of one project, open for writing. Not for threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it anew when it cannot be used as it is; raises `OSError`, `sqlite3.Error`."""
        self.path = path
        self.made = 0
        """How often the file was made anew by this process."""
        self._db: sqlite3.Connection | None = None
        self._files: tuple[int, int, int] = (0, 0, 0)
        self.places: dict[str, Place] = {}
        try:
            if _mark(path).exists():
                self.make_anew()
            else:
                self._open()
        except sqlite3.Error as error:
            if space.is_passing(error, path):
                raise
            log.warning("%s cannot be used and is made anew: %s", path.name, error)
            self.make_anew()

    @property
    def db(self) -> sqlite3.Connection:
        """Return the open file; raises `sqlite3.ProgrammingError` when it is closed."""
        if self._db is None:
            raise sqlite3.ProgrammingError("the database is closed")
        return self._db

    def place(self, stream: str) -> int:
        """Return up to which place a stream was read."""
        return self.places[stream].seq if stream in self.places else 0

    @contextlib.contextmanager
    def whole(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing inside the block."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.path.exists():
            for name in self._names()[1:]:  # a log without its file would be played into the new one
                name.unlink(missing_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, cached_statements=64)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            db.execute("PRAGMA journal_size_limit = 67108864")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                db.executescript(f"BEGIN; {schema.TABLES} PRAGMA user_version = {schema.VERSION}; COMMIT")
                self.made += 1
            elif version != schema.VERSION:
                raise sqlite3.DatabaseError(f"its version is {version}, not {schema.VERSION}")  # noqa: TRY301
            rows = db.execute("SELECT stream, seq, created FROM places").fetchall()
            db.execute("INSERT OR REPLACE INTO places VALUES ('', 0, '')")  # now the log is there, too
        except BaseException:
            db.close()
            raise
        self.places = {stream: Place(seq, created) for stream, seq, created in rows if stream}
        self._db, self._files = db, self._look()

    def make_anew(self) -> None:
        """Throw everything away; what the streams hold is read again from the beginning."""
        self.close()
        for name in self._names():
            name.unlink(missing_ok=True)
        self._open()
        _mark(self.path).unlink(missing_ok=True)

    def check(self) -> None:
        """Make the file anew when that was asked for, or somebody removed or cut it under us."""
        files = self._look()
        if _mark(self.path).exists():
            self.make_anew()
        elif files[:2] != self._files[:2] or files[2] < self._files[2]:
            log.warning("%s was removed or changed by somebody else, it is made anew", self.path.name)
            self.make_anew()
        self._files = files if files[:2] == self._files[:2] else self._files

    def close(self) -> None:
        """Close the file."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _names(self) -> tuple[Path, Path, Path]:
        return self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")

    def _look(self) -> tuple[int, int, int]:
        """Return what tells this file and its log from others, and the file's size."""
        try:
            file, wal = self.path.stat(), self._names()[1].stat()
        except FileNotFoundError:
            return 0, 0, 0
        return file.st_ino, wal.st_ino, file.st_size
