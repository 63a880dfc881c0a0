"""What happens to an orchestration? Every change of a phase or a part, as soon as it is on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from knotwork.bus import patterns, subjects
from knotwork.bus.waits import set_within
from knotwork.crew.records import OVER
from knotwork.crew.store import key
from knotwork.work import leases

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection, Listening
    from knotwork.crew.looking import Looking
    from knotwork.crew.records import Round
    from knotwork.crew.sight import View
    from knotwork.crew.store import Store

Event = dict[str, Any]


async def watch(
    connection: Connection, store: Store, looking: Looking, orchestration: str, timeout_s: float
) -> AsyncGenerator[Event, None]:
    """Yield how it stands, then every change, until it is over or `timeout_s` are; raises `NotFound`."""
    news = asyncio.Event()
    record = await store.get(orchestration)
    end_s = time.monotonic() + timeout_s
    listening: dict[str, Listening] = {}
    forget = connection.on_up(news.set)  # what was told meanwhile was missed
    try:
        ours = [
            subjects.bucket_key(subjects.CREW, key(orchestration)),
            subjects.bucket_key(subjects.CREW_CHECKPOINTS, f"{orchestration}.>"),
        ]
        seen: dict[str, Event] = {}
        while True:
            for place in [
                *ours,
                *(place for one in record.rounds for place in (_told(one), leases.places_of(one.run))),
            ]:
                if place not in listening:
                    listening[place] = await connection.listen(place, lambda _: news.set())
            news.clear()
            record = await store.get(orchestration)
            view = await looking.view(record)
            for name, event in _events(view):
                if seen.get(name) != event:
                    seen[name] = event
                    yield event
            left_s = end_s - time.monotonic()
            if view.phase in OVER or left_s <= 0:
                return
            if any(_told(one) not in listening for one in record.rounds):
                continue
            await set_within(news, left_s)
    finally:
        forget()
        for one in listening.values():
            connection.unlisten(one)


def _told(one: Round) -> str:
    """Return where a run tells what is recorded of it."""
    return patterns.told_of(one.run)


def _events(view: View) -> list[tuple[str, Event]]:
    """Return how everything stands that somebody may want to see change, each under a name."""
    found: list[tuple[str, Event]] = [
        ("", {"event": "phase", "phase": view.phase, "percent": view.percent, "held": view.record.held})
    ]
    parts = [*view.parts.values(), *([view.synthesis] if view.synthesis is not None else [])]
    found += [
        (part.id, {
            "event": "part", "part": part.id, "state": part.state, "agent": part.agent, "node": part.node,
            "percent": part.percent, "text": part.text, "attempt": part.attempt,
        })
        for part in parts
    ]  # fmt: skip
    return found
