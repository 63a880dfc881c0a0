"""What can be asked about the past of a project? `View` answers from the local database, in a few milliseconds.

    view = await stack.enter_async_context(open_view(keeper, folder, project, connection))
    await view.task(run)             one task, or None
    await view.list(Filter(...))     pages of tasks, newest first, with a cursor
    await view.counts(("state",))    how many there are
    await view.outcome(run)          the outcome as it was recorded, also when FACTS has forgotten it
    await view.has_ended(task)       whether an attempt has ended, for certain

The database follows the streams by some 300 ms; `list`, `task` and `counts` wait a moment for what was stored before
they were asked (`FRESH_S`), and answer from what is there when that takes longer. Without room on the disk nothing
new gets there: then they refuse (`view.stuck`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from knotwork.bus import clock, digits, reading, subjects
from knotwork.sdk.errors import Busy, Unavailable
from knotwork.view import evidence, lists, runs, sql, vanished
from knotwork.view.lately import Lately
from knotwork.view.lists import By, Filter
from knotwork.view.reader import Reader

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.view.keeper import Followed, Keeper, Told
    from knotwork.view.vanished import Begun, Holds

FRESH_S = 0.25
BEGIN_S = 5.0
CERTAIN_S = 10.0
"""How long `has_ended` and `outcome` wait for a database that is behind."""
RECENT_S = 10.0
SEGMENTS_KEPT = 4
QUERIES_MAX = 2
Row = dict[str, Any]
"""One task: the columns of `lists.SHOWN`; `labels` is a dict, times are nanoseconds since 1970, 0 for never."""


class Attempt(Protocol):
    """What names one attempt; `work.records.Task` does."""

    @property
    def run(self) -> str:
        """The id of the task."""

    @property
    def iteration(self) -> int:
        """How often it was continued before."""

    @property
    def number(self) -> int:
        """Which try of that iteration."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some tasks, newest first. `cursor` gives the next page, "" when this is the last."""

    rows: list[Row]
    cursor: str


@dataclass(frozen=True, slots=True)
class Behind:
    """How far the database is behind the streams: messages not read yet, and how old what it shows may be."""

    messages: int
    seconds: float
    state: str
    why: str


