"""What becomes of what somebody says on the way? It is noted, counted, and moves an orchestration where facts alone do not."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock
from knotwork.crew import phases, plan, records, rights
from knotwork.crew.records import Checkpoint, Note, Result
from knotwork.sdk.errors import Conflict, NotFound, TooLarge

if TYPE_CHECKING:
    from knotwork.crew.looking import Looking
    from knotwork.crew.records import Phase
    from knotwork.crew.settling import Settling
    from knotwork.crew.sight import View
    from knotwork.crew.steering import Steering
    from knotwork.crew.store import Store
    from knotwork.flow.room import Flow
    from knotwork.trust.who import Who
    from knotwork.work.values import Values


@dataclass(frozen=True, slots=True)
class Report:
    """What somebody says on the way: of a part, or of the whole when `part` is empty. Totals, not differences."""

    part: str = ""
    phase: Phase | None = None
    percent: float | None = None
    text: str = ""
    tokens: int = 0
    cost: float = 0.0
    data: bytes = b"null"

    @property
    def tells_use(self) -> bool:
        """Return whether it says what was used."""
        return bool(self.tokens or self.cost)

    @property
    def is_words(self) -> bool:
        """Return whether it is nothing but words."""
        return not self.tells_use and self.phase is None and self.percent is None and self.data == b"null"


class Reporting:
    """Takes note of what is said on the way of orchestrations of one project."""

    def __init__(
        self, store: Store, looking: Looking, settling: Settling, steering: Steering, *, flow: Flow, values: Values
    ) -> None:
        """Write to `store`; what follows from a report `settling` and `steering` do."""
        self._store, self._looking, self._flow, self._values = store, looking, flow, values
        self._settling, self._steering = settling, steering

    async def report(self, orchestration: str, said: Report, by: Who) -> tuple[View, str]:
        """Take note of what somebody says; returns how far all is, and why no more is to be begun (empty: go on).

        It is on record when this returns. Raises `NotFound` (`crew.no_part`), `Denied` (`crew.not_your_part`), what
        `phases.move` raises, `TooLarge` (`crew.data_too_large`).
        """
        record = await self._store.get(orchestration)
        known = {part.id for part in record.parts} | {plan.SYNTHESIS, ""}
        if said.part not in known:
            raise NotFound(
                f"{orchestration} has no part {said.part!r}.", code="crew.no_part",
                hint="See `knotwork crew state`.", detail={"parts": sorted(known - {""})[:100]},
            )  # fmt: skip
        data = b"null" if said.phase == "complete" else said.data  # that is its result, and kept as such
        if len(data) > records.DATA_MAX_BYTES:
            raise TooLarge(
                f"The data has {len(data)} bytes, {records.DATA_MAX_BYTES} at most.", code="crew.data_too_large",
                hint="Keep it with `knotwork blob put`, and say its digest.",
            )  # fmt: skip
        now_ns = clock.now_ns()
        view = await self._looking.view(record)
        rights.admit_report(view, said.part, by, used=said.tells_use, only_words=said.is_words)
        move = phases.move(view, said.phase) if said.phase is not None else "stay"
        if move != "stay":
            rights.admit_plan(record, by)  # who holds a part speaks of that, and does not steer the whole
        elif said.phase == "complete" and said.data != b"null" and view.phase in records.OVER:
            await self._must_be_result(view, said.data)
        if said.part or said.percent is not None or said.tokens or said.cost or data != b"null":
            made = Checkpoint(
                said.part, rights.speaker(view, said.part, by), now_ns, said.percent, said.text, said.tokens, said.cost,
                msgspec.Raw(data),
            )  # fmt: skip
            await self._store.put_checkpoint(orchestration, made)
        if said.text or said.phase:
            note = Note(now_ns, by.name, said.text[: records.NOTE_MAX], said.part, said.phase or "")
            await self._store.change(orchestration, lambda one: records.with_note(one, note))
        if said.phase is not None and move == "go":
            await self._go(orchestration, said.phase, said.data, by)
        elif said.phase is not None and move == "stop":
            await self._steering.stop(orchestration, by, said.text, "failed" if said.phase == "failed" else "cancelled")
        return await self._after(orchestration)

    async def _must_be_result(self, view: View, data: bytes) -> None:
        """Raise `Conflict` (`crew.over`) unless it came to this already: who is not heard is told so."""
        result = await self._store.result(view.record.id)
        if result is None or await self._values.read(bytes(result.output), result.blob) != data:
            raise Conflict(
                f"{view.record.id} is {view.phase}: what it came to stands.", code="crew.over",
                hint="`knotwork crew synthesize` puts it together in another way; a result of your own needs "
                "`--synthesis none` of `knotwork crew spawn`.", detail={"phase": view.phase},
            )  # fmt: skip

    async def _go(self, orchestration: str, phase: Phase, data: bytes, by: Who) -> None:
        """Move to a phase that facts alone do not lead to; `data` is what a complete one came to, null: what its parts add up to."""
        view = await self._looking.view(await self._store.get(orchestration))
        if phase != "complete":
            await self._settling.note_phase(view.record, phase)
            return
        if data != b"null":
            value, blob = await self._values.keep(data)
            result = Result("agent", msgspec.Raw(value), blob, (), (), by.name, clock.now_ns())
        else:
            result = await self._settling.put_together(view, "concatenate")
        await self._store.put_result(orchestration, result)
        closed = await self._settling.close(view, "complete")
        left = [run for run, over in closed.runs.items() if not over] if closed.record.phase == "complete" else []
        for run in left:  # of an agent that puts it together
            with contextlib.suppress(Conflict, NotFound):
                await self._flow.runs.cancel(run, by=by.name, why="The result came from elsewhere.")

    async def _after(self, orchestration: str) -> tuple[View, str]:
        view = await self._settling.settle(orchestration)
        record = view.record
        if record.stop is not None or not record.live:
            return view, f"it is {record.stop.phase if record.stop is not None else record.phase}"
        if record.held:
            return view, await self._settling.check_budget(view) or "it is paused"
        return view, ""
