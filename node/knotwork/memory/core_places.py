"""Where is there room for another core memory of an agent? In a hundred numbered places, over all its scopes.

What is private and what is personal lie in different stores, and each lets a place be taken once. A number counts for
both: whoever took one looks whether it was taken in the other scope at the same time, and steps back if so. Of two who
meet both step back and look again, so there are never more than a hundred.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from knotwork.memory import names
from knotwork.memory.model import OWN_SCOPES
from knotwork.memory.room import Held, Memory
from knotwork.sdk.errors import Conflict, KnotworkError

if TYPE_CHECKING:
    from knotwork.memory.index import Index
    from knotwork.memory.model import Record
    from knotwork.sdk.memory import MemoryScope, Place
    from knotwork.trust.who import Who

ROUNDS = 5
"""How often all places are looked through when somebody else was met at one."""
PAUSE_MAX_S = 0.02
Taken = dict[str, tuple[bool, int, int]]
"""By place whether what lies there was forgotten, since when, and until when it is kept."""


async def keep(memory: Memory, record: Record, who: Who) -> Record:
    """Keep a core memory in a place of its agent that is free in all scopes: whoever else writes, it is taken once.

    Raises `Conflict` (`memory.core_full`), and what a store raises that cannot be asked: then nothing was kept.
    """
    for _ in range(ROUNDS):
        made, met = await _try_all(memory, record, who)
        if made is not None:
            return made
        if not met:
            break
        await asyncio.sleep(random.random() * PAUSE_MAX_S)  # noqa: S311  those who met do not meet again
    raise Conflict(
        f"{who.name} has {names.CORE_MAX} core memories already, private and personal ones together.",
        code="memory.core_full", hint="Forget one of them with force, or remember it as longterm.",
    )  # fmt: skip


async def taken(memory: Memory, who: Who) -> dict[MemoryScope, Taken]:
    """Return what lies in the places of an agent, by scope, as far as this node was told."""
    found: dict[MemoryScope, Taken] = {}
    for scope in OWN_SCOPES:
        if owner := names.owner_in(scope, who):
            places = [memory.place(names.core_place(who, number), scope, owner) for number in range(names.CORE_MAX)]
            found[scope] = await memory.shelf.ask(partial(_taken, places=places))
    return found


def order(here: Taken, elsewhere: Taken, places: list[str]) -> list[str]:
    """Return which places to try (pure): free ones, then those of what was forgotten, the longest ago first."""
    free = [place for place in places if place not in here and place not in elsewhere]
    left = [place for place in places if _left(here.get(place)) and _left(elsewhere.get(place))]
    left = [place for place in left if place in here or place in elsewhere]
    left.sort(key=lambda place: max(one[place][1] for one in (here, elsewhere) if place in one))
    return [*free, *left]


def _left(found: tuple[bool, int, int] | None) -> bool:
    """Return whether nothing lives in a place."""
    return found is None or found[0]


async def _try_all(memory: Memory, record: Record, who: Who) -> tuple[Record | None, bool]:
    """Return the record as it was kept, None when there is no place; and whether somebody was met at one."""
    await memory.shelf.caught_up(OWN_SCOPES)
    known = await taken(memory, who)
    here = known[record.scope]
    elsewhere = {place: one for scope, found in known.items() if scope != record.scope for place, one in found.items()}
    places = [names.core_place(who, number) for number in range(names.CORE_MAX)]
    random.shuffle(places)  # those who write at the same time do not all want the same place
    met = False
    for at in order(here, elsewhere, places):
        held = await memory.fresh(memory.place(at, record.scope, record.owner)) if at in here else None
        if held is not None and not held.record.forgotten:
            continue
        made = msgspec.structs.replace(record, id=names.core_id(at, memory.chance()))
        if not await _cleared(memory, at, record.scope, who):
            continue
        place = memory.place(at, record.scope, record.owner)
        try:
            revision = await memory.write(place, made, held.revision if held is not None else 0)
        except Conflict as error:
            if error.code != "memory.changed":
                raise
            continue
        if await _alone(memory, Held(place, made, revision), who):
            return made, met
        met = True
    return None, met


async def _cleared(memory: Memory, at: str, scope: MemoryScope, who: Who) -> bool:
    """Return whether nothing lies in a place in other scopes; what was forgotten there goes for good."""
    for held in await _others(memory, at, scope, who):
        if not held.record.forgotten:
            return False
        try:
            await memory.remove(held)
        except Conflict:
            return False
    return True


async def _alone(memory: Memory, kept: Held, who: Who) -> bool:
    """Return whether a place is taken in one scope alone; step back from it when it is not, or nobody can tell."""
    try:
        if not await _others(memory, names.place_id(kept.record.id), kept.record.scope, who):
            return True
    except KnotworkError:
        await memory.remove(kept)
        raise
    await memory.remove(kept)
    return False


async def _others(memory: Memory, at: str, scope: MemoryScope, who: Who) -> list[Held]:
    """Return what lies in a place in other scopes now, asked of their stores."""
    owners = {other: names.owner_in(other, who) for other in OWN_SCOPES if other != scope}
    found = [await memory.fresh(memory.place(at, other, owner)) for other, owner in owners.items() if owner]
    return [one for one in found if one is not None]


def _taken(index: Index, places: list[Place]) -> Taken:
    return index.taken(places)
