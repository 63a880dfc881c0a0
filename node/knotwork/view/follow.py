"""How does the database of a project keep up? FACTS, TASKS and ARCHIVE are read on from where it stopped, again and again.

Nothing is kept on the server for it. A turn begins by asking how far the streams go, and ends when all of that is read.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, reading, space, streams, subjects
from knotwork.bus.background import together
from knotwork.bus.waits import set_within
from knotwork.sdk.errors import KnotworkError, NotFound, Unavailable
from knotwork.view.database import BEYOND_REPAIR, Place
from knotwork.view.fold import Message
from knotwork.view.writer import Writer

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

log = logging.getLogger(__name__)
IDLE_S, BUSY_S = 0.25, 0.1
"""How long after a turn the next one begins: one that found nothing, one that did."""
AGAIN_S, AGAIN_MAX_S = 0.25, 15.0
BATCH, SEGMENTS, HISTORIES = 2000, 2, 100
TELL_S = 0.2
FORGET_EVERY_S = 30.0
FAILURES_MAX = 5
"""After so many failures in a row that may pass or not the file is made anew."""
STREAMS = (subjects.TASKS, subjects.FACTS, subjects.ARCHIVE, subjects.HISTORY)


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a stream goes. `made` is what the server says about when it was made."""

    first: int
    last: int
    made: str
    max_age_ns: int


