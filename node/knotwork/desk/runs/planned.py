"""Which runs are to come? Those that a trigger starts once, at a moment: their ids are known before they begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.flow import anew
from knotwork.flow.definitions import DIGEST_LENGTH
from knotwork.flow.runs import keyed_run
from knotwork.ops import flow_replies
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound
from knotwork.trigger import due
from knotwork.trigger.model import Once

if TYPE_CHECKING:
    from knotwork.ops.flow_ports import RunFilter
    from knotwork.trigger.room import Triggers

CHUNK = 500
TURN = 200
NAMED_MAX, TOLD_MAX = 5, 100
"""Triggers that are named in a message, and beside it."""


def id_of(trigger: Once, workflow: str) -> str:
    """Return the id of the run that a trigger starts; `workflow` is the name that the trigger's means (pure)."""
    return keyed_run(workflow, trigger.key or due.key(trigger.id, trigger.at_ns))


def info(trigger: Once, workflow: str, *, by: str, new: bool = False) -> flow_replies.RunInfo:
    """Return the run that a trigger starts, as it will be (pure)."""
    return flow_replies.RunInfo(
        id=id_of(trigger, workflow), workflow=workflow, state="scheduled", started_at=trigger.at, by=by,
        trigger=trigger.id, labels=trigger.labels, input=trigger.input, new=new,
    )  # fmt: skip


def fits(at_ns: int, run: flow_replies.RunInfo, wanted: RunFilter) -> bool:
    """Return whether a run that is to come at a moment fits; it counts as started then (pure)."""
    meant = not wanted.states or "scheduled" in wanted.states
    return meant and wanted.fits(at_ns, run.id, run.workflow, run.labels, run.by, run.trigger)


class Planned:
    """The runs of one project that are to come."""

    def __init__(self, triggers: Triggers) -> None:
        """Look among these triggers."""
        self._triggers = triggers

    def must_not_start(self, workflow: str) -> None:
        """Refuse (`Conflict`, `flow.in_use`) while triggers start a workflow by its name."""
        known = self._triggers.store.known.values()
        names = sorted(one.trigger.id for one in known if one.trigger.workflow == workflow)
        if names:
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            raise Conflict(
                f"Triggers start the workflow {workflow!r}: {', '.join(names[:NAMED_MAX])}{more}.", code="flow.in_use",
                hint="Remove them first (`knotwork trigger remove`), or remove it all the same with --force: they fail then.",
                detail={"triggers": names[:TOLD_MAX], "count": len(names)},
            )  # fmt: skip

    async def find(self, run: str) -> flow_replies.RunInfo | None:
        """Return a run that is to come, None when there is none with this id."""
        async with aclosing(self._once()) as found:
            async for trigger, workflow, by in found:
                if id_of(trigger, workflow) == run:
                    return info(trigger, workflow, by=by)
        return None

    async def all(self, wanted: RunFilter, limit: int) -> list[tuple[int, flow_replies.RunInfo]]:
        """Return runs that fit and are to come, the last first, each behind its moment (nanoseconds since 1970)."""
        if wanted.states and "scheduled" not in wanted.states:
            return []
        coming: list[tuple[int, flow_replies.RunInfo]] = []
        async for trigger, workflow, by in self._once():
            run = info(trigger, workflow, by=by)
            if fits(trigger.at_ns, run, wanted):
                coming.append((trigger.at_ns, run))
        coming.sort(key=lambda one: (one[0], one[1].id), reverse=True)
        found: list[tuple[int, flow_replies.RunInfo]] = []
        for begin in range(0, len(coming), CHUNK):
            some = coming[begin : begin + CHUNK]
            begun = await anew.existing(self._triggers.connection, [run.id for _, run in some])
            found += [(at_ns, run) for at_ns, run in some if run.id not in begun]  # by its key, or this very moment
            if len(found) >= limit:
                break
        return found[:limit]

    def is_held(self, run: flow_replies.RunInfo) -> bool:
        """Return whether the trigger of a run that is to come is disabled."""
        known = self._triggers.store.known.get(run.trigger)
        return known is not None and not known.trigger.enabled

    async def refuse(self, run: str) -> None:
        """Raise `Conflict` (`flow.scheduled`) for a run that has not begun yet."""
        if (coming := await self.find(run)) is not None:
            raise Conflict(
                f"{run} has not begun: the trigger {coming.trigger} starts it at {coming.started_at}.", code="flow.scheduled",
                hint=f"Wait until then; `knotwork run cancel {run}` calls it off.", detail={"id": run},
            )  # fmt: skip

    @asynccontextmanager
    async def begun_by_now(self, run: str) -> AsyncIterator[None]:
        """Refuse a run that has not begun yet in the same way, where it is not found inside the block."""
        try:
            yield
        except NotFound:
            await self.refuse(run)
            raise

    async def _once(self) -> AsyncGenerator[tuple[Once, str, str], None]:
        """Yield the triggers that start one run, each with the name of the workflow it means and with who made it."""
        for number, known in enumerate(list(self._triggers.store.known.values()), 1):
            if number % TURN == 0:  # of 100,000 each takes some microseconds: others have their turn meanwhile
                await asyncio.sleep(0)
            if isinstance(known.trigger, Once) and (workflow := await self._meant(known.trigger.workflow)) is not None:
                yield known.trigger, workflow, known.by

    async def _meant(self, workflow: str) -> str | None:
        """Return the name of a workflow that is named or has this digest, None for a digest that is not known."""
        if len(workflow) != DIGEST_LENGTH:  # else it may be a digest, and names of workflows may be as long
            return workflow
        try:
            return (await self._triggers.flow.definitions.find(workflow))[1].workflow.name
        except KnotworkError:
            return None

    async def call_off(self, run: str) -> str:
        """Remove the trigger that would start a run; returns its id, an empty text when there is none."""
        found = await self.find(run)
        return found.trigger if found is not None and await self._triggers.remove(found.trigger) else ""
