"""What does this node answer about triggers, and to requests that fire them? The desk's side of the room `trigger`."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, codec
from knotwork.desk.callers import agent_id, caller_name
from knotwork.desk.moments import moment
from knotwork.desk.runs import planned as run_planned
from knotwork.flow import anew
from knotwork.flow.run import decoded
from knotwork.flow.runs import Wanted, keyed_run
from knotwork.mesh.policy import Policy
from knotwork.ops import flow_replies, task_words
from knotwork.ops import trigger_replies as replies
from knotwork.ops.trigger_ports import HookAnswer, HookRequest
from knotwork.sdk.errors import Conflict, Denied, Invalid, NotFound
from knotwork.trigger import due, envelope
from knotwork.trigger.arrivals import Arrived
from knotwork.trigger.envelope import Firing
from knotwork.trigger.model import Arriving, Cron, Files, Once, Plugin, Served, Subject
from knotwork.trigger.resting import resting
from knotwork.trigger.store import State, route, shown

if TYPE_CHECKING:
    from knotwork.ops.flow_ports import NewRun
    from knotwork.ops.op import Caller
    from knotwork.trigger.model import Definition
    from knotwork.trigger.room import Triggers
    from knotwork.trigger.starting import Started
    from knotwork.trigger.store import Known


class TriggerDesk:
    """One project's triggers (`ops.trigger_ports.Triggers`)."""

    def __init__(self, triggers: Triggers, address: Callable[[], str], policy: Callable[[], Policy] = Policy) -> None:
        """Work through our part in them; `address` is where our HTTP door is, `policy()` knows the boundaries."""
        self._policy = policy
        self._triggers, self._address = triggers, address

    async def create(self, definition: Any, fields: dict[str, Any], caller: Caller, *, replace: bool) -> replies.Kept:
        """Keep a trigger."""
        trigger, new = await self._keep(definition, fields, caller, replace=replace)
        taken = route(trigger)
        address = f"{taken.partition(' ')[0]} {self._address()}{taken.partition(' ')[2]}" if taken else ""
        return replies.Kept(
            id=trigger.id, kind=trigger.kind, new=new, next_at=self._next(trigger, clock.now_ns()), address=address
        )

    async def _keep(
        self, definition: Any, fields: dict[str, Any], caller: Caller, *, replace: bool
    ) -> tuple[Definition, bool]:
        from knotwork.trigger import source  # and with it YAML, which a node need not load to start

        reading = source.reading(definition, **fields)
        trigger = reading.checked(await self._triggers.missing(reading.named()))
        self._policy().admit(trigger.boundary or "")
        if isinstance(trigger, Arriving | Files) and not caller.allows("admin"):
            raise Denied(
                "Agents keep no triggers that open a door of the nodes, or watch their folders.",
                code="trigger.not_yours", hint="Ask a person, or use times or a subject.",
            )  # fmt: skip
        before = await self._changed_by(trigger.id, caller) if replace else None
        new = await self._triggers.put(
            trigger, by=caller_name(caller), agent=agent_id(caller), instead_of=before,
            replace=replace and (before is not None or caller.allows("admin")),
        )  # fmt: skip
        return trigger, new

    async def _changed_by(self, name: str, caller: Caller) -> Known | None:
        """Return a trigger that somebody who is no admin wants to change, None when there is none.

        Raises `Denied` (`trigger.not_yours`) for one that somebody else made: a person's stands, whatever agents do.
        """
        if caller.allows("admin"):
            return None
        try:
            known = await self._triggers.store.get(name)
        except NotFound:
            return None
        mine = known.agent == caller.who.id if agent_id(caller) else known.by == caller_name(caller)
        if not mine:
            raise Denied(
                f"The trigger {name} is not yours to change: {known.by or 'somebody else'} made it.",
                code="trigger.not_yours", hint="Ask a person, or make one of your own under another id.",
            )  # fmt: skip
        return known

    def _next(self, trigger: Definition, since_ns: int) -> str:
        times = self._triggers.times(trigger, 1, since_ns) if trigger.enabled else []
        return moment(times[0]) if times else ""

    async def all(self) -> list[replies.TriggerRow]:
        """Return every trigger, by id."""
        return await self._rows(sorted(self._triggers.store.known.items()))

    async def _rows(self, of: list[tuple[str, Known]], state: State | None = None) -> list[replies.TriggerRow]:
        names = [name for name, _ in of]
        newest, counts = await self._triggers.firings.newest(names), await self._triggers.firings.counts(names)
        return [self._row(known, newest.get(name, 0), counts.get(name, 0), state) for name, known in of]

    def _row(self, known: Known, fired_ns: int, count: int, state: State | None) -> replies.TriggerRow:
        trigger = known.trigger
        state = state or self._triggers.store.states.get(trigger.id) or State()
        return replies.TriggerRow(
            id=trigger.id, kind=trigger.kind, workflow=trigger.workflow, enabled=trigger.enabled, fires=_fires(trigger),
            next_at=self._next(trigger, max(state.since_ns, known.since_ns)),
            last_at=moment(max(fired_ns, state.last_ns)),
            node=self._node(trigger), fired=state.fired + count,
        )  # fmt: skip

    def _node(self, trigger: Definition) -> str:
        """Return who sees to a trigger: us, or, of those that plugins tell, the node that listens."""
        if self._triggers.is_mine(trigger.id):
            return "here"
        return self._triggers.telling.node_of(trigger) if isinstance(trigger, Plugin) and trigger.enabled else ""

    async def show(self, name: str) -> replies.TriggerInfo:
        """Return one."""
        known = await self._triggers.store.get(name)
        state, _ = await self._triggers.store.state(name)
        (row,) = await self._rows([(name, known)], state)
        return replies.TriggerInfo(
            **row.model_dump(), definition=shown(known.trigger), by=known.by,
            since=moment(known.since_ns), pending=[one.key for one in state.pending], runs=state.runs, why=await self._triggers.why(known.trigger, state),
            resting=[
                replies.RestingRow(node=node, until=moment(rest.until_ns), why=rest.why)
                for node, rest in resting(state.rests, clock.now_ns()).items()
            ],
        )  # fmt: skip

    async def switch(self, name: str, caller: Caller, *, enabled: bool) -> replies.TriggerRow:
        """Enable or disable one."""
        await self._changed_by(name, caller)
        known = await self._triggers.switch(name, enabled=enabled)
        (row,) = await self._rows([(name, known)])
        return row

    async def trial(self, name: str, definition: Any, fields: dict[str, Any], count: int, body: Any) -> replies.Trial:
        """Return when a trigger would fire next."""
        if name and definition is None and not fields:
            trigger = (await self._triggers.store.get(name)).trigger
        else:
            from knotwork.trigger import source  # likewise

            named = {"id": name, **fields} if name else fields
            written = source.table(definition)[0] if definition is not None else {}
            standing_in = {key: "trial" for key in ("id", "workflow") if key not in written}
            reading = source.reading(definition, **(standing_in | named))
            names = {key: text for key, text in reading.named().items() if key not in standing_in or key in named}
            trigger = reading.checked(await self._triggers.missing(names))
        now_ns = clock.now_ns()
        times = self._triggers.times(trigger, count, now_ns)
        given = body if body is not None else getattr(trigger, "input", None)
        firing = Firing(f"{trigger.id}/trial", codec.encode(given), times[0] if times else 0, now_ns, {"input": given})
        return replies.Trial(
            times=[moment(one) for one in times], meant=envelope.is_meant(trigger, firing) if body is not None else None,
            input=decoded(envelope.input_of(trigger, firing)), fires=_fires_for(trigger, times) if trigger.enabled else "not before it is enabled",
        )  # fmt: skip

    async def fire(self, name: str, body: Any, key: str) -> replies.FiredRun:
        """Fire one now."""
        return _fired(await self._triggers.fire(name, codec.encode(body), key), 0)

    async def history(self, name: str, limit: int) -> replies.Firings:
        """Return the last firings of one."""
        found = await self._triggers.firings.last(name, limit)
        if not found:
            await self._triggers.store.get(name)
        rows = [
            replies.FiringRow(
                at=moment(one.at_ns), what=one.what, due_at=moment(one.due_ns), run=one.run, node=one.node,
                why=one.why, key=one.key,
            )
            for one in found
        ]  # fmt: skip
        return replies.Firings(id=name, firings=rows)

    async def backfill(self, name: str, since: str, until: str, cap: int, *, dry_run: bool) -> replies.Backfilled:
        """Start the runs of times that are over."""
        trigger = (await self._triggers.store.get(name)).trigger
        if not isinstance(trigger, Cron):
            raise Invalid(
                f"{name!r} has no times that could be made up for: it is of the kind {trigger.kind}.",
                code="trigger.no_times", hint="Only cron triggers have; `knotwork trigger fire` fires any of them now.",
            )  # fmt: skip
        now_ns = clock.now_ns()
        from_ns, to_ns = _moment_ns(since, "since"), min(_moment_ns(until, "until") or now_ns, now_ns)
        times, more = due.between(trigger.cron, trigger.timezone, from_ns, to_ns, cap)
        if dry_run:
            _, graph = await self._triggers.flow.definitions.find(trigger.workflow)
            ids = [keyed_run(graph.workflow.name, due.key(name, one)) for one in times]
            there = await anew.existing(self._triggers.connection, ids)
            runs = [
                replies.FiredRun(run=run, new=run not in there, due_at=moment(one))
                for run, one in zip(ids, times, strict=True)
            ]
        else:
            done = await self._triggers.backfill(trigger, times)
            runs = [_fired(one, time_ns) for one, time_ns in zip(done, times, strict=True)]
        return replies.Backfilled(id=name, dry_run=dry_run, more=more, runs=runs)

    async def remove(self, name: str, caller: Caller) -> bool:
        """Forget one."""
        await self._changed_by(name, caller)
        return await self._triggers.remove(name)

    async def later(self, wanted: NewRun, when: str, caller: Caller) -> flow_replies.RunInfo:
        """Keep a trigger that starts one run at a moment, or in so long; returns the run as it will be.

        Wanted again with its key it is the same run, not `new`: its moment stands, and of one that has begun (`running`)
        the id is told. Raises as the start of a run does: `Conflict` (`flow.key_reused`), `Invalid` (`flow.schema`).
        """
        at_ns = _moment_ns(when, "at", past=False)
        value = codec.encode(wanted.input)
        meant = await self._triggers.flow.runs.meant(Wanted(wanted.workflow, value, wanted.key))
        workflow = meant.graph.workflow.name
        run = meant.id if wanted.key else ""
        name = f"once-{run or secrets.token_hex(8)}"
        made = {
            "id": name, "kind": "once", "workflow": wanted.workflow, "at": due.told(at_ns // 1000 * 1000),
            "input": wanted.input, "key": wanted.key, "labels": wanted.labels, "priority": wanted.priority,
            "boundary": wanted.boundary,
        }  # fmt: skip
        try:
            if meant.new:
                trigger, _ = await self._keep(None, made, caller, replace=False)
                assert isinstance(trigger, Once)
                return run_planned.info(trigger, workflow, by=caller_name(caller), new=True)
        except Conflict as error:
            if not run or error.code not in ("trigger.exists", "trigger.changed"):
                raise
            with contextlib.suppress(NotFound):  # it begins this moment
                return self._the_same(await self._triggers.store.get(name), workflow, value)
        return flow_replies.RunInfo(id=run, workflow=workflow, state="running")

    def _the_same(self, known: Known, workflow: str, value: bytes) -> flow_replies.RunInfo:
        """Return the run that is to come; refuses (`Conflict`, `flow.key_reused`) another input than `value`."""
        assert isinstance(known.trigger, Once)
        run = run_planned.info(known.trigger, workflow, by=known.by)
        if codec.canonical(codec.encode(known.trigger.input)) != codec.canonical(value):
            raise Conflict(
                f"The key {known.trigger.key!r} was used for another run, which is to come: {run.id}.",
                code="flow.key_reused", hint=f"Use a new key, or call that one off (`knotwork run cancel {run.id}`).",
                detail={"id": run.id},
            )  # fmt: skip
        return run


def _moment_ns(text: str, what: str, *, past: bool = True) -> int:
    try:
        return task_words.moment_ns(text, past=past)
    except ValueError as error:
        raise Invalid(f"{what}: {text!r} is {error}.", code="trigger.bad_time") from error


def _fired(done: Started, due_ns: int) -> replies.FiredRun:
    return replies.FiredRun(run=done.run, new=done.new, due_at=moment(due_ns), why=done.why)


def _fires(trigger: Definition) -> str:
    match trigger:
        case Cron():
            return f"{trigger.cron} {trigger.timezone}"
        case Once():
            return trigger.at
        case Subject():
            return trigger.subject
        case Plugin():
            return f"[triggers.{trigger.source}]"
        case Files():
            return f"{trigger.folder}/{trigger.pattern}"
        case _:
            return route(trigger)


def _fires_for(trigger: Definition, times: list[int]) -> str:
    """Return when a trigger fires whose `times` do not say it, in words."""
    match trigger:
        case Once() if not times:
            return "at once: its moment is over"
        case Cron() | Once():
            return ""
        case Subject():
            return f"when a message comes on {trigger.subject}"
        case Plugin():
            return f"when its source tells: [triggers.{trigger.source}]"
        case Files():
            return f"when files change: {trigger.folder}/{trigger.pattern}"
        case _:
            return f"when it is requested: {route(trigger)}"


@dataclass(frozen=True, slots=True)
class ServedHook:
    """One trigger that is served (`ops.trigger_ports.Hook`)."""

    triggers: Triggers
    trigger: Served

    @property
    def max_body(self) -> int:
        """Return how many bytes a body may have."""
        return self.trigger.max_body

    async def answer(self, request: HookRequest) -> HookAnswer:
        """Fire, and answer."""
        arrived = Arrived(request.kind, request.method, request.path, request.headers, request.query, request.body)
        found = await self.triggers.arrivals.answer(self.trigger, arrived)
        return HookAnswer(found.status, found.body, found.run, found.error)


class HookDesk:
    """What all projects of this node serve (`ops.trigger_ports.Hooks`); of a path that two have, the first's counts."""

    def __init__(self, rooms: Sequence[Triggers]) -> None:
        """Look in these rooms, one of each project, in the order of the projects."""
        self._rooms = rooms

    def methods(self, kind: str, path: str) -> Mapping[str, ServedHook]:
        """Return what is served under a path, by method."""
        for triggers in self._rooms:
            if found := triggers.arrivals.find(kind, path):
                return {getattr(one, "method", "POST"): ServedHook(triggers, one) for one in found}
        return {}
