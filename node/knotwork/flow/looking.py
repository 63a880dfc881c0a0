"""How is a run, and how did it end? Read from its facts, or from the past once they are packed away; by any node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import reading, subjects
from knotwork.flow import again, anew, decide, facts, history
from knotwork.flow.run import Run, begin
from knotwork.sdk.errors import Invalid, NotFound, TimedOut, Unavailable, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.bus.wire import Message
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.facts import Fact, Finish, Start
    from knotwork.flow.history import Keeps

log = logging.getLogger(__name__)
AGAIN_S = 0.5
_BY_TIME = re.compile(r"w([0-9a-f]{12})[0-9a-f]{10}").fullmatch
"""The id of a run that was not derived from a key begins with the milliseconds since 1970."""
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Sight:
    """A run as it is: its start, what its facts add up to, and its end when it has one."""

    id: str
    start: Start
    run: Run
    finish: Finish | None
    facts: list[Stored]


class Looking:
    """The runs of one project, as they can be looked at."""

    def __init__(self, connection: Connection, definitions: Definitions, keeps: Callable[[], Keeps]) -> None:
        """Read over `connection`; `keeps()` says how much of the past is kept."""
        self._connection, self._definitions, self._keeps = connection, definitions, keeps
        self._waiting: dict[str, list[asyncio.Future[Finish]]] = {}

    async def open(self) -> None:
        """Listen for ends."""
        await self._connection.listen("told.*.*.ended", self._told)  # tasks have no such fact

    # -- looking -----------------------------------------------------------------------------------------------------

    async def look(self, run: str, *, up_to: int | None = None) -> Sight:
        """Return a run as it is, or as it was after its first `up_to` facts; raises `NotFound` (`flow.no_run`)."""
        check_id(run)
        found = await history.all_facts(self._connection, run)
        if not any(stored.subject.endswith(".start") for stored in found):
            found = await history.kept_facts(self._connection, run)
        known = [fact for stored in found[:up_to] if (fact := read(stored)) is not None]
        start = next((fact.body for fact in known if isinstance(fact.body, facts.Start)), None)
        if start is None:
            raise missing(run, self._keeps(), time.time_ns())
        graph = await self._definitions.graph(start.digest)
        seen = folded(run, graph, known)
        finish = next((fact.body for fact in known if isinstance(fact.body, facts.Finish)), None)
        return Sight(run, start, seen, finish, found)

    async def ended(self, run: str) -> Finish:
        """Return how a run ended, or the last that goes on for it, now or then; bound it with `asyncio.timeout`."""
        finish = await self._ended(check_id(run))
        while finish.next:
            finish = await self._ended(await anew.latest(self._connection, finish.next))
        return finish

    async def latest(self, run: str) -> str:
        """Return the last run that goes on for one; itself when there is none."""
        return await anew.latest(self._connection, check_id(run))

    async def _ended(self, run: str) -> Finish:
        future: asyncio.Future[Finish] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, []).append(future)
        try:
            while not future.done():
                try:
                    found = await self._finish(run)
                except (Unreachable, Unavailable, TimedOut) as error:
                    log.debug("whether %s has ended is looked up in a moment: %s", run, error)
                    await asyncio.wait([future], timeout=AGAIN_S)
                else:
                    return found if found is not None else await future
            return future.result()
        finally:
            waiting = self._waiting[run]
            waiting.remove(future)
            if not waiting:
                del self._waiting[run]

    async def over(self, run: str) -> bool:
        """Return whether a run has ended, and all that go on for it; raises `NotFound` (`flow.no_run`)."""
        finish = await self._finish(check_id(run))
        if finish is not None and finish.next:
            finish = await self._finish(await self.latest(run))
        return finish is not None

    async def _finish(self, run: str) -> Finish | None:
        places = [facts.subject(run, what) for what in ("ended", "start")]
        found = {one.subject: one.data for one in await reading.each_last(self._connection, subjects.FACTS, places)}
        if places[0] in found:
            return msgspec.json.decode(found[places[0]], type=facts.Finish)
        if places[1] in found:
            return None
        for kept in await history.kept_facts(self._connection, run):
            fact = read(kept)
            if fact is not None and isinstance(fact.body, facts.Finish):
                return fact.body
        raise missing(run, self._keeps(), time.time_ns())

    def _told(self, message: Message) -> None:
        run = message.subject.split(".", 3)[2]
        if run not in self._waiting:
            return
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            finish = msgspec.json.decode(message.data, type=facts.Finish)
            for future in self._waiting[run]:
                if not future.done():
                    future.set_result(finish)

    async def reconnected(self) -> None:
        """Look up what is awaited: what ended meanwhile was not told."""
        for run, futures in list(self._waiting.items()):
            finish = await self._finish(run)
            for future in futures if finish is not None else ():
                if not future.done() and finish is not None:
                    future.set_result(finish)

    async def replay(self, run: str) -> again.Difference | None:
        """Return where the recorded history of a run and today's rules part, None when they agree."""
        sight = await self.look(run)
        graph = await self._definitions.graph(sight.start.digest)
        known = [fact for stored in sight.facts if (fact := read(stored)) is not None]
        return again.difference(run, graph, known)


def folded(run: str, graph: Any, known: list[Fact]) -> Run:
    """Return what the facts of a run add up to (pure)."""
    made: Run | None = None
    early: list[Fact] = []
    for fact in known:
        if made is None and not isinstance(fact.body, facts.Start):
            early.append(fact)
        elif made is None:
            assert isinstance(fact.body, facts.Start)
            made = begin(run, graph, fact.body, fact.at_ns)
            decide.started(made)
            for one in early:
                decide.advance(made, one)
        else:
            decide.advance(made, fact)
    assert made is not None
    return made


def read(stored: Stored) -> Fact | None:
    """Return a fact, None for one that changes nothing or that this version cannot read."""
    try:
        return facts.read_stored(stored)
    except (Invalid, facts.Unknown):
        return None


def check_id(run: str) -> str:
    """Return the id of a run; raises `Invalid` (`flow.bad_id`) for what is none."""
    if not facts.is_run(run):
        raise Invalid(f"{run[:80]!r} is not the id of a run.", code="flow.bad_id", hint="See `knotwork run list`.")
    return run


def missing(run: str, keeps: Keeps, now_ns: int) -> NotFound:
    """Return the error of a run of which nothing is known: there was none, or it is not kept any more (pure)."""
    kept = f"Runs that are over are kept for {_span(keeps.age_s)}"
    kept += f", and in {keeps.max_bytes} bytes." if keeps.max_bytes else "."
    began = _BY_TIME(run)
    began_s = int(began[1], 16) / 1000 if began is not None else now_ns / 1e9
    if began_s < now_ns / 1e9 - keeps.age_s:
        return NotFound(
            f"The run {run!r} is not kept any more, if it ever was: it would have begun at"
            f" {datetime.fromtimestamp(began_s, UTC):%Y-%m-%dT%H:%M:%SZ}.",
            code="flow.forgotten",
            hint=f"{kept} Keep them longer with keep_s in [workflows], or write them down with `knotwork run export`.",
        )
    return NotFound(f"There is no run {run!r}.", code="flow.no_run", hint=f"See `knotwork run list`. {kept}")


def _span(seconds: float) -> str:
    return f"{seconds / _DAY_S:g} days" if seconds >= _DAY_S else f"{seconds:g} s"
