"""How does the node read the database? Read-only, in a thread of its own, and never for longer than it may take."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from knotwork.sdk.errors import TimedOut, Unavailable

T = TypeVar("T")
READ_S = 10.0
CACHE_KIB = 8 * 1024
STEPS = 20_000
"""After so many steps of SQLite, some milliseconds, it is looked whether time is over."""
_LOST = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT})


def connect(path: Path) -> sqlite3.Connection:
    """Open a database for reading alone; raises `sqlite3.Error`."""
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2.0, isolation_level=None, check_same_thread=False
    )
    db.execute("PRAGMA query_only = 1")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return db


class Reader:
    """One connection for what ops ask; work is done one after the other."""

    def __init__(self, path: Path, on_lost: Callable[[], None]) -> None:
        """Read `path`; `on_lost` is called when it turns out to be damaged."""
        self.path, self._on_lost = path, on_lost
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"view {path.stem}")
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` makes of the database.

        Raises `Unavailable` (`view.not_ready`) while there is none, `TimedOut` (`view.slow`) after `READ_S` seconds.
        """
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)
        except RuntimeError as error:  # closed: the project was left just now
            raise not_ready(error) from error
        return await asked

    def close(self) -> None:
        """Close it; what is being read ends by itself."""
        self._threads.submit(self._close)
        self._threads.shutdown(wait=False)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            db = self._open()
            until_s = time.monotonic() + READ_S
            db.set_progress_handler(lambda: time.monotonic() > until_s, STEPS)
            return work(db)
        except (sqlite3.Error, OSError, MemoryError) as error:
            self._close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_INTERRUPT:
                raise TimedOut(
                    f"The list was not ready within {READ_S:g} s.", code="view.slow", hint="Narrow it with a filter."
                ) from None
            if code in _LOST:
                self._on_lost()
            raise not_ready(error) from error

    def _open(self) -> sqlite3.Connection:
        """Return the open database: another one when the file was made anew."""
        inode = self.path.stat().st_ino
        if self._db is None or inode != self._inode:
            self._close()
            self._db, self._inode = connect(self.path), inode
        return self._db

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def not_ready(error: Exception) -> Unavailable:
    """Return the error of whoever asks for a database that is not there, or not yet."""
    return Unavailable(
        f"The view of the past is not ready: {error}.", code="view.not_ready",
        hint="It is built from the streams by itself; see `knotwork view status`.", retry_after_s=1.0,
    )  # fmt: skip
