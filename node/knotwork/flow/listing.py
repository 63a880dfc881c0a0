"""Which runs are there? Those under way stand in FACTS, those that are over in HISTORY, the newest end last."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from knotwork.bus import patterns, reading, subjects
from knotwork.flow import facts, packing
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

BATCH = 500
WINDOW = 1000
WINDOWS_MAX = 50
"""How far back is looked for runs that fit a filter: fifty thousand."""


class Listed(NamedTuple):
    """One run in short; `finish` is None while it goes on."""

    id: str
    start: facts.Start
    finish: facts.Finish | None


async def runs(
    connection: Connection, *, workflow: str = "", over: bool | None = None, limit: int = 1000
) -> list[Listed]:
    """Return up to `limit` runs, the newest first: of a workflow, and over or not, when that is named."""
    found = {one.id: one for one in await recent(connection) if _fits(one, workflow, over)}
    if over is not False:
        end = await reading.last_seq(connection, subjects.HISTORY)
        for _ in range(WINDOWS_MAX):
            if end <= 0 or len(found) >= limit:
                break
            begin = max(1, end - WINDOW + 1)
            for one in await _window(connection, begin, end):
                if _fits(one, workflow, over):
                    found.setdefault(one.id, one)
            end = begin - 1
    return sorted(found.values(), key=lambda one: one.start.started_ns, reverse=True)[:limit]


def _fits(one: Listed, workflow: str, over: bool | None) -> bool:  # noqa: FBT001  as it is named above
    return workflow in ("", one.start.workflow) and over in (None, one.finish is not None)


async def recent(connection: Connection, *, workflow: str = "") -> list[Listed]:
    """Return the runs under way, and those that ended just now, in no order: of a workflow, when that is named."""
    ends = await _all(connection, patterns.ENDS, facts.Finish)
    return [
        Listed(run, start, ends.get(run))
        for run, start in (await _all(connection, patterns.STARTS, facts.Start)).items()
        if workflow in ("", start.workflow)
    ]


async def _all(connection: Connection, pattern: str, kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async for stored in reading.every(connection, subjects.FACTS, pattern, timeout_s=30):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            found[stored.subject.split(".")[2]] = msgspec.json.decode(stored.data, type=kind)
    return found


async def _window(connection: Connection, begin: int, end: int) -> list[Listed]:
    """Return the runs that stand between two places of HISTORY."""
    found: list[Listed] = []
    while begin <= end and (
        batch := await reading.batch(connection, subjects.HISTORY, patterns.WHOLE_HISTORIES, begin, BATCH, timeout_s=30)
    ):
        for stored in batch:
            if stored.seq <= end:
                with contextlib.suppress(Invalid, msgspec.DecodeError, UnicodeDecodeError, KeyError):
                    run = stored.subject.split(".")[1]
                    kept = {one.subject: one.data for one in packing.unpacked(stored.data)}
                    start = msgspec.json.decode(kept[facts.subject(run, "start")], type=facts.Start)
                    finish = msgspec.json.decode(kept[facts.subject(run, "ended")], type=facts.Finish)
                    found.append(Listed(run, start, finish))
        begin = batch[-1].seq + 1
    return found
