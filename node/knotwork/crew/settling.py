"""What follows from how far an orchestration is? Whoever notices carries it on; doing so twice does no harm.

A round that was recorded is started, a hold or a cancel is brought to the runs, what is over is collected, put together
and closed. All of it is decided by what is on record, so any node can do it, after any crash.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock
from knotwork.crew import budget, plan, records, synthesis
from knotwork.crew.records import Result, Round
from knotwork.crew.starting import run_of
from knotwork.flow.run import decoded
from knotwork.sdk.errors import Conflict, NotFound, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.crew.looking import Looking
    from knotwork.crew.records import Phase, Record
    from knotwork.crew.sight import PartSight, View
    from knotwork.crew.starting import Starting
    from knotwork.crew.store import Store
    from knotwork.flow.room import Flow

LOADED_MAX_BYTES = 32 * 1024 * 1024
"""Results that are put together by rules, all of them; for what is more stand digests."""
VALUE_SHOWN = 100
"""Characters of a value in a conflict, where conflicts have no room for all: 200 parts may differ in one of them."""


class Settling:
    """Carries orchestrations of one project on."""

    def __init__(
        self, store: Store, looking: Looking, starting: Starting, flow: Flow, *, told: Callable[[Record], None]
    ) -> None:
        """Write to `store`; `told` hears of every new phase."""
        self._store, self._looking, self._starting = store, looking, starting
        self._flow, self._values, self.told = flow, starting.values, told

    async def settle(self, orchestration: str) -> View:
        """Do whatever follows from how far it is, and return how far that is."""
        view = await self._looking.view(await self._store.get(orchestration))
        if not view.record.live:
            return view
        await self.check_budget(view)  # before anything begins: of one that is done again it may be spent
        if await self._start(view):
            view = await self._again(view)
            if not view.record.live:  # somebody closed it meanwhile, and did not see the run
                await self._recall(view)
                return view
        await self._mark(view)
        if view.record.held:
            await self.bring_hold(view, resume=False)
        if view.record.stop is not None:
            await self._recall(view)
        if not view.over:
            await self.note_phase(view.record, view.phase)
            return view
        return await self._finish(view)

    async def _again(self, view: View) -> View:
        return await self._looking.view(await self._store.get(view.record.id))

    async def _start(self, view: View) -> bool:
        """Start a round that is on record and was not started; say whether there was one."""
        record = view.record
        missing = [one for one in record.rounds if one.run not in view.begun]
        if record.stop is not None:
            view.runs.update({one.run: True for one in missing})  # nobody starts them any more
            return False
        if record.held:
            return False  # it is begun when it goes on
        for one in missing:
            with contextlib.suppress(NotFound):
                await self._flow.runs.look(one.run)
                continue
            try:
                await self._starting.begin(record, one, view)
            except (Conflict, TooLarge) as error:  # what passes is tried again
                if isinstance(error, Conflict) and error.code != "crew.budget_spent":
                    raise
                await self._never(view, missing, error)
                return True
        return bool(missing)

    async def _never(self, view: View, never: list[Round], error: Conflict | TooLarge) -> None:
        """Close one of which a round can never begin, such as one whose time was over: else it would wait for ever."""

        def closed(one: Record) -> Record:
            if one.rounds != view.record.rounds or not one.live:
                return one
            begun = tuple(of for place, of in enumerate(one.rounds) if place == 0 or of not in never)
            return msgspec.structs.replace(
                one, rounds=begun, phase="failed", error={"code": error.code, "message": error.message},
                done=tuple(view.named("completed")), ended_ns=clock.now_ns(), held="",
            )  # fmt: skip

        await self._move(view.record.id, closed)

    async def _move(self, orchestration: str, by: Callable[[Record], Record]) -> Record:
        """Change a record as `Store.change` does, and tell of it, unless somebody else did the same before."""
        changed = False

        def noted(one: Record) -> Record:
            nonlocal changed
            after = by(one)
            changed = after != one
            return after

        made = await self._store.change(orchestration, noted)
        if changed:
            self.told(made)
        return made

    async def _mark(self, view: View) -> None:
        """Note which rounds have begun: their runs may be forgotten before it is over, and are not to begin again."""
        if not view.begun <= {*view.record.begun}:
            begun = tuple(one.run for one in view.record.rounds if one.run in view.begun)
            view.record = await self._store.change(
                view.record.id,
                lambda one: msgspec.structs.replace(one, begun=tuple(dict.fromkeys((*one.begun, *begun)))),
            )

    async def bring_hold(self, view: View, *, resume: bool) -> None:
        """Hold its runs, or let them go on, those that are not so already."""
        for run, over in view.runs.items():
            if not over and (run in view.paused) is resume:
                with contextlib.suppress(Conflict, NotFound):
                    await self._flow.runs.hold(run, by=view.record.id, resume=resume)

    async def check_budget(self, view: View) -> str:
        """Hold it, and those above it, when what was reported is too much; returns why it is held, empty when not."""
        told = ""
        for one in [view.record, *await self._looking.above(view.record)]:
            if not (one.live and (one.budget.tokens or one.budget.cost)):
                continue
            here = view if one.id == view.record.id else await self._looking.view(one)
            why = budget.exceeded(one.budget, await self._looking.used(here))
            if why:
                told = told or f"{one.id}: {why}"
                await self.hold_all(one.id, "budget")
        if told and not view.record.held:
            view.record = await self._store.get(view.record.id)
        return told

    async def hold_all(self, orchestration: str, held: records.Held) -> Record:
        """Hold an orchestration and all below it, or (`held` empty) let them go on."""
        made = await self._held(orchestration, held)
        for name in made.subs:
            with contextlib.suppress(NotFound, Conflict):
                await self._held(name, held)
        return made

    async def _held(self, orchestration: str, held: records.Held) -> Record:
        made = await self._store.change(
            orchestration, lambda one: msgspec.structs.replace(one, held=held) if one.live else one
        )
        if made.live:
            await self.bring_hold(await self._looking.view(made), resume=not held)
        return made

    async def _recall(self, view: View) -> None:
        stop = view.record.stop or records.Stop("cancelled")
        for run, over in view.runs.items():
            if not over:
                with contextlib.suppress(Conflict, NotFound):
                    await self._flow.runs.cancel(run, by=stop.by, why=stop.why)
        for name in view.record.subs:
            with contextlib.suppress(NotFound, Conflict):
                below = await self._store.change(name, lambda one: _stopped(one, stop))
                if below.live and below.stop is not None and below.stop == stop:
                    await self.settle(name)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _finish(self, view: View) -> View:
        """Close what is over, or put it together first."""
        record = view.record
        if record.stop is not None:
            stop = record.stop
            told = f"It was stopped by {stop.by}" + (f": {stop.why}" if stop.why else ".") if stop.by else stop.why
            return await self.close(view, stop.phase, {"kind": "cancelled", "code": "crew.stopped", "message": told})
        if not view.done and not (record.synthesis.partial and view.named("completed")):
            return await self.close(view, "failed", _error(view))
        how = record.synthesis.how
        if how == "none":
            await self.note_phase(record, view.phase)  # whoever puts it together by hand may have said so
            return await self._again(view)
        if how == "agent":
            return await self._by_agent(view)
        await self.note_phase(record, "collection")
        try:
            result = await self.put_together(view, how)
        except TooLarge as error:  # it would be tried again for ever; each part's own stays
            return await self.close(view, "failed", {"code": error.code, "message": f"synthesis: {error.message}"})
        await self._store.put_result(record.id, result)
        return await self.close(view, "complete")

    async def _by_agent(self, view: View) -> View:
        seen = view.synthesis
        if seen is None and view.record.held:
            await self.note_phase(view.record, "collection")
            return await self._again(view)
        if seen is None:
            await self.begin_synthesis(view)
            return await self.settle(view.record.id)
        if seen.state != "completed":
            error = view.error or seen.error or {}  # that its time was over says more than that it was cancelled
            told = {"code": str(error.get("code", "")), "message": f"synthesis: {error.get('message', seen.state)}"}
            return await self.close(view, "failed", told)
        missing = tuple(name for name in view.parts if view.parts[name].state != "completed")
        await self._store.put_result(
            view.record.id,
            Result("agent", msgspec.Raw(seen.output), seen.blob, (), missing, seen.agent, clock.now_ns()),
        )
        return await self.close(view, "complete")

    async def begin_synthesis(self, view: View) -> Record:
        """Record the round in which an agent puts the results together."""
        taken = tuple(view.named("completed"))

        def with_round(one: Record) -> Record:
            if one.rounds != view.record.rounds:  # somebody else did, or a part is done again
                return one
            made = Round(run_of(one.id, len(one.rounds)), (plan.SYNTHESIS,), taken, clock.now_ns())
            return msgspec.structs.replace(one, rounds=(*one.rounds, made), phase="synthesis", ended_ns=0)

        return await self._move(view.record.id, with_round)

    async def put_together(self, view: View, how: records.How) -> Result:
        """Return what the completed parts add up to, by rules; raises `TooLarge` (`blob.too_large`)."""
        pieces: list[synthesis.Piece] = []
        left = LOADED_MAX_BYTES
        for part in view.record.parts:
            if view.parts[part.id].state == "completed":
                raw = await self.output_of(view.parts[part.id], left)
                left -= len(raw)
                is_digest = raw == _digest(view.parts[part.id].blob)
                output = decoded(raw)
                pieces.append(synthesis.Piece(part, {part.id: output} if is_digest and how == "merge" else output))
        missing = tuple(name for name in view.parts if view.parts[name].state != "completed")
        output, conflicts = await asyncio.to_thread(_together, pieces, how)  # it may take seconds
        value, blob = await self._values.keep(output)
        return Result(how, msgspec.Raw(value), blob, conflicts, missing, "", clock.now_ns())

    async def output_of(self, part: PartSight, size_max: int = LOADED_MAX_BYTES) -> bytes:
        """Return what a part gave, wherever it is kept; a digest stands for one that is too large or gone."""
        if part.blob:
            with contextlib.suppress(NotFound):
                if (await self._values.blobs.info(part.blob)).size <= size_max:
                    return await self._values.read(part.output, part.blob)
            return _digest(part.blob)
        return part.output

    async def close(self, view: View, phase: Phase, error: dict[str, str] | None = None) -> View:
        """Record that it is over, unless it is not any more."""

        def closed(one: Record) -> Record:
            if one.rounds != view.record.rounds or not one.live:
                return one
            done = tuple(view.named("completed"))
            return msgspec.structs.replace(one, phase=phase, error=error, done=done, ended_ns=clock.now_ns(), held="")

        return await self._looking.view(await self._move(view.record.id, closed))

    async def note_phase(self, record: Record, phase: Phase) -> None:
        """Record a phase that was reached; facts say so, too: this is for those who watch."""
        if record.phase == phase:
            return
        await self._move(
            record.id,
            lambda one: msgspec.structs.replace(one, phase=phase) if one.live and one.rounds == record.rounds else one,
        )


def _digest(blob: str) -> bytes:
    """Return what stands for an output that is not loaded."""
    return records.encode({"blob": blob})


def _together(pieces: list[synthesis.Piece], how: records.How) -> tuple[bytes, tuple[msgspec.Raw, ...]]:
    """Return what results add up to by rules, and where they contradict each other."""
    if how != "merge":
        return records.encode(synthesis.concatenated(pieces)), ()
    made = synthesis.merged(pieces)
    return records.encode(made.output), _bounded(tuple(msgspec.Raw(records.encode(one)) for one in made.conflicts))


def _stopped(one: Record, stop: records.Stop) -> Record:
    return msgspec.structs.replace(one, stop=stop) if one.live and one.stop is None else one


def _error(view: View) -> dict[str, str]:
    """Return why it failed: what ended the run itself, else what the first part that failed says."""
    if view.error is not None:
        return {"code": str(view.error.get("code", ""))[:128], "message": str(view.error.get("message", ""))[:4096]}
    for name in view.named("failed", "cancelled", "skipped"):
        error = view.parts[name].error
        if error is not None:
            return {"code": str(error.get("code", ""))[:128], "message": f"{name}: {error.get('message', '')}"[:4096]}
    left = ", ".join(view.named("failed", "cancelled", "skipped"))
    return {"code": "crew.part_failed", "message": f"Not all of its parts were done: {left[:1000]}."}


def _bounded(conflicts: tuple[msgspec.Raw, ...]) -> tuple[msgspec.Raw, ...]:
    """Return as many conflicts as fit beside a result; long values by their beginning when not all of them do."""
    if sum(len(bytes(one)) for one in conflicts) > records.CONFLICTS_MAX_BYTES:
        conflicts = tuple(_brief(one) for one in conflicts)
    kept: list[msgspec.Raw] = []
    size = 0
    for one in conflicts:
        size += len(bytes(one))
        if size > records.CONFLICTS_MAX_BYTES:
            break
        kept.append(one)
    return tuple(kept)


def _brief(conflict: msgspec.Raw) -> msgspec.Raw:
    """Return a conflict with the beginning of each long value: the parts' own results have all of it."""
    made = decoded(bytes(conflict))
    for one in made["values"]:
        text = one["value"] if isinstance(one["value"], str) else records.encode(one["value"]).decode()
        if len(text) > VALUE_SHOWN:
            one["value"] = text[:VALUE_SHOWN] + "…"
    return msgspec.Raw(records.encode(made))