class Follower:
    """Keeps the database of one project up to date."""

    def __init__(self, project: str, path: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        """Write `path`; `tell` is given how it stands, whenever that is news."""
        self.project, self._path, self._tell = project, path, tell
        self._writer: Writer | None = None
        self._wake = asyncio.Event()
        self._wanted = self._synced = 0
        self._anew = False
        self._state, self._why, self._stuck = "starting", "", False
        self._caught_up_ns = 0
        self._behind = 0
        self._told_state = ""
        self._told_s = self._forgot_s = 0.0
        self._tasks_first = 0
        self._failures = 0

    def sync(self, number: int) -> None:
        """Read on at once; `number` is told back when everything stored before is in the database."""
        self._wanted = max(self._wanted, number)
        self._wake.set()

    def look(self) -> None:
        """Look at once whether the database is to be made anew, and what there is to read."""
        self._wake.set()

    def rebuild(self) -> None:
        """Throw the database away and read everything again."""
        self._anew = True
        self._wake.set()

    async def run(self, connection: Connection) -> None:
        """Follow over `connection`, for ever; whatever goes wrong is tried again."""
        forget = connection.on_up(self._wake.set)
        try:
            while True:
                pause_s = await self._safe_turn(connection)
                await set_within(self._wake, pause_s)
                self._wake.clear()
        finally:
            forget()
            if self._writer is not None:
                self._writer.close()

    async def _safe_turn(self, connection: Connection) -> float:
        """Take a turn, whatever happens, and return how long to wait for the next, in seconds."""
        try:
            found = await self._turn(connection)
        except (KnotworkError, OSError) as error:
            self._state, self._why, self._stuck = "waiting", str(error), isinstance(error, OSError)
        except sqlite3.Error as error:
            self._trouble(error)
        else:
            self._failures, self._stuck = 0, False
            return BUSY_S if found else IDLE_S
        self._report(news=True)
        return min(AGAIN_S * (1 << min(self._failures, 10)), AGAIN_MAX_S)

    def _trouble(self, error: sqlite3.Error) -> None:
        """Make a file anew that cannot be mended; wait for what may pass, such as a full disk."""
        self._failures += 1
        self._state, self._why, self._stuck = "waiting", f"{self._path.name}: {error}", True
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        passing = space.is_passing(error, self._path)
        if not passing and (code in BEYOND_REPAIR or self._failures > FAILURES_MAX):
            log.warning("%s is made anew: %s", self._path.name, error)
            self._anew = True
        else:
            log.warning("%s cannot be written just now: %s", self._path.name, error)

    # -- one turn ----------------------------------------------------------------------------------------------------

    async def _turn(self, connection: Connection) -> bool:
        """Read everything that is stored now; returns whether there was anything."""
        wanted, began_ns = self._wanted, clock.now_ns()
        writer = self._open()
        asked = [_extent(connection, name, is_known=name in writer.places) for name in STREAMS]
        extents = dict(zip(STREAMS, await together(*asked), strict=True))
        if _was_replaced(writer, extents):
            log.warning("the streams of %s were made anew, and so is the view", self.project)
            writer.make_anew()
            self._tasks_first = 0
        found = False
        while not self._is_read(writer, extents):
            found = True
            await self._step(connection, writer, extents)
            self._state, self._why = "reading", ""
            self._report()
        news = wanted > self._synced or self._told_state != "live"
        self._state, self._why, self._stuck = "live", "", False
        self._caught_up_ns, self._behind, self._synced = began_ns, 0, wanted
        self._forget(writer, extents[subjects.ARCHIVE], extents[subjects.HISTORY].first)
        self._tasks_first = extents[subjects.TASKS].first
        self._report(news=news)
        return found

    def _open(self) -> Writer:
        """Return the database, made anew when that was asked for or somebody took it away."""
        if self._writer is None:
            self._writer = Writer(self._path)
        elif self._anew:
            self._writer.make_anew()
        else:
            self._writer.check()
        self._anew = False
        return self._writer

    def _is_read(self, writer: Writer, extents: dict[str, Extent]) -> bool:
        behind = sum(max(0, extent.last - writer.place(name)) for name, extent in extents.items())
        self._behind = behind
        return behind == 0

    async def _step(self, connection: Connection, writer: Writer, extents: dict[str, Extent]) -> None:
        """Read and write one batch of each stream that goes further."""
        names = [name for name in STREAMS if writer.place(name) < extents[name].last]
        read = await together(*(_read(connection, name, writer.place(name), extents[name]) for name in names))
        found = {name: messages for name, (messages, _) in zip(names, read, strict=True)}
        places = {name: place for name, (_, place) in zip(names, read, strict=True)}
        # ends first: then an attempt in TASKS that has one need not even be decoded
        messages = [*found.get(subjects.FACTS, ()), *found.get(subjects.TASKS, ())]
        writer.apply(messages, found.get(subjects.ARCHIVE, ()), places, found.get(subjects.HISTORY, ()))

    def _forget(self, writer: Writer, archive: Extent, history_first: int) -> None:
        """Remove now and then what the streams have forgotten.

        What TASKS had forgotten at the end of the turn before has its end in FACTS or ARCHIVE by now, or none.
        """
        now_s = time.monotonic()
        if now_s - self._forgot_s < FORGET_EVERY_S:
            return
        ended_before_ns = clock.now_ns() - archive.max_age_ns if archive.max_age_ns else 0
        left = writer.forget_runs(history_first)
        if writer.forget(archive.first, ended_before_ns, self._tasks_first) == 0 and not left:
            self._forgot_s = now_s
        else:
            self._wake.set()

    # -- telling -----------------------------------------------------------------------------------------------------

    def _report(self, *, news: bool = False) -> None:
        now_s = time.monotonic()
        if not news and now_s - self._told_s < TELL_S:
            return
        self._told_s, self._told_state = now_s, self._state
        writer = self._writer
        self._tell({
            "project": self.project, "state": self._state, "why": self._why, "stuck": self._stuck,
            "synced": self._synced, "caught_up_ns": self._caught_up_ns, "behind": self._behind,
            "folded": writer.folded if writer else 0, "garbage": writer.garbage if writer else 0,
            "made": writer.made if writer else 0,
            "places": {name: place.seq for name, place in writer.places.items()} if writer else {},
        })  # fmt: skip


async def _extent(connection: Connection, stream: str, *, is_known: bool) -> Extent:
    """Return how far a stream goes; nothing for one that was never made."""
    try:
        answer = await streams.api(connection, f"STREAM.INFO.{stream}")
    except NotFound:
        if is_known:  # a cluster may say so for a moment: what was read stays until there is another stream
            raise
        return Extent(1, 0, "", 0)
    state, config = answer.get("state") or {}, answer.get("config") or {}
    return Extent(
        int(state.get("first_seq", 0)), int(state.get("last_seq", 0)), str(answer.get("created", "")),
        int(config.get("max_age", 0)),
    )  # fmt: skip


async def _read(connection: Connection, stream: str, place: int, extent: Extent) -> tuple[list[Message], Place]:
    """Return the next messages of a stream behind a place, and the place to go on from."""
    count = {subjects.ARCHIVE: SEGMENTS, subjects.HISTORY: HISTORIES}.get(stream, BATCH)
    found = await reading.batch(connection, stream, ">", place + 1, count)
    if not found:
        await _check_removed(connection, stream, place + 1)
    end = found[-1].seq if found else extent.last
    return [Message(one.subject, one.data, one.seq) for one in found], Place(end, extent.made)


async def _check_removed(connection: Connection, stream: str, place: int) -> None:
    """Return when nothing is stored from a place on any more; raises `Unavailable` when a replica only does not have it yet."""
    try:
        await streams.api(connection, f"STREAM.MSG.GET.{stream}", {"seq": place, "next_by_subj": ">"})
    except NotFound:
        return
    raise Unavailable(f"The replica of {stream} that answers is behind.", code="view.behind", retry_after_s=1.0)


def _was_replaced(writer: Writer, extents: dict[str, Extent]) -> bool:
    """Return whether a stream is not the one that was read: made at another time, or shorter than what was read."""
    for name, extent in extents.items():
        place = writer.places.get(name)
        if place is not None and (place.seq > extent.last or place.created not in (extent.made, "")):
            return True
    return False
