"""What does this node answer about workflows and their runs? The host's side of the ops `workflow.*` and `run.*`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec, subjects
from knotwork.flow import drawing, facts, history, listing
from knotwork.flow.definitions import digest_of, text_of
from knotwork.flow.runs import Wanted
from knotwork.host import flow_rows
from knotwork.host.agents import caller_name
from knotwork.ops import flow_replies
from knotwork.sdk.errors import Denied, Invalid, KnotworkError

if TYPE_CHECKING:
    from knotwork.flow.listing import Listed
    from knotwork.flow.model import Workflow
    from knotwork.flow.room import Flow
    from knotwork.ops.flow_ports import NewRun
    from knotwork.ops.op import Caller
    from knotwork.view.room import Row, View

log = logging.getLogger(__name__)
LOOK_EVERY_S = 2.0
AT_ONCE = 32
LOOKED_AT = 10_000
LIVING = frozenset({"running", "paused", "stopping", "scheduled"})


class FlowDesk:
    """One project's workflows (`ops.flow_ports.Flows`)."""

    def __init__(self, flow: Flow, view: View, address: Callable[[], str]) -> None:
        """Work through our part in the project's workflows; `address` is where our HTTP door is."""
        self._flow, self._view, self._address = flow, view, address

    # -- definitions -------------------------------------------------------------------------------------------------

    def check(self, definition: Any) -> flow_replies.Verdict:
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
        return flow_replies.Verdict(ok=True, name=workflow.name, digest=digest, steps=len(workflow.steps))

    async def register(self, definition: Any) -> flow_replies.Registered:
        """Keep a definition under its name."""
        workflow = understood(definition)
        named = await self._flow.definitions.named(workflow.name)
        digest = await self._flow.definitions.put(workflow, now_ns=time.time_ns())
        return flow_replies.Registered(
            name=workflow.name, digest=digest, new=named is None or named.digests[-1] != digest
        )

    async def workflows(self) -> list[flow_replies.WorkflowRow]:
        """Return every workflow there is, by name."""
        return [await self._row(name) for name in sorted(await self._flow.definitions.all())]

    async def _row(self, name: str) -> flow_replies.WorkflowRow:
        found = await self.workflow(name)
        return flow_replies.WorkflowRow(**found.model_dump(include=set(flow_replies.WorkflowRow.model_fields)))

    async def workflow(self, name: str) -> flow_replies.WorkflowInfo:
        """Return one workflow, by name or digest."""
        digest, graph = await self._flow.definitions.find(name)
        named = await self._flow.definitions.named(graph.workflow.name)
        return flow_replies.WorkflowInfo(
            name=graph.workflow.name, digest=digest, versions=len(named.digests) if named else 0,
            steps=len(graph.boxes), owner=named.owner if named else "",
            updated_at=flow_rows.moment(named.updated_ns) if named else "", description=graph.workflow.description,
            definition=json.loads(text_of(graph.workflow)), digests=named.digests if named else [],
        )  # fmt: skip

    async def drawn(self, name: str, form: str) -> str:
        """Return a workflow as a picture in words."""
        _, graph = await self._flow.definitions.find(name)
        return drawing.drawn(graph, form)

    async def remove(self, name: str) -> bool:
        """Take a name away."""
        return await self._flow.definitions.remove(name)

    # -- runs --------------------------------------------------------------------------------------------------------

    async def start(self, wanted: NewRun, caller: Caller) -> flow_replies.RunInfo:
        """Start a run."""
        run, new = await self._flow.runs.start(
            Wanted(
                wanted.workflow, codec.encode(wanted.input), wanted.key, caller_name(caller), wanted.labels,
                wanted.priority, wanted.boundary, traceparent=caller.traceparent,
            )
        )  # fmt: skip
        if not new:
            return await self.run(run)
        return flow_replies.RunInfo(id=run, workflow=wanted.workflow, state="running", new=True)

    async def runs(self, *, workflow: str, states: frozenset[str], limit: int) -> list[flow_replies.RunRow]:
        """Return runs, the newest first: of the past from the view, and from the streams while that is not ready."""
        past: dict[str, Row] = {}
        try:
            if not states <= LIVING or not states:
                ended = await self._view.ended_runs(workflow=workflow, states=sorted(states - LIVING), limit=limit)
                past = {str(one["id"]): one for one in ended}
            known = await listing.recent(self._flow.connection, workflow=workflow)
        except KnotworkError as error:
            log.debug("runs are listed from the streams: %s", error)
            over = None if not states else True if not states & LIVING else False if states <= LIVING else None
            most = limit if not states else LOOKED_AT
            known = await listing.runs(self._flow.connection, workflow=workflow, over=over, limit=most)
        rows = await self._rows(known, states, limit)
        for name in past.keys() - {one.id for one in rows}:
            rows.append(await self._past_row(past[name]))
        return sorted(rows, key=lambda one: one.started_at, reverse=True)[:limit]

    async def _past_row(self, one: Row) -> flow_replies.RunRow:
        steps = 0
        with contextlib.suppress(KnotworkError):
            steps = len((await self._flow.definitions.graph(str(one["digest"]))).boxes)
        return flow_rows.past(one, steps)

    async def _rows(self, known: list[Listed], states: frozenset[str], limit: int) -> list[flow_replies.RunRow]:
        """Return those of runs that are in some states; all of them, when none is named."""
        known = sorted(known, key=lambda one: one.start.started_ns, reverse=True)
        found: list[flow_replies.RunRow] = []
        for begin in range(0, len(known), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                looks = [group.create_task(self._listed(one)) for one in known[begin : begin + AT_ONCE]]
            rows = [row for look in looks if (row := look.result()) is not None]
            found += [row for row in rows if not states or row.state in states]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _listed(self, one: Listed) -> flow_replies.RunRow | None:
        try:
            if one.finish is not None:
                return flow_rows.ended(one, len((await self._flow.definitions.graph(one.start.digest)).boxes))
            return flow_rows.row(await self._flow.runs.look(one.id))
        except KnotworkError as error:  # gone meanwhile, or written by a newer version
            log.debug("run %s is left out of the list: %s", one.id, error)
            return None

    async def run(self, run: str, *, up_to: int | None = None) -> flow_replies.RunInfo:
        """Return one run, as it is or as it was after so many facts."""
        return flow_rows.info(await self._flow.runs.look(run, up_to=up_to))

    async def ended(self, run: str, timeout_s: float) -> flow_replies.RunInfo:
        """Return a run when it has ended, or as it is after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._flow.runs.ended(run)
        return await self.run(await self._flow.runs.latest(run))

    async def watch(self, run: str, timeout_s: float) -> AsyncGenerator[flow_replies.RunEvent, None]:
        """Yield what happens to a run until it is over: every fact, those before included."""
        end_s = time.monotonic() + timeout_s
        news = asyncio.Event()
        pattern = subjects.told(f"{facts.subject(run)}.>")
        listening = await self._flow.connection.listen(pattern, lambda _: news.set())
        told = 0
        try:
            while True:
                news.clear()
                sight = await self._flow.runs.look(run)
                for number, stored in enumerate(sight.facts[told:], start=told + 1):
                    yield flow_rows.event(number, stored)
                told = max(told, len(sight.facts))
                left_s = end_s - time.monotonic()
                if sight.finish is not None or left_s <= 0:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_EVERY_S, left_s)):
                        await news.wait()
        finally:
            self._flow.connection.unlisten_now(listening)

    async def why(self, run: str) -> flow_replies.RunWhy:
        """Return what a run waits for."""
        sight = await self._flow.runs.look(run)
        waits = flow_rows.waits(sight.run) if sight.finish is None else []
        if sight.finish is not None and sight.finish.next:
            going_on = await self._flow.runs.latest(run)
            waits = [flow_replies.Wait(step="", what=f"nothing: it went on as another run, now {going_on}")]
        return flow_replies.RunWhy(id=run, state=flow_rows.state_of(sight.run, sight.finish), waits=waits)

    async def events(self, run: str) -> list[flow_replies.RunEvent]:
        """Return the facts of a run."""
        sight = await self._flow.runs.look(run)
        return [flow_rows.event(number, stored) for number, stored in enumerate(sight.facts, start=1)]

    # -- wishes ------------------------------------------------------------------------------------------------------

    async def cancel(self, runs: list[str], why: str, caller: Caller) -> list[flow_replies.Changed]:
        """Have runs stopped."""
        found = []
        for run in runs:
            try:
                await self._flow.runs.cancel(run, by=caller_name(caller), why=why)
            except KnotworkError as error:
                if len(runs) == 1:
                    raise
                found.append(flow_replies.Changed(id=run, changed=False, why=error.message))
            else:
                found.append(flow_replies.Changed(id=run, changed=True))
        return found

    async def hold(self, run: str, caller: Caller, *, resume: bool) -> flow_replies.Changed:
        """Begin no new steps, or begin them again."""
        await self._flow.runs.hold(run, by=caller_name(caller), resume=resume)
        return flow_replies.Changed(id=run, changed=True)

    async def signal(self, run: str, name: str, payload: Any, key: str, caller: Caller) -> flow_replies.Changed:
        """Send a signal."""
        sent = await self._flow.runs.signal(run, name, codec.encode(payload), by=caller_name(caller), key=key)
        return flow_replies.Changed(id=run, changed=sent, why="" if sent else "it was sent before")

    async def answer(self, run: str, step: str, comment: str, caller: Caller, *, approve: bool) -> flow_replies.Changed:
        """Approve or reject."""
        by = caller_name(caller)
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
        ours = caller_name(caller)
        if by and by != ours and caller.who.kind != "person":
            raise Denied(f"{ours} may have no link in the name of {by}.", code="flow.not_approver")
        until_ns = time.time_ns() + int(expires_s * 1e9)
        link = await self._flow.approvals.link(run, step, by=by or ours, until_ns=until_ns)
        return flow_replies.ApprovalLink(
            url=f"{self._address()}/approve/{link}", by=by or ours, expires_at=flow_rows.moment(until_ns)
        )

    async def fork(
        self, run: str, step: str, inputs: Mapping[str, Any], key: str, caller: Caller
    ) -> flow_replies.RunInfo:
        """Start a new run that takes over what was done before a step."""
        handed, value = (codec.encode(inputs[one]) if one in inputs else None for one in ("input", "run_input"))
        made, new = await self._flow.runs.fork(run, step, handed=handed, value=value, by=caller_name(caller), key=key)
        return (await self.run(made)).model_copy(update={"new": new})

    async def exported(self, run: str) -> flow_replies.Exported:
        """Return a run as it is kept."""
        sight = await self._flow.runs.look(run)
        graph = await self._flow.definitions.graph(sight.start.digest)
        rows: list[dict[str, Any]] = json.loads(history.packed(sight.facts))
        return flow_replies.Exported(id=run, definition=json.loads(text_of(graph.workflow)), facts=rows)

    async def imported(self, run: Any) -> flow_replies.Changed:
        """Keep a run that was written down; raises `Invalid` (`flow.bad_history`), `Conflict` (`flow.there`)."""
        if not isinstance(run, dict) or not isinstance(run.get("facts"), list):
            raise Invalid("This is no run that was written down.", code="flow.bad_history")
        workflow = understood(run.get("definition"))
        await self._flow.definitions.put(workflow, now_ns=time.time_ns(), named=False)
        name = str(run.get("id", ""))
        new = await self._flow.runs.keep(name, codec.encode(run["facts"]), digest_of(text_of(workflow)))
        return flow_replies.Changed(id=name, changed=new, why="" if new else "it is there already")

    async def replay(self, run: str) -> flow_replies.Replay:
        """Say whether today's rules lead to the history of a run."""
        found = await self._flow.runs.replay(run)
        if found is None:
            return flow_replies.Replay(id=run, same=True)
        return flow_replies.Replay(id=run, same=False, number=found.number, fact=found.fact, expected=found.expected)

    async def publish(self, kind: str, body: Any) -> int:
        """Publish an event and return its number."""
        return await self._flow.events.publish(kind, codec.encode(body))


def understood(definition: Any) -> Workflow:
    """Return the workflow that a definition means; raises `Invalid` (`flow.bad_workflow`) with all that is wrong."""
    from knotwork.flow import source  # likewise

    checked = source.check(definition)
    if checked.workflow is None:
        told = "\n".join(f"line {one.line}, column {one.column}: {one.path}: {one.message}" for one in checked.flaws)
        problems = [
            {"path": one.path, "line": one.line, "column": one.column, "message": one.message, "hint": one.hint}
            for one in checked.flaws
        ]
        raise Invalid(f"This is no workflow:\n{told}", code="flow.bad_workflow", detail={"problems": problems})
    return checked.workflow
