"""How are orchestrations wired for one project, and what may be done with them? Assess, plan, spawn, report, steer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock
from knotwork.bus.background import background, begin_in
from knotwork.crew import budget, phases, plan, records, rights, steering
from knotwork.crew.files import Files
from knotwork.crew.keeping import Keeping
from knotwork.crew.looking import Looking
from knotwork.crew.records import Asker, Budget, Checkpoint, Note, Record, Result, Round, Synthesis
from knotwork.crew.settling import Settling
from knotwork.crew.starting import Starting, run_of
from knotwork.crew.steering import Steering
from knotwork.crew.store import Store
from knotwork.flow.run import decoded
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound, TooLarge
from knotwork.trust.scopes import circle
from knotwork.work import records as work_records

if TYPE_CHECKING:
    from pathlib import Path

    from knotwork.crew.planning import Planner, Wish
    from knotwork.crew.records import Phase
    from knotwork.crew.sight import View
    from knotwork.flow.room import Flow
    from knotwork.trust.scopes import Scope
    from knotwork.trust.who import Who
    from knotwork.work.values import Values

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spawn:
    """How a plan is carried out. `parts` replace the plan when there are some."""

    parts: plan.Parts | None = None
    revision: int | None = None
    budget: Budget = field(default_factory=Budget)
    synthesis: Synthesis = field(default_factory=Synthesis)
    boundary: str = ""
    priority: int = 5
    parallel: int = 0
    traceparent: str = ""


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


class Crew:
    """Orchestrations of one project, as this node takes part in them. Made by `open_crew`."""

    def __init__(
        self, group: asyncio.TaskGroup, flow: Flow, values: Values, folder: Path, *, node: str,
        told: Callable[[Record], None],
    ) -> None:  # fmt: skip
        """Wire the parts; `told` hears of every new phase."""
        self._group, self._flow, self._node = group, flow, node
        self.values = values
        self.store = Store(flow.connection)
        self.files = Files(folder)
        self.looking = Looking(self.store, flow)
        self._starting = Starting(flow, values, self.files, node)
        self.settling = Settling(self.store, self.looking, self._starting, flow, told=told)
        self.steering = Steering(self.store, self.looking, self.settling)
        self.keeping = Keeping(group, self.store, self.settling, flow, over=self._over)
        self._mirrored: set[tuple[str, int]] = set()

    # -- before it begins --------------------------------------------------------------------------------------------

    async def assess(
        self, wish: Wish, by: Who, *, asked: Planner | None, parent: str = "", key: str = "", scope: Scope = "team"
    ) -> Record:
        """Return a new orchestration with a plan that nobody carries out yet; with the same `key` the same one.

        Who may see it says `scope`, and below another that one's.
        Raises what `assess.assess` raises, and `NotFound` and `Conflict` (`crew.over`) for a parent that cannot have any.
        """
        from knotwork.crew import assess, planning  # what reads a text is not needed before there is one

        assess.check_task(wish.task)
        made_id = records.keyed_id(by.id, key) if key else records.new_id(clock.now_ns())
        if key:
            with contextlib.suppress(NotFound):
                return self._same(await self.store.get(made_id), wish.task)
        above = await self._parent(parent, by)
        scope = (await self.store.get(above)).scope if above else scope
        wish = replace(wish, orchestration=made_id, circle=circle(scope, by), asker=work_records.Asker(by.id, by.owner))
        found, planned_by = await planning.plan_of(self._flow, wish, asked)
        made = Record(
            made_id, wish.task, Asker(by.id, by.name, by.owner), parts=found.parts, planned_by=planned_by,
            complexity=found.complexity, remarks=found.notes, parent=above, node=self._node, created_ns=clock.now_ns(),
            scope=scope,
        )  # fmt: skip
        if not await self.store.create(made):
            return self._same(await self.store.get(made_id), wish.task)
        return made

    @staticmethod
    def _same(found: Record, task: str) -> Record:
        if found.task != task:
            raise Conflict(
                f"The key was used for another task: {found.id}.", code="crew.key_reused", hint="Use a new key."
            )
        return found

    async def _parent(self, named: str, by: Who) -> str:
        """Return the orchestration above a new one: the one named, else the one that whoever asks works for."""
        if named:
            record = await self.store.get(named)
            if not record.live:
                raise Conflict(
                    f"{named} is {record.phase}: none can begin below it.", code="crew.over",
                    hint="Name one that goes on, or none.", detail={"phase": record.phase},
                )  # fmt: skip
            return named
        if by.kind != "agent":
            return ""
        theirs = [one for one in self.keeping.live.values() if by.parent and one.by == by.parent]
        if theirs:
            return max(theirs, key=lambda one: one.created_ns).id
        return await self.looking.held_by(by, self.keeping.runs)

    async def edit(
        self,
        orchestration: str,
        parts: Sequence[plan.Part],
        revision: int | None,
        by: Who,
        remarks: tuple[str, ...] = (),
    ) -> Record:
        """Replace a plan that was not spawned; `remarks` are what is to be said of the new one.

        Raises `Invalid`, `Denied` (`crew.not_yours`), `Conflict` (`crew.plan_changed`, `crew.spawned`).
        """
        made = plan.checked(parts)

        def edited(one: Record) -> Record:
            rights.admit_plan(one, by)
            _must_be_plan(one, revision)
            if one.parts == made:
                return one
            return msgspec.structs.replace(
                one, parts=made, revision=one.revision + 1, planned_by=by.name[:256], remarks=remarks
            )

        return await self.store.change(orchestration, edited)

    # -- carrying it out ---------------------------------------------------------------------------------------------

    async def spawn(self, orchestration: str, how: Spawn, by: Who) -> tuple[View, bool]:
        """Carry a plan out; returns how far it is, and False when it was spawned before.

        Raises `Denied` (`crew.not_yours`, `crew.too_deep`, `crew.too_many_children`), `Conflict` (`crew.budget_spent`,
        `crew.over`, `crew.plan_changed`, `crew.spawned`, `crew.other_budget`), `Invalid`.
        """
        record = await self.store.get(orchestration)
        rights.admit_plan(record, by)
        parts = plan.checked(how.parts if how.parts is not None else record.parts)
        if record.rounds:
            return await self._already(record, how), False
        _must_be_plan(record, how.revision)
        allowed = await self._allowed(record, how.budget)
        first = Round(run_of(orchestration, 0), tuple(part.id for part in parts), (), clock.now_ns())
        wanted = msgspec.structs.replace(
            record, parts=parts, phase="spawning", rounds=(first,), budget=allowed, synthesis=how.synthesis,
            boundary=how.boundary, priority=how.priority, parallel=how.parallel, traceparent=how.traceparent,
            node=self._node, spawned_ns=clock.now_ns(), asked=how.budget, spawner=Asker(by.id, by.name, by.owner),
        )  # fmt: skip
        if wanted.charged > allowed.children:
            raise budget.too_many(wanted, wanted.charged)
        self._starting.workflow(wanted, first)  # what cannot be carried out is refused before anything is stored
        everybody = await self.looking.above(record)
        for above in everybody:  # who is refused by one of them costs none of them anything
            budget.charged(above, orchestration, len(parts))
        for above in everybody:
            await self.store.change(above.id, lambda one: budget.charged(one, orchestration, len(parts)))

        def spawned(one: Record) -> Record:
            _must_be_plan(one, record.revision)
            return msgspec.structs.replace(wanted, notes=one.notes, subs=one.subs)

        try:
            made = await self.store.change(orchestration, spawned)
        except Conflict:
            record = await self.store.get(orchestration)
            if not record.rounds:
                raise
            return await self._already(record, how), False  # somebody spawned it at the same time
        self.settling.told(made)
        try:
            await asyncio.to_thread(self.files.spawned, made)
        except OSError as error:
            log.warning("%s is not mirrored as files: %s", orchestration, error)
        log.debug("%s is spawned by %s", orchestration, by.name)
        return await self.settling.settle(orchestration), True

    async def _already(self, record: Record, how: Spawn) -> View:
        """Return how far one is that was spawned before; raises `Conflict` when something else is wanted now."""
        if how.parts is not None and plan.checked(how.parts) != record.parts:
            raise _spawned(record)
        if not budget.is_same(how.budget, record):
            raise budget.other(record)
        return await self.settling.settle(record.id)

    async def _allowed(self, record: Record, wanted: Budget) -> Budget:
        if not record.parent:
            return wanted
        above = await self.store.get(record.parent)
        if not above.live:
            raise Conflict(
                f"{above.id} is {above.phase}: none can begin below it.", code="crew.over",
                detail={"phase": above.phase},
            )  # fmt: skip
        view = await self.looking.view(above)
        if above.held == "asked":
            raise steering.held(above)
        return budget.inherited(wanted, above, await self.looking.used(view), clock.now_ns())

    async def is_held(self, orchestration: str) -> bool:
        """Return whether no part of an orchestration may begin, also none that waits in its queue since before."""
        try:
            return bool((await self.store.get(orchestration)).held)
        except (NotFound, Invalid):  # somebody labelled a task so
            return False

    async def report(self, orchestration: str, said: Report, by: Who) -> tuple[View, str]:
        """Take note of what somebody says; returns how far all is, and why no more is to be begun (empty: go on).

        It is on record when this returns. Raises `NotFound` (`crew.no_part`), `Denied` (`crew.not_your_part`), what
        `phases.move` raises, `TooLarge` (`crew.data_too_large`).
        """
        record = await self.store.get(orchestration)
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
        view = await self.looking.view(record)
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
            await self.store.put_checkpoint(orchestration, made)
        if said.text or said.phase:
            note = Note(now_ns, by.name, said.text[: records.NOTE_MAX], said.part, said.phase or "")
            await self.store.change(orchestration, lambda one: records.with_note(one, note))
        if said.phase is not None and move == "go":
            await self._go(orchestration, said, by)
        elif said.phase is not None and move == "stop":
            await self.steering.stop(orchestration, by, said.text, "failed" if said.phase == "failed" else "cancelled")
        return await self._after(orchestration)

    async def _must_be_result(self, view: View, data: bytes) -> None:
        """Raise `Conflict` (`crew.over`) unless it came to this already: who is not heard is told so."""
        result = await self.store.result(view.record.id)
        if result is None or await self.values.read(bytes(result.output), result.blob) != data:
            raise Conflict(
                f"{view.record.id} is {view.phase}: what it came to stands.", code="crew.over",
                hint="`knotwork crew synthesize` puts it together in another way; a result of your own needs "
                "`--synthesis none` of `knotwork crew spawn`.", detail={"phase": view.phase},
            )  # fmt: skip

    async def _go(self, orchestration: str, said: Report, by: Who) -> None:
        """Move to a phase that facts alone do not lead to."""
        assert said.phase is not None
        view = await self.looking.view(await self.store.get(orchestration))
        if said.phase != "complete":
            await self.settling.note_phase(view.record, said.phase)
            return
        if said.data != b"null":
            value, blob = await self.values.keep(said.data)
            result = Result("agent", msgspec.Raw(value), blob, (), (), by.name, clock.now_ns())
        else:
            result = await self.settling.put_together(view, "concatenate")
        await self.store.put_result(orchestration, result)
        closed = await self.settling.close(view, "complete")
        left = [run for run, over in closed.runs.items() if not over] if closed.record.phase == "complete" else []
        for run in left:  # of an agent that puts it together
            with contextlib.suppress(Conflict, NotFound):
                await self._flow.runs.cancel(run, by=by.name, why="The result came from elsewhere.")

    async def _after(self, orchestration: str) -> tuple[View, str]:
        view = await self.settling.settle(orchestration)
        record = view.record
        if record.stop is not None or not record.live:
            return view, f"it is {record.stop.phase if record.stop is not None else record.phase}"
        if record.held:
            return view, await self.settling.check_budget(view) or "it is paused"
        return view, ""

    # -- files -------------------------------------------------------------------------------------------------------

    def _over(self, record: Record) -> None:
        """Mirror the results of what was spawned here, once."""
        mark = (record.id, record.ended_ns)
        if record.node == self._node and record.rounds and mark not in self._mirrored:
            self._mirrored.add(mark)
            begin_in(self._group, self._mirror(record))

    async def _mirror(self, record: Record) -> None:
        try:
            if await asyncio.to_thread(self.files.is_written, record):
                return
            view = await self.looking.view(record)
            for name, part in view.parts.items():
                if part.state == "completed":  # one after the other: together they may be more than there is memory
                    output = decoded(await self.settling.output_of(part))
                    await asyncio.to_thread(self.files.result, record, name, output)
            result = await self.store.result(record.id)
            whole = decoded(await self.values.read(bytes(result.output), result.blob)) if result is not None else None
            await asyncio.to_thread(self.files.ended, record, whole)
        except (KnotworkError, OSError) as error:
            log.warning("the results of %s are not mirrored as files: %s", record.id, error)


def _must_be_plan(one: Record, revision: int | None) -> None:
    if one.phase != "assessment":
        raise _spawned(one)
    if revision is not None and one.revision != revision:
        raise Conflict(
            f"The plan was changed meanwhile: it has revision {one.revision}.", code="crew.plan_changed",
            hint="Look at it (`knotwork crew plan`) and send your change again.", detail={"revision": one.revision},
        )  # fmt: skip


def _spawned(one: Record) -> Conflict:
    return Conflict(
        f"{one.id} is in {one.phase}: its plan stands.", code="crew.spawned",
        hint="Assess the task again for another plan.", detail={"phase": one.phase},
    )  # fmt: skip


@asynccontextmanager
async def open_crew(
    flow: Flow, values: Values, folder: Path, *, node: str, told: Callable[[Record], None]
) -> AsyncIterator[Crew]:
    """Take part in the orchestrations of a project inside the block."""
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(background())
        crew = Crew(group, flow, values, folder, node=node, told=told)
        await crew.store.open()
        group.create_task(crew.keeping.run(), name="orchestrations")
        yield crew
