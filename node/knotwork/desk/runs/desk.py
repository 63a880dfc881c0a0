"""What does this node answer about workflows and their runs? The desk's side of the ops `workflow.*` and `run.*`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, codec
from knotwork.desk.callers import asker, caller_name
from knotwork.desk.moments import moment
from knotwork.desk.runs import batches as run_batches
from knotwork.desk.runs import rows as flow_rows
from knotwork.desk.runs.copies import RunCopies, understood
from knotwork.desk.runs.lists import RunLists
from knotwork.desk.runs.sight import Circles, RunSight
from knotwork.desk.runs.watch import RunWatch
from knotwork.desk.tasks import values as task_values
from knotwork.flow import anew, drawing, facts
from knotwork.flow.definitions import digest_of, text_of
from knotwork.flow.runs import Wanted
from knotwork.mesh.policy import Policy
from knotwork.ops import flow_replies, replies
from knotwork.ops.flow_replies import AllChanged
from knotwork.sdk.errors import Denied, Invalid, NotFound

if TYPE_CHECKING:
    from knotwork.desk.runs.planned import Planned
    from knotwork.desk.tasks.reasons import TaskReasons
    from knotwork.flow.model import Workflow
    from knotwork.flow.room import Flow
    from knotwork.ops.flow_ports import NewRun, RunBatch, RunFilter
    from knotwork.ops.op import Caller
    from knotwork.view.room import View

LOOK_S = 0.5
LOOKED_UP_MAX, WARNINGS_MAX = 200, 20
"""Of how many sub-workflows it is looked up whether they are there, and how many are told that are not."""
BOOKS_MAX = 20
"""Of how many limits it is looked up who holds their places, when somebody asks why a run waits."""


class FlowDesk:
    """One project's workflows (`ops.flow_ports.Flows`)."""

    def __init__(
        self,
        flow: Flow,
        view: View,
        address: Callable[[], str],
        circles: Circles = None,
        planned: Planned | None = None,
        *,
        reasons: TaskReasons | None = None,
        policy: Callable[[], Policy] = Policy,
    ) -> None:
        """Work through our part in the project's workflows; `address` is where our HTTP door is.

        Beside runs of the whole project those of these circles are shown, with None everybody's; and those that are
        `planned`. Why their tasks wait is asked of `reasons`, and which boundaries there are of `policy()`.
        """
        self._policy = policy
        self._planned, self._reasons = planned, reasons
        self._flow, self._address, self._sight = flow, address, RunSight(flow, circles)
        self._lists, self._copies = RunLists(flow, view, self._sight, planned), RunCopies(flow)

    # -- definitions -------------------------------------------------------------------------------------------------

    def schema(self) -> flow_replies.DefinitionSchema:
        """Return the JSON Schema of a workflow."""
        from knotwork.flow.model import json_schema  # a node need not load it to start

        return flow_replies.DefinitionSchema(json_schema=json_schema())

    async def check(self, definition: Any) -> flow_replies.Verdict:
        """Return everything that is wrong with a definition."""
        from knotwork.flow import source  # and with it YAML, which a node need not load to start

        checked = source.check(definition)
        if checked.workflow is None:
            flaws = [
                flow_replies.Flaw(path=one.path, line=one.line, column=one.column, message=one.message, hint=one.hint)
                for one in checked.flaws
            ]
            return flow_replies.Verdict(ok=False, problems=flaws)
        workflow = checked.workflow
        digest = digest_of(text_of(workflow))
        return flow_replies.Verdict(
            ok=True, name=workflow.name, digest=digest, steps=len(workflow.steps), warnings=await self._doubts(workflow)
        )

    async def _doubts(self, workflow: Workflow) -> list[str]:
        """Return what it names that is not there: boundaries, and workflows; they may come later, so it is no error."""
        from knotwork.flow.slips import boundaries, started_by  # likewise

        known: dict[str, bool] = {workflow.name: True}
        found: list[str] = []
        for place, name in boundaries(workflow):
            if name not in self._policy().known and len(found) < WARNINGS_MAX:
                found.append(f"{place}: there is no boundary {name!r}; add [boundaries.{name}] before a run gets to it")
        for step, name in started_by(workflow):
            if name not in known and len(known) <= LOOKED_UP_MAX:
                known[name] = await self._flow.definitions.means_something(name)
            if not known.get(name, True) and len(found) < WARNINGS_MAX:
                found.append(f"steps.{step}: the workflow {name!r} is not there; register it before a run gets to it")
        return found

    async def register(self, definition: Any) -> flow_replies.Registered:
        """Keep a definition under its name."""
        workflow = understood(definition)
        named = await self._flow.definitions.named(workflow.name)
        digest = await self._flow.definitions.put(workflow, now_ns=clock.now_ns())
        return flow_replies.Registered(
            name=workflow.name, digest=digest, new=named is None or named.digests[-1] != digest,
            warnings=await self._doubts(workflow),
        )  # fmt: skip

    async def workflows(self) -> list[flow_replies.WorkflowRow]:
        """Return every workflow there is, by name; one that is taken away meanwhile is left out."""
        rows = []
        for name in sorted(await self._flow.definitions.all()):
            try:
                rows.append(await self._row(name))
            except NotFound as error:
                if error.code != "flow.no_workflow":
                    raise
        return rows

    async def _row(self, name: str) -> flow_replies.WorkflowRow:
        found = await self.workflow(name)
        return flow_replies.WorkflowRow(**found.model_dump(include=set(flow_replies.WorkflowRow.model_fields)))

    async def workflow(self, name: str) -> flow_replies.WorkflowInfo:
        """Return one workflow, by name or digest; also one of which this version can make no sense."""
        kept = await self._flow.definitions.kept(name)
        text = json.loads(kept.text)
        definition: dict[str, Any] = text if isinstance(text, dict) else {}
        meant = str(definition.get("name") or name)
        named = await self._flow.definitions.named(meant)
        steps = definition.get("steps")
        return flow_replies.WorkflowInfo(
            name=meant, digest=kept.digest, versions=len(named.digests) if named else 0,
            steps=len(steps) if isinstance(steps, dict) else 0, owner=named.owner if named else "",
            updated_at=moment(named.updated_ns) if named else "",
            description=str(definition.get("description", "")), definition=definition,
            digests=named.digests if named else [], problem=kept.why,
        )  # fmt: skip

    async def drawn(self, name: str, form: str) -> str:
        """Return a workflow as a picture in words."""
        _, graph = await self._flow.definitions.find(name)
        return drawing.drawn(graph, form)

    async def remove(self, name: str, caller: Caller, *, force: bool = False) -> bool:
        """Take a name away; raises `Conflict` (`flow.in_use`) while triggers start it, except with `force`.

        With that also one that a file brought (`flow.owned` else), unless an agent asks: its node may be gone for good.
        """
        if not force and self._planned is not None and await self._flow.definitions.named(name) is not None:
            self._planned.must_not_start(name)
        return await self._flow.definitions.remove(name, whoever=force and caller.allows("admin"))

    # -- runs --------------------------------------------------------------------------------------------------------

    async def start(self, wanted: NewRun, caller: Caller) -> flow_replies.RunInfo:
        """Start a run; raises `Invalid` (`policy.unknown_boundary`) beside what `Runs.start` does."""
        self._policy().admit(wanted.boundary)
        value = codec.encode(wanted.input)
        if wanted.blob:
            value = await task_values.kept_input(self._flow.values.blobs, wanted.blob)
        begun = await self._flow.runs.start(
            Wanted(
                wanted.workflow, value, wanted.key, caller_name(caller), wanted.labels,
                wanted.priority, wanted.boundary, traceparent=caller.traceparent, asker=asker(caller.who),
            )
        )  # fmt: skip
        return flow_rows.begun(begun) if begun.new else await self.run(begun.id)

    async def runs(self, wanted: RunFilter, limit: int) -> flow_replies.RunList:
        """Return runs that fit, the newest first: of the past from the view, and from the streams while that is not ready."""
        found, cursor = await self._lists.page(wanted, limit)
        return flow_replies.RunList(runs=[one.row for one in found], next=cursor)

    async def run(self, run: str, *, up_to: int | None = None) -> flow_replies.RunInfo:
        """Return one run, as it is or as it was after so many facts; raises `Invalid` (`flow.no_fact`)."""
        await self._sight.admit(run)
        try:
            sight = await self._flow.runs.glance(run, up_to=up_to)
        except NotFound:
            if (coming := await self._coming(run)) is None:
                raise
            if up_to is not None and self._planned is not None:
                await self._planned.refuse(run)
            return coming
        if up_to is not None and up_to > len(sight.facts):
            raise Invalid(
                f"{run} has {len(sight.facts)} facts, not {up_to}.", code="flow.no_fact",
                hint="`knotwork run events` lists them.", detail={"id": run, "facts": len(sight.facts)},
            )  # fmt: skip
        return flow_rows.info(sight)

    async def ended(self, run: str, timeout_s: float) -> flow_replies.RunInfo:
        """Return a run when it has ended, or as it is after so many seconds."""
        await self._sight.admit(run)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._begun(run)
                await self._flow.runs.ended(run)
        return await self.run(await self._flow.runs.latest(run))

    async def _coming(self, run: str) -> flow_replies.RunInfo | None:
        return await self._planned.find(run) if self._planned is not None else None

    async def _begun(self, run: str) -> None:
        """Return when a run that is planned has begun; at once for any other."""
        while True:
            if await anew.exists(self._flow.connection, run) or await self._coming(run) is None:
                return
            await asyncio.sleep(LOOK_S)

    def _begun_by_now(self, run: str) -> AbstractAsyncContextManager[None]:
        return self._planned.begun_by_now(run) if self._planned is not None else contextlib.nullcontext()

    async def watch(
        self, run: str, timeout_s: float, *, tree: bool
    ) -> AsyncGenerator[replies.Progress | replies.Chunk, None]:
        """Yield what happens to a run until it is over: every fact, those before included."""
        await self._sight.admit(run)
        until_s = time.monotonic() + timeout_s
        if (coming := await self._coming(run)) is not None:
            yield replies.Progress(percent=None, text=f"it begins at {coming.started_at}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._begun(run)
            if time.monotonic() >= until_s:
                return
            timeout_s = until_s - time.monotonic()
        async with contextlib.aclosing(RunWatch(self._flow, tree=tree).pieces(run, timeout_s)) as pieces:
            async for piece in pieces:
                yield piece

    async def why(self, run: str) -> flow_replies.RunWhy:
        """Return what a run waits for."""
        await self._sight.admit(run)
        try:
            sight = await self._flow.runs.glance(run)
        except NotFound:
            if (coming := await self._coming(run)) is None:
                raise
            what = f"its time: {coming.trigger} starts it"
            if self._planned is not None and self._planned.is_held(coming):
                what = f"its trigger {coming.trigger}, which is disabled (`knotwork trigger enable {coming.trigger}`)"
            begins = flow_replies.Wait(step="", what=what, until=coming.started_at)
            return flow_replies.RunWhy(id=run, state="scheduled", waits=[begins])
        waits = []
        if sight.finish is None:
            keys = sorted(flow_rows.limits_of(sight))[:BOOKS_MAX]
            books = {key: await self._flow.limits.holders(key) for key in keys}
            waits = flow_rows.waiting(sight, books)
            if self._reasons is not None:
                waits = await self._reasons.beside(run, waits, flow_rows.tasks_of(sight))
        if sight.finish is not None and sight.finish.next:
            going_on = await self._flow.runs.latest(run)
            waits = [flow_replies.Wait(step="", what=f"nothing: it went on as another run, now {going_on}")]
        return flow_replies.RunWhy(id=run, state=flow_rows.state_of(sight), waits=waits)

    async def events(self, run: str) -> list[flow_replies.RunEvent]:
        """Return the facts of a run."""
        await self._sight.admit(run)
        try:
            found = await self._flow.runs.stored(run)
        except NotFound:
            if await self._coming(run) is None:
                raise
            return []
        return [flow_rows.event(number, stored) for number, stored in enumerate(found, start=1)]

    # -- wishes ------------------------------------------------------------------------------------------------------

    async def change(self, batch: RunBatch, caller: Caller) -> AsyncGenerator[replies.Progress | AllChanged, None]:
        """Yield how far one wish about many runs is, then what became of each."""
        changes = run_batches.change(self._flow.runs, self._lists, self._sight, batch, caller, planned=self._planned)
        async with contextlib.aclosing(changes) as pieces:
            async for piece in pieces:
                yield piece

    async def signal(self, run: str, name: str, payload: Any, key: str, caller: Caller) -> flow_replies.Changed:
        """Send a signal."""
        await self._sight.admit(run)
        async with self._begun_by_now(run):
            sent = await self._flow.runs.signal(run, name, codec.encode(payload), by=caller_name(caller), key=key)
        return flow_replies.Changed(id=run, changed=sent, why="" if sent else "it was sent before")

    async def answer(self, run: str, step: str, comment: str, caller: Caller, *, approve: bool) -> flow_replies.Changed:
        """Approve or reject."""
        await self._sight.admit(run)
        by = caller_name(caller)
        async with self._begun_by_now(run):
            await self._flow.runs.answer(run, step, approve=approve, by=by, comment=comment)
        return flow_replies.Changed(id=run, changed=True)

    async def spawn(self, claim: str, run: str, wanted: NewRun, capability: str) -> flow_replies.Spawned:
        """Start a run, or a task, in the name of whoever holds a step."""
        if run:
            self._flow.children.check(claim, run)
        made, new, left = await self._flow.children.spawn(
            claim, workflow=wanted.workflow, capability=capability, value=codec.encode(wanted.input), key=wanted.key
        )
        child = facts.child_run(made.run, made.step) if wanted.workflow else ""
        return flow_replies.Spawned(step=made.step, run=child, new=new, left=left)

    async def children(self, claim: str, run: str) -> flow_replies.Children:
        """Return what was started so."""
        if run:
            self._flow.children.check(claim, run)
        sight, step = await self._flow.children.of(claim)
        mine = [token for token in sight.run.spawned if token.rpartition(facts.CHILD)[0] == step]
        return flow_replies.Children(children=[flow_rows.child(sight.run, token) for token in mine])

    async def link(self, run: str, step: str, by: str, expires_s: float, caller: Caller) -> flow_replies.ApprovalLink:
        """Return a link by which a question can be answered; agents have one in their own name alone."""
        await self._sight.admit(run)
        ours = caller_name(caller)
        if by and by != ours and caller.who.kind != "person":
            raise Denied(f"{ours} may have no link in the name of {by}.", code="flow.not_approver")
        until_ns = clock.now_ns() + int(expires_s * 1e9)
        async with self._begun_by_now(run):
            link = await self._flow.approvals.link(run, step, by=by or ours, until_ns=until_ns)
        return flow_replies.ApprovalLink(
            url=f"{self._address()}/approve/{link}", by=by or ours, expires_at=moment(until_ns)
        )

    async def fork(
        self, run: str, step: str, inputs: Mapping[str, Any], key: str, caller: Caller
    ) -> flow_replies.RunInfo:
        """Start a new run that takes over what was done before a step."""
        await self._sight.admit(run)
        handed, value = (codec.encode(inputs[one]) if one in inputs else None for one in ("input", "run_input"))
        async with self._begun_by_now(run):
            made, new = await self._flow.runs.fork(
                run, step, handed=handed, value=value, by=caller_name(caller), key=key, asker=asker(caller.who)
            )
        return (await self.run(made)).model_copy(update={"new": new})

    async def exported(self, run: str) -> AsyncGenerator[replies.Chunk | flow_replies.Exported, None]:
        """Yield a run as it is kept, a large one in parts."""
        await self._sight.admit(run)
        async with self._begun_by_now(run), aclosing(self._copies.lines(run)) as lines:
            async for line in lines:
                yield line

    def exported_all(
        self, wanted: RunFilter, limit: int
    ) -> AsyncGenerator[replies.Chunk | flow_replies.Exported, None]:
        """Yield runs that fit as they are kept, then how to go on."""
        return self._copies.all(self._lists, wanted, limit)

    async def imported(self, run: Any) -> flow_replies.Changed:
        """Keep a run that was written down."""
        return await self._copies.keep(run)

    async def imported_all(self, runs: list[Any]) -> AllChanged:
        """Keep runs that were written down, and say of each what became of it."""
        return await self._copies.keep_all(runs)

    async def replay(self, run: str) -> flow_replies.Replay:
        """Say whether today's rules lead to the history of a run."""
        await self._sight.admit(run)
        async with self._begun_by_now(run):
            found = await self._flow.runs.replay(run)
        if found is None:
            return flow_replies.Replay(id=run, same=True)
        return flow_replies.Replay(id=run, same=False, number=found.number, fact=found.fact, expected=found.expected)

    async def publish(self, kind: str, body: Any, key: str) -> flow_replies.Published:
        """Publish an event, once with a key."""
        number, new = await self._flow.events.publish(kind, codec.encode(body), key)
        return flow_replies.Published(kind=kind, number=number, already=not new)
