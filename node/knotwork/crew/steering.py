"""How is an orchestration steered that was spawned? Hold it, stop it, do a part again, put its results together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock
from knotwork.crew import budget, phases, plan, records
from knotwork.crew.records import Note, Record, Result, Round, Stop, Synthesis
from knotwork.crew.starting import run_of
from knotwork.sdk.errors import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from knotwork.crew.looking import Looking
    from knotwork.crew.records import Stopped
    from knotwork.crew.settling import Settling
    from knotwork.crew.sight import View
    from knotwork.crew.store import Store
    from knotwork.trust.who import Who

log = logging.getLogger(__name__)


class Steering:
    """Steers orchestrations of one project."""

    def __init__(self, store: Store, looking: Looking, settling: Settling) -> None:
        """Write wishes to `store`; `settling` carries them out."""
        self.store, self.looking, self.settling = store, looking, settling

    async def hold(
        self, orchestration: str, *, resume: bool, tokens: int | None = None, cost: float | None = None
    ) -> View:
        """Begin no more parts, or begin them again, with a larger budget when one is given; all below it follow.

        Raises `Conflict` (`crew.over`, `crew.budget_spent`).
        """
        view = await self.settling.settle(orchestration)
        if not view.record.live:
            raise phases.over(view) if view.record.rounds else not_spawned(view.record)
        if resume:
            wanted = budget.raised(view.record.budget, tokens, cost)
            why = budget.exceeded(wanted, await self.looking.used(view))
            if why:
                raise Conflict(
                    f"{orchestration} cannot go on: {why}.", code="crew.budget_spent",
                    hint="Give it a larger budget with resume.", detail={"id": orchestration},
                )  # fmt: skip
            await self.store.change(orchestration, lambda one: msgspec.structs.replace(one, budget=wanted))
        await self.settling.hold_all(orchestration, "" if resume else "asked")
        return await self.settling.settle(orchestration)

    async def stop(self, orchestration: str, by: Who, why: str, phase: Stopped = "cancelled") -> View:
        """Stop it and all below it; raises `Conflict` (`crew.over`)."""
        record = await self.store.get(orchestration)
        if record.phase in records.OVER:
            raise phases.over(await self.looking.view(record))
        stop = Stop(phase, by.name[:256], why[:256])

        def stopped(one: Record) -> Record:
            if one.phase in records.OVER or one.stop is not None:
                return one
            if not one.rounds:
                return msgspec.structs.replace(one, phase=stop.phase, stop=stop, ended_ns=clock.now_ns())
            return msgspec.structs.replace(one, stop=stop)

        await self.store.change(orchestration, stopped)
        return await self.settling.settle(orchestration)

    async def retry(self, orchestration: str, part: str, by: Who) -> View:
        """Do a part again, and all that follow it; what they need is taken over.

        Raises `NotFound` (`crew.no_part`), `Conflict` (`crew.part_runs`, `crew.part_waits`, `crew.over` and `crew.held`,
        also of one above, `crew.budget_spent` when its time is over): then it stays as it is.
        """
        view = await self.settling.settle(orchestration)
        record = view.record
        if not record.rounds:
            raise not_spawned(record)
        if record.stop is not None:
            raise phases.over(view)
        if record.held:
            raise held(record)
        if part not in view.parts:
            raise NotFound(
                f"{orchestration} has no part {part!r}.", code="crew.no_part", hint="See `knotwork crew state`.",
                detail={"parts": list(view.parts)[:100]},
            )  # fmt: skip
        budget.left_s(record, clock.now_ns())
        await self._admit_begin(record)
        made = self._round(view, part)

        def again(one: Record) -> Record:
            if one.rounds != record.rounds or one.stop is not None:
                raise _changed(orchestration)
            note = Note(clock.now_ns(), by.name, "is done again", part)
            return records.with_note(
                msgspec.structs.replace(one, rounds=(*one.rounds, made), phase="execution", error=None, ended_ns=0),
                note,
            )

        await self.store.change(orchestration, again)
        return await self.settling.settle(orchestration)

    async def _admit_begin(self, record: Record) -> None:
        """Raise `Conflict` (`crew.over`, `crew.held`) when one above was stopped or is paused: nothing begins below it."""
        for above in await self.looking.above(record):
            if above.stop is not None:
                raise phases.over(await self.looking.view(above))
            if above.held:
                raise held(above)

    def _round(self, view: View, part: str) -> Round:
        """Return the round that does a part again."""
        record = view.record
        if len(record.rounds) >= records.ROUNDS_MAX:
            raise Conflict(
                f"{record.id} was begun {len(record.rounds)} times.",
                code="crew.too_many_rounds",
                hint="Spawn a new one.",
            )
        again = plan.followers(record.parts, [part])
        running = [name for name in view.open if name in again]
        if running or (view.synthesis is not None and view.phase == "synthesis"):
            raise Conflict(
                f"{_not_over(view, running)}: it cannot be begun again meanwhile.", code="crew.part_runs",
                hint="Wait for it, or stop all of it with `knotwork crew cancel`.", detail={"parts": running},
            )  # fmt: skip
        needed = {need for one in record.parts if one.id in again for need in one.needs} - again
        short = sorted(name for name in needed if view.parts[name].state != "completed")
        if short:
            raise Conflict(
                f"{part} needs what is not done: {', '.join(short[:20])}.", code="crew.part_waits",
                hint="Do these again first, or wait for them.", detail={"parts": short},
            )  # fmt: skip
        chosen = tuple(one.id for one in record.parts if one.id in again)
        return Round(run_of(record.id, len(record.rounds)), chosen, tuple(sorted(needed)), clock.now_ns())

    async def synthesize(self, orchestration: str, how: Synthesis, by: Who) -> tuple[View, Result | None]:
        """Put the results together; of a few of them only when `how.partial`.

        While parts are under way nothing is stored. By an agent it takes a run: the result is None until that is over.
        What was cancelled stays so: what it gave is put together and shown, too. Raises `Conflict`
        (`crew.not_collected`, `crew.budget_spent` for an agent when its time is over, `crew.part_runs` when somebody
        else began or stopped something at the same time), `Invalid` (`crew.bad_synthesis`).
        """
        view = await self.settling.settle(orchestration)
        record = view.record
        if not record.rounds:
            raise not_spawned(record)
        if how.how == "agent" and bool(how.capability) == bool(how.agent):
            raise Invalid("Name a capability or an agent that puts it together.", code="crew.bad_synthesis")
        if how.how == "none":
            raise Invalid("Say how: concatenate, merge or agent.", code="crew.bad_synthesis")
        left = [name for name in view.parts if view.parts[name].state != "completed"]
        if left and not (how.partial and view.named("completed")):
            raise Conflict(
                f"Not all parts are done: {', '.join(left[:20])}.", code="crew.not_collected",
                hint="Wait for them, do them again (`knotwork crew retry`), or ask for a partial synthesis.",
                detail={"parts": left},
            )  # fmt: skip
        if how.how != "agent" and (view.open or view.phase == "cancelled"):
            return view, await self.settling.put_together(view, how.how)
        if view.open or (view.phase == "synthesis" and view.synthesis is not None):
            raise Conflict(
                f"{orchestration} is in {view.phase}.", code="crew.not_collected", hint="Wait for its parts."
            )
        if how.how == "agent":
            if view.phase == "cancelled":
                raise phases.over(view)
            budget.left_s(record, clock.now_ns())
            await self._admit_begin(record)
        return await self._anew(view, how, by)

    async def _anew(self, view: View, how: Synthesis, by: Who) -> tuple[View, Result | None]:
        """Open what is over again, to be closed with another result; raises `Conflict` when it is not as it was seen."""

        def opened(one: Record) -> Record:
            if (one.rounds, one.stop) != (view.record.rounds, view.record.stop):
                raise _changed(one.id)
            return msgspec.structs.replace(one, synthesis=how, phase="collection", error=None, ended_ns=0, stop=None)

        record = await self.store.change(view.record.id, opened)
        if how.how == "agent":
            view.record = record
            await self.settling.begin_synthesis(view)
        else:
            log.debug("%s is put together for %s", record.id, by.name)
        view = await self.settling.settle(record.id)
        return view, await self.store.result(record.id) if view.phase == "complete" else None


def _not_over(view: View, running: list[str]) -> str:
    """Return why nothing can be begun in place of these: somebody is at one, or all wait for parts that were not named."""
    begun = [name for name in running if view.parts[name].state != "waiting"]
    needs = {need for one in view.record.parts if one.id in running for need in one.needs}
    waits = [name for name in view.open if name in needs and name not in running]
    if waits and not begun:
        return f"{', '.join(running[:20])} must wait for {', '.join(waits[:20])} first"
    return f"{', '.join((begun or running)[:20]) or plan.SYNTHESIS} is under way"


def _changed(orchestration: str) -> Conflict:
    return Conflict(f"{orchestration} changed meanwhile.", code="crew.part_runs", hint="Look, and try again.")


def not_spawned(one: Record) -> Conflict:
    """Return the error of what was never spawned."""
    return Conflict(
        f"{one.id} was not spawned.", code="crew.not_spawned", hint="`knotwork crew spawn` carries its plan out."
    )


def held(one: Record) -> Conflict:
    """Return the error of what would begin something of one that is paused."""
    return Conflict(
        f"{one.id} is paused.", code="crew.held", hint="`knotwork crew resume` lets it go on.", detail={"id": one.id}
    )
