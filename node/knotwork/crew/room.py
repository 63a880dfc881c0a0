"""How are orchestrations wired for one project, and how do they begin? Assessed, planned, spawned; `steering` and `reporting` go on."""

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
from knotwork.crew import budget, plan, records, rights, steering
from knotwork.crew.files import Files
from knotwork.crew.keeping import Keeping
from knotwork.crew.looking import Looking
from knotwork.crew.records import Asker, Budget, Record, Round, Synthesis
from knotwork.crew.reporting import Reporting
from knotwork.crew.settling import Settling
from knotwork.crew.starting import Starting, run_of
from knotwork.crew.steering import Steering
from knotwork.crew.store import Store
from knotwork.flow.run import decoded
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound
from knotwork.trust.scopes import circle
from knotwork.work import records as work_records

if TYPE_CHECKING:
    from pathlib import Path

    from knotwork.crew.planning import Planner, Wish
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
        self.reporting = Reporting(self.store, self.looking, self.settling, self.steering, flow=flow, values=values)
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
