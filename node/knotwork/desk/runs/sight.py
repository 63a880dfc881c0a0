"""Who may see a run? Everybody in its project, but those of an orchestration that is private or personal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import reading, subjects
from knotwork.flow import facts
from knotwork.flow.looking import check_id
from knotwork.sdk.errors import KnotworkError, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.flow.facts import Start
    from knotwork.flow.room import Flow
    from knotwork.view.room import Row

Circles = tuple[str, ...] | None
"""Whose runs may be seen beside those of the whole project (`trust.scopes.circles`); None: everybody's."""
_start = msgspec.json.Decoder(facts.Start)


class RunSight:
    """What somebody may see of the runs of one project."""

    def __init__(self, flow: Flow, circles: Circles) -> None:
        """Read runs of `flow`."""
        self._flow, self._circles = flow, circles

    def may_see(self, start: Start) -> bool:
        """Return whether a run that began so may be seen."""
        return self._circles is None or start.circle in ("", *self._circles)

    async def admit(self, *runs: str) -> None:
        """Raise `NotFound` (`flow.no_run`) for a run that may not be seen; one that is not there is left to others."""
        if self._circles is None:
            return
        for run in runs:
            with contextlib.suppress(NotFound):
                if not self.may_see(await self._began(run)):
                    break
        else:
            return
        raise NotFound(f"There is no run {run!r}.", code="flow.no_run", hint="See `knotwork run list`.")

    async def _began(self, run: str) -> Start:
        place = facts.subject(check_id(run), "start")
        stored = await reading.last(self._flow.connection, subjects.FACTS, place)
        if stored is not None:
            with contextlib.suppress(msgspec.DecodeError):
                return _start.decode(stored.data)
        return (await self._flow.runs.outline(run)).start

    async def seen(self, rows: Sequence[Row]) -> list[Row]:
        """Return those rows of the past that may be seen; those of orchestrations say so by a label."""
        found = []
        for row in rows:
            if self._circles is None or "orchestration" not in row["labels"]:
                found.append(row)
                continue
            with contextlib.suppress(KnotworkError):  # what is gone is not shown
                if self.may_see(await self._began(str(row["id"]))):
                    found.append(row)
        return found
