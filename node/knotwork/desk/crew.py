"""How are orchestrations asked for, and how do they look? One project's crew, as the ops' replies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, codec
from knotwork.crew import budget, plan, records, rights, store, watching
from knotwork.crew.assess import unserved
from knotwork.crew.plan import Part
from knotwork.crew.planning import Planner, Wish
from knotwork.crew.records import Budget, Synthesis
from knotwork.crew.reporting import Report
from knotwork.crew.room import Spawn
from knotwork.desk import crew_rows
from knotwork.flow.run import decoded
from knotwork.ops import crew_replies
from knotwork.sdk.errors import KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.crew.records import Record, Result
    from knotwork.crew.room import Crew
    from knotwork.crew.sight import PartSight, View
    from knotwork.desk.seen_agents import SeenAgents
    from knotwork.mesh.membership import Membership
    from knotwork.ops.crew_ports import Assessing, NewPart, Progressing, Spawning, Together
    from knotwork.ops.op import Caller
    from knotwork.trust.who import Who

ANSWER_MAX_BYTES = 4 * 1024 * 1024
"""Results in one answer; what does not fit is told by its digest."""
STATES = frozenset({"online", "stale", "draining"})


class CrewDesk:
    """One project's orchestrations (`ops.crew_ports.Crews`)."""

    def __init__(self, crew: Crew, membership: Membership, by: Who, agents: SeenAgents) -> None:
        """Work through our part in the project's orchestrations for somebody, who sees these `agents` in `membership`."""
        self._crew, self._membership, self._by, self._agents = crew, membership, by, agents

    async def _seen(self, orchestration: str, *, steered: bool = False) -> Record:
        """Return one that whoever asks may see, and with `steered` may steer, too.

        Raises `NotFound` (`crew.not_found`), `Denied` (`crew.not_yours`).
        """
        record = await self._crew.store.get(orchestration)
        if not rights.may_look(record, self._by) and not rights.works_on(
            await self._crew.looking.view(record), self._by
        ):
            raise store.unknown(orchestration)
        if steered:
            rights.admit_plan(record, self._by)
        return record

    # -- plans -------------------------------------------------------------------------------------------------------

    async def assess(self, wanted: Assessing, caller: Caller) -> crew_replies.CrewPlan:
        """Return a plan for a task."""
        known = self._known() if wanted.capabilities is None else frozenset(wanted.capabilities)
        asked = None
        if wanted.planner_capability or wanted.planner_agent:
            named = self._agents.named(wanted.planner_agent)
            asked = Planner(wanted.planner_capability, named, wanted.planner_wait_s)
        if wanted.parent:
            await self._seen(wanted.parent)
        wish = Wish(wanted.task, caller.who.name, known, wanted.default, wanted.parts_max)
        made = await self._crew.assess(
            wish, caller.who, asked=asked, parent=wanted.parent, key=wanted.key, scope=wanted.scope
        )
        return crew_rows.planned(made)

    def _known(self) -> frozenset[str]:
        """Return what somebody can do now."""
        self._membership.look()
        return frozenset(
            capability
            for _, agent, state in self._agents.of(self._membership.directory)
            if state in STATES
            for capability in agent.capabilities
        )

    async def plan(
        self, orchestration: str, parts: Sequence[NewPart] | None, revision: int | None, caller: Caller
    ) -> crew_replies.CrewPlan:
        """Return a plan, with other parts when there are some."""
        record = await self._seen(orchestration)
        if parts is None:
            return crew_rows.planned(record)
        wanted = _parts(parts, self._agents.named)
        told = unserved(wanted, self._known())
        made = await self._crew.edit(orchestration, wanted, revision, caller.who, told)
        return crew_rows.planned(made)

    async def spawn(self, orchestration: str, how: Spawning, caller: Caller) -> crew_replies.CrewState:
        """Carry a plan out; raises `Invalid` (`policy.unknown_boundary`) before anything begins that could not go on."""
        self._membership.policy().admit(how.boundary)
        wanted = Spawn(
            None if how.parts is None else _parts(how.parts, self._agents.named), how.revision,
            Budget(how.depth, how.children, how.time_s, how.tokens, how.cost),
            _together(how.synthesis, self._agents.named), how.boundary, how.priority, how.parallel, caller.traceparent,
        )  # fmt: skip
        await self._seen(orchestration)
        view, new = await self._crew.spawn(orchestration, wanted, caller.who)
        return (await self._state(view)).model_copy(update={"new": new, "already": not new})

    # -- while it goes on --------------------------------------------------------------------------------------------

    async def checkpoint(self, orchestration: str, said: Progressing, caller: Caller) -> crew_replies.Reported:
        """Keep what somebody says on the way."""
        report = Report(
            said.part, said.phase, said.percent, said.text, said.tokens, said.cost,
            codec.encode(said.data),
        )  # fmt: skip
        await self._seen(orchestration)
        view, why = await self._crew.reporting.report(orchestration, report, caller.who)
        part = view.parts.get(said.part)
        return crew_replies.Reported(
            id=orchestration, phase=view.phase, percent=view.percent, part=said.part,
            state=part.state if part is not None else "", go_on=not why, why=why,
        )  # fmt: skip

    async def listed(self, phases: frozenset[str], limit: int, cursor: str = "") -> crew_replies.CrewList:
        """Return a page of orchestrations, the newest first."""
        found: list[crew_replies.CrewRow] = []
        every = [one for one in await self._crew.store.all() if rights.may_look(one, self._by)]
        known = _behind(every, cursor)
        places = {one.id: f"{one.created_ns}-{one.id}" for one in known}
        if phases and phases <= records.OVER:
            known = [one for one in known if one.phase in phases]
        for begin in range(0, len(known), limit):
            page = known[begin : begin + limit]
            views = await self._crew.looking.views([one for one in page if one.phase not in records.OVER])
            rows = {view.record.id: crew_rows.row(view) for view in views}
            rows |= {one.id: crew_rows.over(one) for one in page if one.phase in records.OVER}
            found += [rows[one.id] for one in page if one.id in rows and (not phases or rows[one.id].phase in phases)]
            if len(found) > limit:
                break
        follows = places[found[limit - 1].id] if len(found) > limit else ""
        return crew_replies.CrewList(orchestrations=found[:limit], next=follows)

    async def state(self, orchestration: str) -> crew_replies.CrewState:
        """Return everything about one."""
        return await self._state(await self._view(orchestration))

    async def _view(self, orchestration: str) -> View:
        return await self._crew.looking.view(await self._seen(orchestration))

    async def _state(self, view: View) -> crew_replies.CrewState:
        used = await self._crew.looking.used(view) if view.record.subs else view.used
        why = budget.exceeded(view.record.budget, used) if view.record.held == "budget" else self._lacking(view)
        return crew_rows.state(view, used, why, clock.now_ns())

    def _lacking(self, view: View) -> str:
        """Return what it waits for without a word of its own: a run that was paused, somebody who puts it together."""
        if view.paused and not view.record.held:
            return f"Its run {', '.join(sorted(view.paused))} was paused: it begins nothing until that is resumed."
        if alone := self._unserved(view):
            return alone
        how, seen = view.record.synthesis, view.synthesis
        if how.how != "agent" or seen is None or seen.state not in ("waiting", "queued"):
            return ""
        if how.capability and how.capability not in self._known():
            return f"Nobody has {how.capability} now: the synthesis waits until somebody does."
        self._membership.look()
        there = {agent.name for _, agent, state in self._agents.of(self._membership.directory) if state in STATES}
        return f"{how.agent} is not here now: the synthesis waits for it." if how.agent not in {"", *there} else ""

    def _unserved(self, view: View) -> str:
        """Return which parts wait for a capability that nobody has now, "" when none does."""
        waiting = {part.id: part.capability for part in view.record.parts if view.parts[part.id].state == "queued"}
        lacking = {name: one for name, one in waiting.items() if one and one not in self._known()} if waiting else {}
        if not lacking:
            return ""
        names = ", ".join(sorted({*lacking.values()}))
        return f"Nobody has {names} now: {', '.join(lacking)[:500]} waits until somebody does."

    async def watch(self, orchestration: str, timeout_s: float) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what happens to one until it is over."""
        crew = self._crew
        await self._seen(orchestration)
        async with contextlib.aclosing(
            watching.watch(crew.store.connection, crew.store, crew.looking, orchestration, timeout_s)
        ) as events:
            async for event in events:
                yield event

    async def hold(
        self, orchestration: str, *, resume: bool, tokens: int | None = None, cost: float | None = None
    ) -> crew_replies.CrewState:
        """Begin no more parts, or begin them again."""
        await self._seen(orchestration, steered=True)
        return await self._state(await self._crew.steering.hold(orchestration, resume=resume, tokens=tokens, cost=cost))

    async def cancel(self, orchestration: str, why: str, caller: Caller) -> crew_replies.CrewState:
        """Stop one."""
        await self._seen(orchestration, steered=True)
        return await self._state(await self._crew.steering.stop(orchestration, caller.who, why))

    async def retry(self, orchestration: str, part: str, caller: Caller) -> crew_replies.CrewState:
        """Do a part again."""
        await self._seen(orchestration, steered=True)
        return await self._state(await self._crew.steering.retry(orchestration, part, caller.who))

    # -- results -----------------------------------------------------------------------------------------------------

    async def results(self, orchestration: str, part: str) -> crew_replies.CrewResults:
        """Return what the parts gave so far."""
        view = await self._view(orchestration)
        if part and part not in view.parts:
            raise NotFound(
                f"{orchestration} has no part {part!r}.", code="crew.no_part", hint="See `knotwork crew state`."
            )
        room = ANSWER_MAX_BYTES
        rows = []
        wanted = [one for one in view.parts.values() if not part or one.id == part]
        for_error = crew_rows.room_for_errors(wanted)
        for one in wanted:
            output, blob = await self._shown(one, room)
            room -= len(output)
            rows.append(crew_rows.part_result(view.record, one, decoded(output), blob, for_error))
        result = await self._standing(view) if not part else None
        told = await self._result(view, result, room) if result is not None else None
        return crew_replies.CrewResults(id=orchestration, phase=view.phase, complete=view.done, parts=rows, result=told)

    async def _standing(self, view: View) -> Result | None:
        """Return what it came to: also when it should be put together in another way, and that failed or was cancelled."""
        if view.phase not in records.OVER:
            return None
        result = await self._crew.store.result(view.record.id)
        if result is None or view.phase == "complete":
            return result
        last_ns = max((part.ended_ns for part in view.parts.values()), default=0)
        return result if not view.open and result.at_ns >= last_ns else None  # else a part was done again since

    async def _shown(self, part: PartSight, room: int) -> tuple[bytes, str]:
        """Return what a part gave as it is told: itself, or its digest."""
        if part.blob or len(part.output) <= room:
            return part.output, part.blob
        return b"null", await self._crew.values.blobs.put(part.output)

    async def _result(self, view: View, result: Result | None, room: int = ANSWER_MAX_BYTES) -> crew_replies.CrewResult:
        record: Record = view.record
        if result is None:
            return crew_replies.CrewResult(
                id=record.id,
                phase=view.phase,
                how=record.synthesis.how,
                ready=False,
                why=self._lacking(view) or str((record.error or {}).get("message", "")),
            )
        output, blob = bytes(result.output), result.blob
        if blob:
            with contextlib.suppress(KnotworkError):  # it is told by its digest then
                if (await self._crew.values.blobs.info(blob)).size <= room:
                    output, blob = await self._crew.values.read(output, blob), ""
        return crew_rows.result(view, result, decoded(output), blob)

    async def synthesize(
        self, orchestration: str, how: Together, wait_s: float, caller: Caller
    ) -> crew_replies.CrewResult:
        """Put the results together."""
        await self._seen(orchestration, steered=True)
        view, result = await self._crew.steering.synthesize(
            orchestration, _together(how, self._agents.named), caller.who
        )
        if result is None and wait_s:
            async with contextlib.aclosing(self.watch(orchestration, wait_s)) as events:
                async for _ in events:
                    pass
            view = await self._view(orchestration)
            result = await self._crew.store.result(orchestration) if view.phase == "complete" else None
        return await self._result(view, result)


def _behind(known: Sequence[Record], cursor: str) -> list[Record]:
    """Return the orchestrations behind a place, the newest first: the time they began, then their id."""
    ordered = sorted(known, key=lambda one: (one.created_ns, one.id), reverse=True)
    began, _, name = cursor.partition("-")
    return [one for one in ordered if (one.created_ns, one.id) < (int(began), name)] if cursor else ordered


def _parts(found: Sequence[NewPart], named: Callable[[str], str]) -> plan.Parts:
    return tuple(
        Part(
            one.id, one.title, one.instructions, one.capability, named(one.agent), one.needs, one.acceptance, one.timeout_s,
            one.attempts,
        )
        for one in found
    )  # fmt: skip


def _together(how: Together, named: Callable[[str], str]) -> Synthesis:
    return Synthesis(how.how, how.capability, named(how.agent), how.partial)
