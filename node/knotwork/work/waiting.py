"""How does whoever awaits a task learn that it ended? FACTS tells every listener of each fact as it is stored.

One subscription for all who wait, held only while somebody does. Whoever begins to wait looks once whether the task
has ended already, and after a reconnect everybody does: a told fact can be missed, a stored one cannot. A store that
came back without the task will never tell of its end, so then whoever waits is told that there is no such task.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from knotwork.bus import patterns
from knotwork.bus.background import begin_in, heard
from knotwork.bus.pauses import Pauses, insist
from knotwork.sdk.errors import NotFound, TimedOut, Unreachable
from knotwork.work import fold, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection, Listening
    from knotwork.bus.wire import Message
    from knotwork.sdk.errors import KnotworkError
    from knotwork.work.records import Outcome

log = logging.getLogger(__name__)
Find = Callable[[str], Awaitable["Outcome | None"]]
IsThere = Callable[[str], Awaitable[bool]]
AGAIN_MIN_S, AGAIN_MAX_S = 0.05, 2.0
LINGER_S = 5.0
"""How long the subscription is kept when nobody waits any more."""


class Waiters:
    """All who await tasks of one project."""

    def __init__(self, group: asyncio.TaskGroup, connection: Connection, find: Find, is_there: IsThere) -> None:
        """Listen on `connection`; called in tasks of `group`, `find(run)` returns the final outcome of a run that ended.

        `is_there(run)` says whether anything is stored of a run.
        """
        self._group, self._connection, self._find, self._is_there = group, connection, find, is_there
        self._seen: set[str] = set()
        """What is awaited and was stored: of that alone can it be said that it is gone."""
        self._waiting: dict[str, list[asyncio.Future[Outcome]]] = {}
        self._listening: Listening | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def ended(self, run: str) -> Outcome:
        """Return the final outcome of a run that is stored, now or when it ends; bound it with `asyncio.timeout`.

        Raises `NotFound` (`work.not_found`) when the store comes back without it, and what `close` is given.
        """
        async with self.expected(run) as coming:
            self._seen.add(run)
            try:
                found = await self._find(run)
            except (Unreachable, TimedOut) as error:
                if error.code not in ("bus.lost", "bus.no_answer"):
                    raise
                found = None  # the server was killed, or is slow: no reason to wait no more
                begin_in(self._group, self._look(run))
            return found if found is not None else await coming

    @contextlib.asynccontextmanager
    async def expected(self, run: str) -> AsyncIterator[asyncio.Future[Outcome]]:
        """Give the final outcome to come of a run that is submitted inside the block, without having to look for it.

        It may end before its submission is answered: so who waits is on the list before.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, []).append(future)
        try:
            await self._listen()
            yield future
        finally:
            self._leave(run, future)

    async def _listen(self) -> None:
        """Make sure that what ends from now on is heard."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._listening is None:
            self._listening = await self._connection.listen(patterns.OUTCOMES_TOLD, self._told)
            await self._connection.round_trip()  # what ends after this is heard

    async def reconnected(self) -> None:
        """Look up everything that is awaited: what ended meanwhile was not told, and what is gone never will be.

        Raises what the store answers: then it must be done again.
        """
        for run in list(self._waiting):
            found = await self._find(run)
            if found is not None:
                self._tell(run, found)
            elif run in self._seen and not await self._is_there(run) and await self._find(run) is None:
                self._gone(run)

    def close(self, why: Callable[[], KnotworkError]) -> None:
        """Tell whoever waits why nothing is heard here any more."""
        for future in itertools.chain.from_iterable(self._waiting.values()):
            if not future.done():
                future.set_exception(why())

    def _told(self, message: Message) -> None:
        run = message.subject.split(".", 3)[2]
        if run not in self._waiting:
            return
        found = fold.outcome_at(message.subject, message.data)
        if found is None:
            log.warning("what was told on %s is no outcome of that task", message.subject)
        elif found[1].state not in records.FINAL:
            return
        elif found[0] == fold.FIRST and message.subject.split(".")[4] == records.STEP:
            self._tell(run, found[1])
        else:  # is it the end? anybody can tell of a later attempt
            begin_in(self._group, self._look(run))

    async def _look(self, run: str) -> None:
        """Look up how a run ended, if it did, and tell who waits for it."""

        async def told() -> None:
            found = await self._find(run)
            if found is not None:
                self._tell(run, found)

        pauses = Pauses(AGAIN_MIN_S, AGAIN_MAX_S)
        await insist(told, f"looking up {run}", pauses, wanted=lambda: run in self._waiting)

    def _tell(self, run: str, outcome: Outcome) -> None:
        for future in self._waiting.get(run, ()):
            if not future.done():
                future.set_result(outcome)

    def _gone(self, run: str) -> None:
        for future in self._waiting.get(run, ()):
            if not future.done():
                future.set_exception(
                    NotFound(
                        f"There is no task {run} any more: the store came back without it.", code="work.not_found",
                        hint="Submit it again; whether it was done, nobody can say.",
                    )
                )  # fmt: skip

    def _leave(self, run: str, future: asyncio.Future[Outcome]) -> None:
        if future.done():
            heard(future)  # whoever found out by himself meanwhile
        waiting = self._waiting[run]
        waiting.remove(future)
        if not waiting:
            del self._waiting[run]
            self._seen.discard(run)
        if not self._waiting and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(LINGER_S, self._rest)

    def _rest(self) -> None:
        listening, self._listening, self._idle = self._listening, None, None
        if listening is not None:
            self._connection.unlisten(listening)
