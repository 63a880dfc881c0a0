"""How is something remembered on one machine alone? In a SQLite file, synced before every answer; expired by a sweep."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from knotwork.sdk import (
    Context,
    Factory,
    Kept,
    MemoryChange,
    MemoryScope,
    MemoryStore,
    Place,
    PluginConfig,
    Unavailable,
)
from knotwork_plugins.memories.sqlite import database

if TYPE_CHECKING:
    from knotwork.sdk import Clock

T = TypeVar("T")
SWEEP_S = 1.0


class SqliteConfig(PluginConfig):
    """A file on this machine; other machines do not see what is in it."""

    path: str = Field(
        default="", max_length=4096, description="the database; nodes of one machine may share it; empty: its own"
    )
    look_every_s: float = Field(
        default=0.2, ge=0.02, le=60, description="seconds between two looks for changes of other processes"
    )


class Sqlite:
    """One connection in a thread of its own; what is asked at once is done one after the other."""

    def __init__(self, path: Path, db: sqlite3.Connection, clock: Clock, look_every_s: float) -> None:
        """Use `open_sqlite`."""
        self._path, self._file = path, database.identity(path)
        self._db, self._clock, self._look_every_s = db, clock, look_every_s
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="memory sqlite")
        self._stirred = asyncio.Event()

    async def store(self, place: Place, value: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Keep it; returns when it is on disk."""
        made = await self._do(
            lambda db: database.store(db, place, value, self._clock.time_ns(), revision=revision, ttl_s=ttl_s)
        )
        self._stir()
        return made

    async def get(self, place: Place) -> Kept | None:
        """Return what is there now; what is over is not, swept or not."""
        return await self._do(lambda db: database.get(db, place, self._clock.time_ns()))

    async def list(self, project: str, scope: MemoryScope | None = None, owner: str | None = None) -> Sequence[Kept]:
        """Return all of it."""
        return await self._do(lambda db: database.every(db, project, scope, owner, self._clock.time_ns()))

    async def delete(self, place: Place, *, revision: int | None = None) -> int:
        """Remove it."""
        made = await self._do(
            lambda db: database.store(db, place, None, self._clock.time_ns(), revision=revision, ttl_s=None)
        )
        self._stir()
        return made

    async def latest(self, project: str) -> int:
        """Return the revision of the newest change."""
        return await self._do(lambda db: database.latest(db, project))

    async def watch(
        self, project: str, on_change: Callable[[MemoryChange], None], on_current: Callable[[], None]
    ) -> None:
        """Look for changes, at once after one of our own, else every `look_every_s` seconds."""
        since, first = 0, True
        while True:
            stirred = self._stirred
            for change in await self._do(partial(database.changes, project=project, since=since)):
                since = change.revision
                on_change(change)
            if first:
                first = False
                on_current()
            try:
                async with asyncio.timeout(self._look_every_s):
                    await stirred.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """Let go of what is over, every second, until cancelled."""
        while True:
            if await self._do(lambda db: database.expire(db, self._clock.time_ns())):
                self._stir()
            await asyncio.sleep(SWEEP_S)

    def close(self) -> None:
        """Close the database once what was asked before is done."""
        self._threads.submit(self._db.close)
        self._threads.shutdown(wait=False)

    def _stir(self) -> None:
        stirred, self._stirred = self._stirred, asyncio.Event()
        stirred.set()

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it in the thread: a sync takes milliseconds that the loop has not."""

        def checked() -> T:
            self._check()
            return work(self._db)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, checked)
        except (sqlite3.Error, RuntimeError) as error:  # a full disk, a lock of others; or it was closed just now
            raise Unavailable(
                f"The memory database did not answer: {error}.", code="memory.store_failed", retry_after_s=1.0
            ) from error

    def _check(self) -> None:
        """Raise `Unavailable` (`memory.store_failed`) when another file lies there, or none: what we write would be lost."""
        try:
            if database.identity(self._path) == self._file:
                return
            told = "is another file than the one that is in use"
        except OSError as error:
            told = f"is not there any more ({error.strerror})"
        raise Unavailable(
            f"{self._path} {told}: nothing is remembered there.", code="memory.store_failed", retry_after_s=1.0,
            hint="It is opened anew in a moment, with what lies there then: put the file back.",
        )  # fmt: skip


def _path(config: SqliteConfig, context: Context) -> Path:
    return context.base / Path(config.path).expanduser() if config.path else context.folder / "memories.db"


@asynccontextmanager
async def open_sqlite(config: SqliteConfig, context: Context) -> AsyncIterator[MemoryStore]:
    """Open the file; raises `Unavailable` (`memory.store_failed`) when it cannot be."""
    path = _path(config, context)
    try:
        db = await asyncio.to_thread(database.connect, path)
        opened = Sqlite(path, db, context.clock, config.look_every_s)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"{path} cannot be opened: {error}.", code="memory.store_failed") from error
    try:
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(opened.sweep(), name="memory sweep")
            try:
                yield opened
            finally:
                sweeping.cancel()
    finally:
        opened.close()


FACTORY: Factory[MemoryStore] = Factory(
    name="sqlite",
    config=SqliteConfig,
    open=open_sqlite,
    summary="Remembers in a file of this machine; nothing leaves it.",
    abilities=("stores",),
)
