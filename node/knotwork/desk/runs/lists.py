"""Which runs fit a filter, the newest first? Those to come from triggers, those under way from FACTS, the past from the view."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from knotwork.bus import clock
from knotwork.desk.runs import rows as flow_rows
from knotwork.flow import listing
from knotwork.ops import flow_replies, run_words
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.desk.runs.planned import Planned
    from knotwork.desk.runs.sight import RunSight
    from knotwork.flow.listing import Listed
    from knotwork.flow.room import Flow
    from knotwork.ops.flow_ports import RunFilter
    from knotwork.view.room import Row, View

log = logging.getLogger(__name__)
AT_ONCE = 32
LOOKED_AT = 10_000
PAGE_MAX = 1000
"""So many that have ended are asked for at a time, at most, to go on behind those that are hidden."""
LIVING = frozenset({"running", "paused", "stopping", "scheduled"})
COMING = frozenset({"scheduled"})


class Found(NamedTuple):
    """A run that fits: where it stands in the list, and how it looks."""

    started_ns: int
    id: str
    row: flow_replies.RunRow


class RunLists:
    """Lists of the runs of one project."""

    def __init__(self, flow: Flow, view: View, sight: RunSight, planned: Planned | None = None) -> None:
        """Ask the view of the past, the streams for the present, `planned` for what is to come.

        `sight` knows what may be seen.
        """
        self._flow, self._view, self._sight, self._planned = flow, view, sight, planned

    async def page(self, wanted: RunFilter, limit: int) -> tuple[list[Found], str]:
        """Return runs that fit, `limit` at most, and the cursor that goes on, "" when these were all."""
        found = await self._found(wanted, limit + 1)
        cursor = run_words.write_cursor(found[limit - 1].started_ns, found[limit - 1].id) if len(found) > limit else ""
        return found[:limit], cursor

    async def _found(self, wanted: RunFilter, limit: int) -> list[Found]:
        coming = await self._coming(wanted, limit)
        full = len(coming) >= limit and coming[-1].started_ns > clock.now_ns()  # whatever has begun did so before
        if full or wanted.states == COMING:
            return coming
        found = await self._begun(wanted, limit)
        begun = {one.id for one in found}
        coming = [one for one in coming if one.id not in begun]
        return sorted(coming + found, key=lambda one: one[:2], reverse=True)[:limit]

    async def _coming(self, wanted: RunFilter, limit: int) -> list[Found]:
        rows = await self._planned.all(wanted, limit) if self._planned is not None else []
        of_row = set(flow_replies.RunRow.model_fields) - {"steps"}
        steps = {name: await self._steps_of(name) for name in {run.workflow for _, run in rows}}
        return [
            Found(at_ns, run.id, flow_replies.RunRow(**run.model_dump(include=of_row), steps=steps[run.workflow]))
            for at_ns, run in rows
        ]

    async def _begun(self, wanted: RunFilter, limit: int) -> list[Found]:
        past: dict[str, Row] = {}
        try:
            if not wanted.states or wanted.states - LIVING:
                past = await self._past(wanted, limit)
            known = await listing.recent(self._flow.connection, workflow=wanted.workflow)
        except KnotworkError as error:
            log.debug("runs are listed from the streams: %s", error)
            living = not wanted.states or bool(wanted.states & LIVING)
            over = None if not wanted.states or (living and wanted.states - LIVING) else not living
            most = limit if not wanted.states and not wanted.narrows and wanted.below is None else LOOKED_AT
            known = await listing.runs(self._flow.connection, workflow=wanted.workflow, over=over, limit=most)
        known = [one for one in known if self._sight.may_see(one.start) and listed_fits(one, wanted)]
        found = await self._looked_at(known, wanted.states, limit)
        for name in past.keys() - {one.id for one in found}:
            found.append(Found(int(past[name]["started_ns"]), name, await self._past_row(past[name])))
        return sorted(found, key=lambda one: one[:2], reverse=True)[:limit]

    async def _past(self, wanted: RunFilter, limit: int) -> dict[str, Row]:
        """Return runs that ended, fit and may be seen by their ids: `limit` of them unless there are fewer."""
        found: dict[str, Row] = {}
        below, most = wanted.below, limit
        while True:
            ended = await self._view.ended_runs(
                workflow=wanted.workflow, states=sorted(wanted.states - LIVING), limit=most,
                labels=dict(wanted.labels), since_ns=wanted.since_ns, until_ns=wanted.until_ns, text=wanted.text,
                below=below,
            )  # fmt: skip
            found |= {str(one["id"]): one for one in await self._sight.seen(ended)}
            if len(ended) < most or len(found) >= limit:  # else others stand behind those that are hidden
                return dict(islice(found.items(), limit))
            below, most = (int(ended[-1]["started_ns"]), str(ended[-1]["id"])), min(2 * most, PAGE_MAX)

    async def _past_row(self, one: Row) -> flow_replies.RunRow:
        return flow_rows.past(one, await self._steps(str(one["digest"])))

    async def _steps_of(self, name: str) -> int:
        """Return how many steps a workflow has now."""
        with contextlib.suppress(KnotworkError):
            digest, _ = await self._flow.definitions.find(name)
            return await self._steps(digest)
        return 0

    async def _steps(self, digest: str) -> int:
        with contextlib.suppress(KnotworkError):  # of another version, or gone
            graph = await self._flow.definitions.graph(digest)
            return len(graph.boxes) - len(graph.handlers)
        return 0

    async def _looked_at(self, known: list[Listed], states: frozenset[str], limit: int) -> list[Found]:
        """Return those of runs that are in some states; all of them, when none is named."""
        known = sorted(known, key=lambda one: (one.start.started_ns, one.id), reverse=True)
        found: list[Found] = []
        for begin in range(0, len(known), AT_ONCE):
            some = known[begin : begin + AT_ONCE]
            async with asyncio.TaskGroup() as group:
                looks = [group.create_task(self._row(one)) for one in some]
            rows = zip(some, (look.result() for look in looks), strict=True)
            found += [
                Found(one.start.started_ns, one.id, row)
                for one, row in rows
                if row is not None and (not states or row.state in states)
            ]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _row(self, one: Listed) -> flow_replies.RunRow | None:
        try:
            if one.finish is not None:
                return flow_rows.ended(one, await self._steps(one.start.digest))
            return flow_rows.row(await self._flow.runs.glance(one.id))
        except KnotworkError as error:  # gone meanwhile
            log.debug("run %s is left out of the list: %s", one.id, error)
            return None


def listed_fits(one: Listed, wanted: RunFilter) -> bool:
    """Return whether a run fits, but for its state (pure)."""
    start = one.start
    error: Mapping[str, object] = (one.finish.error if one.finish is not None else None) or {}
    told = (start.by, start.trigger, str(error.get("code", "")), str(error.get("message", "")))
    return wanted.fits(start.started_ns, one.id, start.workflow, start.labels, *told)
