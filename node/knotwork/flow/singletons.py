"""May a run begin whose workflow lets none wait (`when_full`: `skip`, `cancel_previous`)? It takes a free place, or one of the runs ends.

Of many that are started at once as many stay as there are places: with `skip` whoever was in the book first, with
`cancel_previous` the last. Who takes a place is decided by who writes the book, and never by what was read of it before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.flow import admission, anew, facts

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.flow.effects import Admit
    from knotwork.flow.facts import Start
    from knotwork.flow.limits import Limits
    from knotwork.flow.run import Run

_Age = tuple[bool, int, str]
"""What sorts runs by when they were begun (`_age`)."""


class Singletons:
    """The runs of one project that wait for no others of their workflow."""

    def __init__(self, connection: Connection, writer: GroupCommit, limits: Limits) -> None:
        """Take places in the books of `limits`; append cancels by `writer`."""
        self._connection, self._facts, self._limits = connection, writer, limits
        self._waiting: dict[str, dict[str, _Age]] = {}
        """Those that wait here for a place that somebody has to leave, by their limits."""

    async def admit(self, run: Run, effect: Admit) -> bool:
        """Return whether a run has a place now; False: it is to end, is over, or is paused, and asks again when resumed."""
        waiting = self._waiting.setdefault(effect.limit.key, {})
        waiting[run.id] = _age(run.start, run.id)
        try:
            return await self._admit(run, effect, waiting)
        finally:
            waiting.pop(run.id, None)
            if not waiting:
                self._waiting.pop(effect.limit.key, None)

    async def _admit(self, run: Run, effect: Admit, waiting: dict[str, _Age]) -> bool:
        me = admission.holder(run.id, admission.RUN)
        before = admission.holder(anew.before(run.start), admission.RUN)  # it is ending: this one goes on for it
        told: set[str] = set()
        while run.open.get(effect.name) is effect and not run.paused:
            others = await self._limits.acquire_at_once(me, effect.limit, instead_of=before)
            if not others:
                return True
            if effect.when_full == "skip":
                await self._cancel(run.id, "there is another run of it")
                return False
            older, newer = await self._sorted(run, others)
            behind = sorted(one for one, age in waiting.items() if age > _age(run.start, run.id))
            if (newer and not older) or len(behind) >= effect.limit.concurrency:
                await self._cancel(run.id, f"{(newer or behind)[0]} takes its place")
                return False
            for one in older:
                if one not in told:
                    await self._cancel(one, f"{run.id} takes its place")
                    told.add(one)
            await self._limits.changed(effect.limit.key)
        return False

    async def _sorted(self, run: Run, holders: list[str]) -> tuple[list[str], list[str]]:
        """Return which runs began before one, and which after it; those of which nothing is known are struck out soon."""
        older: list[str] = []
        newer: list[str] = []
        for holder in holders:
            other, _ = admission.held_by(holder)
            if (start := await anew.start_of(self._connection, other)) is not None:
                (older if _age(start, other) < _age(run.start, run.id) else newer).append(other)
        return older, newer

    async def _cancel(self, run: str, why: str) -> None:
        await anew.deliver(self._connection, self._facts, run, ("cancel",), facts.encode(facts.Wish(why=why)))


def _age(start: Start, run: str) -> _Age:
    """Return what sorts runs by when they were begun (pure): one that goes on for others began before whoever comes beside it."""
    return not start.number, start.started_ns, run