class View:
    """The past of one project. Made by `open_view`."""

    def __init__(self, keeper: Keeper, followed: Followed, path: Path, connection: Connection) -> None:
        """Read `path`, which the keeper's process writes."""
        self.path, self.project = path, followed.order.project
        self.holds: Callable[[], Holds] | None = None
        """Says, as of now, who still has what it began; without it everybody has."""
        self._keeper, self._followed, self._connection = keeper, followed, connection
        self._reader = Reader(path, self._lost)
        self._lists = Reader(path, self._lost)  # a long one must not hold up who asks about one task
        self._segments: dict[int, Sequence[evidence.Packed]] = {}
        self._lately = Lately(connection)
        self._queries = asyncio.Semaphore(QUERIES_MAX)
        self._loop = asyncio.get_running_loop()

    # -- tasks -------------------------------------------------------------------------------------------------------

    async def task(self, run: str, *, fresh_s: float = FRESH_S) -> Row | None:
        """Return one task, None when it is not known here."""
        await self.catch_up(fresh_s)
        query = f"SELECT {', '.join(lists.SHOWN)} FROM tasks WHERE id = ?"  # noqa: S608  names of ours
        found = await self._reader.ask(lambda db: db.execute(query, (run,)).fetchone())
        return None if found is None else _row(found)

    async def attempts(self, run: str, *, fresh_s: float = FRESH_S) -> Sequence[Row]:
        """Return every attempt of a task, the first one first, as far as ARCHIVE remembers them."""
        await self.catch_up(fresh_s)

        def read(db: sqlite3.Connection) -> Sequence[Row]:
            cursor = db.execute("SELECT * FROM attempts WHERE id = ? ORDER BY iteration, number", (run,))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

        return await self._reader.ask(read)

    async def list(
        self, wanted: Filter | None = None, *, cursor: str = "", limit: int = 100, fresh_s: float = FRESH_S
    ) -> Page:
        """Return a page of the tasks that fit, newest first; raises `Invalid` for a cursor of other filters."""
        below, wanted = lists.read_cursor(cursor, wanted or Filter())
        limit = max(1, min(limit, lists.LIMIT_MAX))
        lists.page(wanted, below, limit)  # what is wrong with it is said before anything is waited for
        await self.catch_up(fresh_s)
        lost = await self._vanished()
        query, values = lists.page(wanted, below, limit + 1, vanished.places(lost))
        found = await self._lists.ask(lambda db: db.execute(query, values).fetchall())
        rows, more = found[:limit], len(found) > limit
        places = {one.ord for one in lost}
        return Page(
            [_row(row[1:], is_lost=row[0] in places) for row in rows],
            lists.write_cursor(rows[-1][0], wanted) if more else "",
        )

    async def counts(
        self, by: tuple[By, ...] = ("state",), wanted: Filter | None = None, *, fresh_s: float = FRESH_S
    ) -> dict[tuple[str, ...], int]:
        """Return how many tasks there are for each combination of `by`; only the same four fields narrow it."""
        wanted = wanted or Filter()
        query, values = lists.counts(by, wanted)
        await self.catch_up(fresh_s)
        lost = await self._vanished()
        found = await self._lists.ask(lambda db: db.execute(query, values).fetchall())
        counts = {tuple(row[:-1]): row[-1] for row in found}
        return vanished.recounted(counts, by, wanted, lost) if lost else counts

    async def ended_runs(self, *, limit: int = 100, fresh_s: float = FRESH_S, **wanted: Any) -> Sequence[Row]:
        """Return the runs of workflows that ended and fit, the newest first; `wanted` are fields of `runs.Ended`."""
        await self.catch_up(fresh_s)
        query, values = runs.listed(runs.Ended(**wanted), limit)
        found = await self._lists.ask(lambda db: db.execute(query, values).fetchall())
        return [runs.row(one) for one in found]

    async def outcome(self, run: str, *, lately: bool = True) -> bytes | None:
        """Return the last outcome of a task as it was recorded (JSON), None when it has none; the end of one that has ended.

        From FACTS while it is there, else from ARCHIVE; without `lately` only from there, as far as that is known by now.
        Raises `Unavailable` (`view.behind`).
        """
        if not subjects.is_run(run):
            return None
        if not lately:
            return await self._packed(run)
        facts, first = f"{subjects.facts_of(run)}.outcome.{subjects.STEP}.>", subjects.outcome(run, subjects.STEP, 0, 1)
        stored = await reading.last(self._connection, subjects.FACTS, facts)
        if stored is not None and (stored.subject == first or not await self._is_behind_the_end(run, stored.subject)):
            return stored.data
        found = await self._packed(run) if self.behind().seconds < RECENT_S else None
        if found is None:
            await self.synced(CERTAIN_S)
            found = await self._packed(run)
        return found

    async def has_ended(self, task: Attempt) -> bool:
        """Return whether an attempt has ended, by what was stored `RECENT_S` seconds before the call, or later.

        Whoever looked into FACTS just before knows it for certain: nothing leaves FACTS that was not in ARCHIVE for
        longer. Raises `Unavailable` (`view.behind`, `view.not_ready`) when that cannot be told within `CERTAIN_S`.
        """
        rank: int | None = None
        if self.behind().seconds <= RECENT_S:
            self._lately.forget()
        elif (rank := await self._lately.rank(task.run)) is None:
            await self.synced(CERTAIN_S)
        if rank is None:
            rank = await self._rank(task.run)
        if not rank:
            return False
        standing, asked = evidence.attempt_of(rank), evidence.attempt(task.iteration, task.number)
        return rank >= evidence.CLOSED or standing > asked or (standing == asked and evidence.is_end(rank))

    async def leads_to(self, run: str, iteration: int, number: int) -> bool | None:
        """Return whether the attempt before one calls for it, None when nothing is known of the one before.

        What FACTS has not is known here, as for `has_ended`; raises what that raises.
        """
        if self.behind().seconds > RECENT_S:
            await self.synced(CERTAIN_S)
        asked = evidence.attempt(iteration, number)

        def read(db: sqlite3.Connection) -> bool | None:
            row = db.execute("SELECT rank FROM tasks WHERE id = ?", (run,)).fetchone()
            if row is None:
                return None
            standing = evidence.attempt_of(row[0])
            if standing < asked and (row[0] >= evidence.CLOSED or not evidence.is_end(row[0])):
                return False
            before = "number = ? AND state IN ('waiting', 'dead')" if number > 1 else "number > ? AND state = 'pending'"
            place = (run, iteration, number - 1) if number > 1 else (run, iteration - 1, 0)
            query = f"SELECT 1 FROM ends WHERE id = ? AND iteration = ? AND {before}"  # noqa: S608  words of ours
            return True if db.execute(query, place).fetchone() else None

        return await self._reader.ask(read)

    # -- the database itself -----------------------------------------------------------------------------------------

    async def sql(self, query: str, *, rows_max: int = 1000, timeout_s: float = 10.0) -> sql.Found:
        """Return what one SELECT of somebody's own finds; see `sql.run`. Raises `Busy` (`view.busy`)."""
        if self._queries.locked():
            raise Busy(
                "Other queries are running.", code="view.busy", hint="Ask again when one has ended.", retry_after_s=1.0
            )
        async with self._queries:
            await self.catch_up(FRESH_S)
            return await asyncio.to_thread(sql.run, self.path, query, rows_max=rows_max, timeout_s=timeout_s)

    async def catch_up(self, timeout_s: float) -> None:
        """Wait until everything stored before the call is in the database, for `timeout_s` seconds at most.

        A view that has only just begun gets `BEGIN_S` for it. Raises `Unavailable` (`view.stuck`) when nothing can be
        written to the database: it would be taken for what is there.
        """
        if timeout_s > 0:
            if self._followed.told.caught_up_ns == 0:
                timeout_s = max(timeout_s, BEGIN_S)
            with contextlib.suppress(Unavailable):
                await self.synced(timeout_s)
                return
            if self._followed.told.stuck:
                raise _stuck(self._followed.told.why)

    async def synced(self, timeout_s: float) -> None:
        """Return when everything stored before the call is in the database; raises `Unavailable` (`view.behind`)."""
        await self._keeper.sync(self._followed, timeout_s)

    def behind(self) -> Behind:
        """Return how far the database is behind, as far as is known without asking; never known: the age of 1970."""
        told = self._followed.told
        return Behind(told.behind, max(0.0, (clock.now_ns() - told.caught_up_ns) / 1e9), told.state, told.why)

    def told(self) -> Told:
        """Return what the process that writes the database said last."""
        return self._followed.told

    @property
    def pid(self) -> int:
        """Return the number of the process that writes it, 0 while there is none."""
        return self._keeper.pid

    @property
    def starts(self) -> int:
        """Return how often that process was started."""
        return self._keeper.starts

    def rebuild(self) -> None:
        """Throw the database away; it is read from the streams again, at once."""
        self._keeper.rebuild(self._followed)

    def close(self) -> None:
        """Read no more."""
        self._reader.close()
        self._lists.close()
        self._keeper.leave(self._followed)

    def _lost(self) -> None:
        """Have a damaged database made anew; called by the thread that found out."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: whoever opens it next finds out, too
            self._loop.call_soon_threadsafe(self.rebuild)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _vanished(self) -> Sequence[Begun]:
        """Return the tasks that are on record as running and that nobody has any more."""
        if self.holds is None:
            return ()
        found = await self._lists.ask(vanished.oldest)
        holds = self.holds()
        nodes = vanished.suspects(found, holds)
        if nodes is None:
            return ()
        running = await self._lists.ask(lambda db: vanished.begun(db, nodes))
        return [one for one in running if not holds(one)]

    async def _is_behind_the_end(self, run: str, subject: str) -> bool:
        """Return whether an outcome is garbage, because an attempt before it ended the task."""
        rank = await self._rank(run)
        if rank is None or rank < evidence.CLOSED:
            return False
        iteration, number = (digits.read(part) for part in subject.split(".")[5:7])
        if iteration is None or number is None:
            return True
        return evidence.attempt_of(rank) < evidence.attempt(iteration, number)

    async def _rank(self, run: str) -> int | None:
        """Return what is known of the latest attempt of a task (`evidence`), None when the task is not known."""
        query = "SELECT rank FROM tasks WHERE id = ?"
        found = await self._reader.ask(lambda db: db.execute(query, (run,)).fetchone())
        return None if found is None else int(found[0])

    async def _packed(self, run: str) -> bytes | None:
        """Return the last outcome of a task as ARCHIVE has it."""
        query = "SELECT archived, iteration, attempts FROM tasks WHERE id = ? AND rank & 1 = 1"
        found = await self._reader.ask(lambda db: db.execute(query, (run,)).fetchone())
        if found is None or found[0] == 0:
            return None
        subject = subjects.outcome(run, subjects.STEP, found[1], found[2])
        return next((bytes(one.d) for one in await self._segment(found[0]) if one.s == subject), None)

    async def _segment(self, seq: int) -> Sequence[evidence.Packed]:
        """Return what is in a segment of ARCHIVE; the last few are kept, since neighbours are asked for together."""
        kept = self._segments.pop(seq, None)
        if kept is None:
            found = await reading.at(self._connection, subjects.ARCHIVE, ">", seq)
            if found is None:
                return []
            kept = await asyncio.to_thread(evidence.unpack, found.data)
        self._segments[seq] = kept
        if len(self._segments) > SEGMENTS_KEPT:
            del self._segments[next(iter(self._segments))]
        return kept


def _stuck(why: str) -> Unavailable:
    return Unavailable(
        f"The view of the past cannot be written on this node, so what it shows is old: {why}.", code="view.stuck",
        hint="Make room in its data folder, or ask another node; it goes on by itself.", retry_after_s=5.0,
    )  # fmt: skip


def _row(values: Any, *, is_lost: bool = False) -> Row:
    row = dict(zip(lists.SHOWN, values, strict=True))
    row["labels"] = json.loads(row["labels"])
    return vanished.shown(row) if is_lost and row["state"] == "running" else row


@asynccontextmanager
async def open_view(keeper: Keeper, folder: Path, project: str, connection: Connection) -> AsyncIterator[View]:
    """Follow a project inside the block; its database is `<folder>/<project>.db`."""
    path = folder / f"{project}.db"
    followed = keeper.follow(project, path, connection.endpoint)
    view = View(keeper, followed, path, connection)
    forget = connection.on_up(lambda: keeper.go_by(followed, connection.endpoint))
    try:
        yield view
    finally:
        forget()
        view.close()
