"""How may people query the database with SQL of their own? One SELECT, read-only, bounded in time, rows, bytes and memory.

Three locks lie behind each other: the file is opened read-only, SQLite is told to refuse whatever writes, and an
authorizer allows nothing but reading tables and calling functions.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from knotwork.sdk.errors import Invalid, TimedOut
from knotwork.view import reader

ROWS_MAX = 10_000
REPLY_MAX_BYTES = 700_000
"""Of all rows together: what fits into one message everywhere."""
VALUE_MAX_BYTES = 4 * 1024 * 1024
TIMEOUT_MAX_S = 30.0
HEAP_MAX_BYTES = 256 * 1024 * 1024
"""Of SQLite in this process, so that no sort can take the node's memory."""
STEPS = 50_000
QUERY_MAX = 20_000
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_FORBIDDEN = frozenset({"load_extension", "fts3_tokenizer", "edit", "readfile", "writefile", "fts5"})


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found; `truncated` when there was more than may be told."""

    columns: list[str]
    rows: list[dict[str, Any]]
    truncated: bool
    took_s: float


def run(path: Path, query: str, *, rows_max: int, timeout_s: float) -> Found:
    """Return what one SELECT finds. Blocks.

    Raises `Invalid` (`view.bad_sql`) for what is no query or may not be asked, `TimedOut` (`view.slow`), `Unavailable`
    (`view.not_ready`).
    """
    try:
        path.stat()
        db = reader.connect(path)
    except (sqlite3.Error, OSError) as error:
        raise reader.not_ready(error) from error
    try:
        _lock(db)
        began_s = time.monotonic()
        until_s = began_s + min(timeout_s, TIMEOUT_MAX_S)
        db.set_progress_handler(lambda: time.monotonic() > until_s, STEPS)
        return _ask(db, query, min(rows_max, ROWS_MAX), began_s)
    except MemoryError:
        raise Invalid(
            "This query needs more memory than it may take.", code="view.bad_sql", hint="Sort or group less at once."
        ) from None
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        raise _refusal(error, timeout_s) from error
    finally:
        db.close()


def _lock(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA temp_store = MEMORY")  # a sort must not fill the disk; memory is bounded
    db.execute(f"PRAGMA hard_heap_limit = {HEAP_MAX_BYTES}")
    db.execute("PRAGMA trusted_schema = 0")
    db.execute(
        "SELECT 1 FROM words WHERE words MATCH 'a' LIMIT 1"
    ).fetchall()  # the index gets ready before it is locked
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_MAX_BYTES)
    db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, QUERY_MAX)
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    db.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200)
    db.setlimit(sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50)
    db.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    db.set_authorizer(_may)


def _may(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA and first == "data_version":  # the index asks whether it was written
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _ask(db: sqlite3.Connection, query: str, rows_max: int, began_s: float) -> Found:
    cursor = db.execute(query)
    if cursor.description is None:
        raise Invalid("This is no query.", code="view.bad_sql", hint="Write one SELECT.")
    columns = _distinct([str(column[0]) for column in cursor.description])
    rows: list[dict[str, Any]] = []
    size = 0
    for values in cursor:
        row = dict(zip(columns, map(_plain, values), strict=True))
        size += len(msgspec.json.encode(row)) + 1
        if len(rows) >= rows_max or size > REPLY_MAX_BYTES:
            return Found(columns, rows, truncated=True, took_s=time.monotonic() - began_s)
        rows.append(row)
    return Found(columns, rows, truncated=False, took_s=time.monotonic() - began_s)


def _plain(value: Any) -> Any:
    """Return a value that JSON can say: blobs in hex, no infinity."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124  NaN alone differs from itself
        return str(value)
    return value


def _distinct(names: list[str]) -> list[str]:
    """Return column names of which none comes twice."""
    seen: dict[str, int] = {}
    made = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        made.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return made


def _refusal(error: Exception, timeout_s: float) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        return TimedOut(
            f"The query was not done within {min(timeout_s, TIMEOUT_MAX_S):g} s and was stopped.", code="view.slow",
            hint="Narrow it, or allow more time.",
        )  # fmt: skip
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return reader.not_ready(error)
    hint = "Only one SELECT may be asked; `select name, sql from sqlite_schema` shows the tables."
    return Invalid(f"SQLite refuses this query: {str(error).rstrip('.')}.", code="view.bad_sql", hint=hint)
