"""How is a run, and how did it end? Read from its facts, or from the past once they are packed away; by any node."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import patterns, reading, subjects
from knotwork.bus.background import heard
from knotwork.flow import again, anew, decide, facts, history, large, unknown
from knotwork.flow.run import Run, begin
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound, TimedOut, Unavailable, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.blobs import Blobs
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.bus.wire import Message
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.facts import Fact, Finish, Start
    from knotwork.flow.graph import Graph
    from knotwork.flow.history import Keeps

log = logging.getLogger(__name__)
AGAIN_S = 0.5
_EVENTS = "`knotwork run events` lists its facts."


@dataclass(frozen=True, slots=True)
class Sight:
    """A run as it is: its start, what its facts add up to, and its end when it has one."""

    id: str
    start: Start
    run: Run
    finish: Finish | None
    facts: list[Stored]
    newer: tuple[str, ...] = ()
    """Kinds of its facts that only newer versions know: it is shown without them, and looked after by such a node."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A run as far as its facts tell without the definition that they follow; `known` are those that can be read."""

    id: str
    start: Start
    finish: Finish | None
    facts: list[Stored]
    known: list[Fact]
    newer: tuple[str, ...] = ()
    why: str = ""
    """Why there is no more to be said of it here."""


class Looking:
    """The runs of one project, as they can be looked at."""

    def __init__(
        self, connection: Connection, definitions: Definitions, blobs: Blobs, keeps: Callable[[], Keeps]
    ) -> None:
        """Read over `connection`, large values from `blobs`; `keeps()` says how much of the past is kept."""
        self._connection, self._definitions, self._keeps = connection, definitions, keeps
        self._blobs = blobs
        self._waiting: dict[str, list[asyncio.Future[Finish]]] = {}

    async def open(self) -> None:
        """Listen for ends."""
        await self._connection.listen(patterns.ENDS_TOLD, self._told)  # tasks have no such fact

    # -- looking -----------------------------------------------------------------------------------------------------

    async def stored(self, run: str) -> list[Stored]:
        """Return all facts of a run as they are stored; raises `NotFound` (`flow.no_run`, `flow.forgotten`)."""
        found = await history.all_facts(self._connection, check_id(run))
        if not history.is_whole(found):  # it goes on; or it is packed away, while we read even
            found = await history.kept_facts(self._connection, run) or found
        if not found:
            raise await unknown.missing(self._connection, run, self._keeps())
        return found

    async def outline(self, run: str, *, up_to: int | None = None) -> Outline:
        """Return what the facts of a run say by themselves, as of its first `up_to` facts.

        Raises `NotFound` (`flow.no_run`, `flow.forgotten`), `Invalid` (`flow.not_here`) when its start cannot be read.
        """
        found = await self.stored(run)
        return outlined(run, found, up_to)

    async def glance(self, run: str, *, up_to: int | None = None) -> Sight | Outline:
        """Return a run as it is, or what its facts say when this version cannot follow its definition."""
        outline = await self.outline(run, up_to=up_to)
        try:
            return await self._seen(outline)
        except (Invalid, NotFound) as error:
            if error.code not in ("flow.not_here", "flow.no_definition"):
                raise
            return replace(outline, why=error.message)

    async def look(self, run: str, *, up_to: int | None = None) -> Sight:
        """Return a run as it is, or as it was after its first `up_to` facts.

        Raises `NotFound` (`flow.no_run`, `flow.forgotten`), `Invalid` (`flow.not_here`) for one of which this version
        can make no sense.
        """
        return await self._seen(await self.outline(run, up_to=up_to))

    async def _seen(self, outline: Outline) -> Sight:
        graph = await self._definitions.graph(outline.start.digest)
        seen = folded(outline.id, graph, await self._whole(graph, outline.known))
        return Sight(outline.id, outline.start, seen, outline.finish, outline.facts, outline.newer)

    async def ended(self, run: str) -> Finish:
        """Return how a run ended, or the last that goes on for it, now or then; bound it with `asyncio.timeout`.

        Raises what `close` is given, too.
        """
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
            if future.done():
                heard(future)  # whoever found out by himself meanwhile
            waiting = self._waiting[run]
            waiting.remove(future)
            if not waiting:
                del self._waiting[run]

    async def over(self, run: str) -> bool:
        """Return whether a run has ended, and all that go on for it; raises `NotFound` (`flow.no_run`)."""
        finish = await self._finish(check_id(run))
        while finish is not None and finish.next:  # the last may have gone on while we looked
            finish = await self._finish(await self.latest(run))
        return finish is not None

    async def _finish(self, run: str) -> Finish | None:
        places = [facts.subject(run, what) for what in ("ended", "start")]
        found = {one.subject: one.data for one in await reading.each_last(self._connection, subjects.FACTS, places)}
        if places[0] in found:
            return msgspec.json.decode(found[places[0]], type=facts.Finish)
        if places[1] in found:
            return None
        for kept in await history.kept_ends(self._connection, run):
            fact = read(kept)
            if fact is not None and isinstance(fact.body, facts.Finish):
                return fact.body
        raise await unknown.missing(self._connection, run, self._keeps())

    def _told(self, message: Message) -> None:
        run = message.subject.split(".", 3)[2]
        if run not in self._waiting:
            return
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            finish = msgspec.json.decode(message.data, type=facts.Finish)
            for future in self._waiting[run]:
                if not future.done():
                    future.set_result(finish)

    def close(self, why: Callable[[], KnotworkError]) -> None:
        """Tell whoever waits why nothing is heard here any more."""
        for future in itertools.chain.from_iterable(self._waiting.values()):
            if not future.done():
                future.set_exception(why())

    async def reconnected(self) -> None:
        """Look up what is awaited: what ended meanwhile was not told, and a store that came back without it never will.

        Raises what the store answers: then it must be done again.
        """
        for run, futures in list(self._waiting.items()):
            try:
                finish = await self._finish(run)
            except NotFound as gone:
                if gone.code not in unknown.CODES:
                    raise
                for future in futures:
                    if not future.done():
                        future.set_exception(gone)
                continue
            for future in futures if finish is not None else ():
                if not future.done() and finish is not None:
                    future.set_result(finish)

    async def replay(self, run: str) -> again.Difference | None:
        """Return where the recorded history of a run and today's rules part, None when they agree.

        Raises what `look` does.
        """
        outline = await self.outline(run)
        graph = await self._definitions.graph(outline.start.digest)
        return again.difference(run, graph, await self._whole(graph, outline.known))

    async def _whole(self, graph: Graph, known: list[Fact]) -> list[Fact]:
        """Return facts with the large values that the rules look at; without one that is not kept any more."""
        found = []
        for fact in known:
            one = fact
            if large.stands_for_more(fact, graph):
                with contextlib.suppress(NotFound):
                    one = await large.whole(fact, self._blobs)
            found.append(one)
        return found


def outlined(run: str, found: list[Stored], up_to: int | None = None) -> Outline:
    """Return what facts say by themselves (pure); raises `Invalid` (`flow.not_here`) when none says how it started."""
    known: list[Fact] = []
    newer: dict[str, None] = {}
    for stored in found[:up_to]:
        try:
            fact = facts.read_stored(stored)
        except Invalid:
            continue  # somebody else's doing: whoever looks after it passes it over
        except facts.Unknown as kind:
            newer[str(kind)] = None
            continue
        if fact is not None:
            known.append(fact)
    start = next((fact.body for fact in known if isinstance(fact.body, facts.Start)), None)
    if start is None and up_to is not None and up_to < len(found):
        outlined(run, found)
        raise Invalid(f"{run} had not started after {up_to} facts.", code="flow.no_fact", hint=_EVENTS)
    if start is None:
        raise Invalid(
            f"How {run} started cannot be read by this version.", code="flow.not_here",
            hint=f"{_EVENTS} A node of the version that started it can follow it.",
        )  # fmt: skip
    finish = next((fact.body for fact in known if isinstance(fact.body, facts.Finish)), None)
    return Outline(run, start, finish, found[:up_to], known, tuple(newer))


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
