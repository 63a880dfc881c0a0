"""How does a run go on as another, with a new input and without its history? The next run has an id that follows from the first.

The order makes a crash harmless, and loses nothing: signals that the one before gave to no step are passed on, the next run
is started (its id is the same whoever starts it, and however often), what else was sent meanwhile is passed on, and only
then the one before ends. Who sends something to a run and finds the next one started sends it there, too: each name is
stored once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, reading, subjects
from knotwork.flow import facts
from knotwork.flow.history import is_kept, kept_ends, kept_facts, kept_of
from knotwork.sdk.errors import Conflict, Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.flow.effects import Anew

PASSED_ON = ("signal", "cancel", "pause", "resume")
"""Facts that others send to a run."""
ORDERED = ("signal",)
"""Of these the order in which they come matters."""
HEARD_IN = 100
"""In how many of the runs that went before in a chain is looked for what was sent."""


def started(run: str, start: facts.Start, anew: Anew, digest: str) -> tuple[str, facts.Start]:
    """Return the run that goes on for one, and how it starts (pure but for the time)."""
    first, number = start.first or run, start.number + 1
    made = msgspec.structs.replace(
        start, digest=digest, input=msgspec.Raw(anew.input), blob=anew.blob, key="", of="", given={}, left={}, handed={},
        first=first, number=number, after=anew.after, started_ns=clock.now_ns(), paused=False, heard=anew.heard,
    )  # fmt: skip
    return facts.chained(first, number), made


def before(start: facts.Start) -> str:
    """Return the run that one goes on for, "" when it began by itself (pure)."""
    return facts.chained(start.first, start.number - 1) if start.number else ""


async def start_of(connection: Connection, run: str) -> facts.Start | None:
    """Return how a run started, None when nothing is known of it."""
    stored = await reading.last(connection, subjects.FACTS, facts.subject(run, "start"))
    try:
        if stored is not None:
            return _start(stored.data)
        for kept in await kept_ends(connection, run):
            fact = facts.read_stored(kept)
            if fact is not None and isinstance(fact.body, facts.Start):
                return fact.body
    except (msgspec.DecodeError, UnicodeDecodeError, Invalid, facts.Unknown):
        pass
    return None


async def exists(connection: Connection, run: str) -> bool:
    """Return whether a run was started, and is not forgotten."""
    stored = await reading.last(connection, subjects.FACTS, facts.subject(run, "start"))
    return stored is not None or await is_kept(connection, run)


async def existing(connection: Connection, runs: list[str]) -> set[str]:
    """Return which of up to 1000 runs were started, and are not forgotten."""
    starts = [facts.subject(run, "start") for run in runs]
    found = await reading.each_last(connection, subjects.FACTS, starts) if starts else []
    return {stored.subject.split(".")[2] for stored in found} | set(await kept_of(connection, runs))


async def latest(connection: Connection, run: str) -> str:
    """Return the last run that goes on for one, in a few looks however many there were; itself when there is none."""
    if not await exists(connection, facts.chained(run, 1)):
        start = await start_of(connection, run)
        if start is None or not start.number:
            return run
        first, low = start.first, start.number
    else:
        first, low = run, 1
    step = 1
    while await exists(connection, facts.chained(first, low + step)):
        low, step = low + step, 2 * step
    while step > 1:
        step //= 2
        if await exists(connection, facts.chained(first, low + step)):
            low += step
    return facts.chained(first, low)


async def deliver(
    connection: Connection, writer: GroupCommit, run: str, place: tuple[str, ...], payload: bytes
) -> bool:
    """Store something that is sent to a run; when another began to go on for it that did not see it, there as well.

    Returns False when the same place was filled before.
    """
    new: bool | None = None
    first, number = run, -1
    while True:
        subject = facts.subject(run, *place)
        stored = await _store(writer, subject, payload)
        new = stored if new is None else new
        if number < 0:
            ours = await start_of(connection, run)
            first, number = (ours.first or run, ours.number) if ours is not None else (run, 0)
        before, run, number = run, facts.chained(first, number + 1), number + 1
        # in one look: whoever is slower than a chain of short runs never gets ahead of it
        there = facts.subject(run, "start")
        found = {one.subject: one for one in await reading.each_last(connection, subjects.FACTS, [there, subject])}
        start = _start(found[there].data) if there in found else await start_of(connection, run)
        if start is None or subject not in found or found[subject].seq <= start.after:
            return new  # there is none yet, or the one before saw it, and took it along if need be
        if place[0] in ORDERED:  # with what came before
            await _copy(connection, writer, before, run, after=start.after, kinds=ORDERED)


async def catch_up(connection: Connection, writer: GroupCommit, run: str, place: tuple[str, ...] | None = None) -> None:
    """Pass on the signals that the runs before one were sent and have not passed on: they came before what is sent now.

    With a `place` also what stands there of a run that has ended: whoever sent it may have died before the next one had it.
    """
    start = await start_of(connection, run)
    if start is None or not start.number:
        return
    numbers = range(max(0, start.number - HEARD_IN), start.number)
    chain = {facts.chained(start.first, number): number for number in numbers}
    ended = await _there(connection, chain, "ended")
    given = set(await _there(connection, ended, *place)) if place is not None else set()
    going = await _there(connection, [one for one in chain if one not in ended], "start")
    for one in [one for one in chain if one in given or one in going]:
        following = facts.chained(start.first, chain[one] + 1)
        if (behind := await start_of(connection, following)) is not None:
            await _pass_on(connection, writer, one, following, after=behind.after, kinds=ORDERED)


async def _there(connection: Connection, runs: Iterable[str], *what: str) -> list[str]:
    """Return of which runs there is such a fact, in their order."""
    places = {facts.subject(run, *what): run for run in runs}
    found = {one.subject for one in await reading.each_last(connection, subjects.FACTS, list(places))} if places else ()
    return [run for place, run in places.items() if place in found]


async def was_sent(connection: Connection, run: str, place: tuple[str, ...]) -> bool:
    """Return whether the last of a chain of runs, or one of those before it, was sent this."""
    start = await start_of(connection, run)
    if start is None:
        return False
    last = start.number
    chain = [facts.chained(start.first or run, one) for one in range(last, max(-1, last - HEARD_IN), -1)]
    places = [facts.subject(one, *place) for one in chain]
    if await reading.each_last(connection, subjects.FACTS, places):
        return True
    for one, where in zip(chain, places, strict=True):  # what ended a while ago is packed away
        if any(stored.subject == where for stored in await kept_facts(connection, one)):
            return True
    return False


async def is_over(connection: Connection, run: str) -> bool:
    """Return whether a run that began has ended."""
    places = [facts.subject(run, what) for what in ("start", "ended")]
    found = await reading.each_last(connection, subjects.FACTS, places)
    return [one.subject for one in found] != places[:1]  # without its start it is packed away


def _start(data: bytes) -> facts.Start | None:
    try:
        return msgspec.json.decode(data, type=facts.Start)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def _following(connection: Connection, run: str) -> tuple[str, facts.Start] | None:
    """Return the run that goes on for one, and its start; None when there is none."""
    after = facts.chained(run, 1)
    start = await start_of(connection, after)
    if start is None and (ours := await start_of(connection, run)) is not None and ours.number:
        after = facts.chained(ours.first, ours.number + 1)
        start = await start_of(connection, after)
    return None if start is None else (after, start)


async def pass_on(
    connection: Connection,
    writer: GroupCommit,
    run: str,
    following: str,
    anew: Anew,
    *,
    kinds: tuple[str, ...] = PASSED_ON,
) -> None:
    """Give the run that goes on for one what was sent to that and not seen, in the order in which it came."""
    await _pass_on(connection, writer, run, following, after=anew.after, unheard=frozenset(anew.unheard), kinds=kinds)


async def _pass_on(
    connection: Connection,
    writer: GroupCommit,
    run: str,
    following: str,
    *,
    after: int,
    unheard: frozenset[int] = frozenset(),
    kinds: tuple[str, ...],
) -> None:
    sent = await _copy(connection, writer, run, following, after=after, unheard=unheard, kinds=kinds)
    if sent and await _following(connection, following) is not None:  # it ended before it had seen all of that
        for where, data in sent:
            await deliver(connection, writer, following, where, data)


async def _copy(
    connection: Connection,
    writer: GroupCommit,
    run: str,
    following: str,
    *,
    after: int,
    unheard: frozenset[int] = frozenset(),
    kinds: tuple[str, ...],
) -> list[tuple[tuple[str, ...], bytes]]:
    """Store for the run that goes on for one what that was sent behind a place, or is `unheard`; returns it."""
    place = facts.subject(run)
    found: list[tuple[int, str, bytes]] = []
    for what in kinds:
        begin = 0 if unheard and what == "signal" else after
        every = reading.every(connection, subjects.FACTS, _pattern(place, what), after=begin)
        found += [(one.seq, one.subject, one.data) async for one in every if one.seq > after or one.seq in unheard]
    sent = [(tuple(subject.removeprefix(f"{place}.").split(".")), data) for _, subject, data in sorted(found)]
    for where, data in sent:
        await _store(writer, facts.subject(following, *where), data)
    return sent


def _pattern(place: str, what: str) -> str:
    return f"{place}.{what}" if what == "cancel" else f"{place}.{what}.>"


async def _store(writer: GroupCommit, subject: str, payload: bytes) -> bool:
    try:
        await writer.append(subject, payload)
    except Conflict as error:
        if error.code != "bus.exists":
            raise
        return False
    return True
