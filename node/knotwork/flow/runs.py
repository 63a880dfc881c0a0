"""What may be done with runs? Start, fork, cancel, pause, signal, approve; from any node, whoever looks after them."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, codec, patterns, reading, subjects
from knotwork.flow import again, anew, answers, facts, history, outputs
from knotwork.flow.effects import Ask
from knotwork.flow.looking import Looking, Sight, check_id, read
from knotwork.flow.taking import Taking
from knotwork.sdk.errors import Conflict, Denied, Failed, Invalid, NotFound
from knotwork.work import records

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.flow.answers import Answer
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.facts import Start
    from knotwork.flow.graph import Graph
    from knotwork.work.room import Work

__all__ = ["Begun", "Runs", "Sight", "Wanted", "keyed_run", "new_run"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that somebody wants: of which workflow (name or digest), with what JSON; `key` makes it one however often."""

    workflow: str
    input: bytes = b"null"
    key: str = ""
    by: str = ""
    labels: dict[str, str] | None = None
    priority: int | None = None
    boundary: str = ""
    trigger: str = ""
    traceparent: str = ""
    given: dict[str, facts.StepEnd] | None = None
    """Ends of steps that were reached elsewhere: it takes them over, and does not do these again."""
    circle: str = ""
    """Who alone may see it and take its steps (`trust.scopes.circle`)."""
    asker: records.Asker = records.NOBODY
    """With whose eyes agents are looked for that its steps name: those of whoever starts it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that was started, and how; `new` is false when one with its key was there before."""

    id: str
    new: bool
    start: Start
    graph: Graph


class Runs(Looking):
    """The runs of one project."""

    def __init__(
        self, connection: Connection, work: Work, definitions: Definitions, keeps: Callable[[], history.Keeps]
    ) -> None:
        """Read and append facts over `connection`; `keeps()` says how much of the past is kept."""
        super().__init__(connection, definitions, work.values.blobs, keeps)
        self._work, self._facts = work, work.facts
        self.taking = Taking(connection, self, self._blobs)

    # -- starting ----------------------------------------------------------------------------------------------------

    async def start(self, wanted: Wanted) -> Begun:
        """Start a run durably.

        Raises `NotFound` (`flow.no_workflow`), `Invalid` (`flow.schema`) for an input that does not fit, `Conflict`
        (`flow.key_reused`) for a key that was used for something else, `Unavailable` when the store is full.
        """
        self._work.submitter.check_new("The run was not started.")
        run, start, graph = await self._meant(wanted)
        new = await self._begin(run, start)
        if not new:
            await self._check_same(run, start)
        return Begun(run, new, start, graph)

    async def meant(self, wanted: Wanted) -> Begun:
        """Return the run as it would start, not `new` when one with its key was started; nothing is. Raises as `start` does."""
        run, start, graph = await self._meant(wanted)
        new = not start.key or not await anew.exists(self._connection, run)
        if not new:
            await self._check_same(run, start)
        return Begun(run, new, start, graph)

    async def _meant(self, wanted: Wanted) -> tuple[str, Start, Graph]:
        """Return the id of a run that is wanted, how it would start now, and what it follows."""
        digest, graph = await self._definitions.find(wanted.workflow)
        workflow = graph.workflow
        if workflow.input_schema is not None:
            outputs.must_fit(workflow.input_schema, wanted.input, "The input")
        value, blob = await self._work.values.keep(wanted.input)
        now_ns = clock.now_ns()
        start = facts.Start(
            workflow.name, digest, msgspec.Raw(value), blob, wanted.by, wanted.labels or {},
            wanted.priority or workflow.priority, wanted.boundary, key=wanted.key, trigger=wanted.trigger,
            traceparent=wanted.traceparent, started_ns=now_ns, given=wanted.given or {}, circle=wanted.circle,
            asker=wanted.asker,
        )  # fmt: skip
        return keyed_run(workflow.name, wanted.key) if wanted.key else new_run(now_ns), start, graph

    async def _begin(self, run: str, start: Start) -> bool:
        """Store how a run starts; returns False when one with its key was there before.

        FACTS would take the start of a run again that is over and packed away, so the past is looked at as well: before,
        because whoever looks after runs begins as soon as it is stored, and behind it, because it may be packed meanwhile.
        """
        if start.key and await history.is_kept(self._connection, run):
            return False
        try:
            await self._facts.append(facts.subject(run, "start"), facts.encode(start))
        except Conflict as error:
            if error.code != "bus.exists" or not start.key:
                raise
            return False
        if start.key and await history.is_kept(self._connection, run):
            await reading.purge(self._connection, subjects.FACTS, patterns.facts_of(run), 0)
            return False
        return True

    async def fork(
        self,
        run: str,
        step: str = "",
        *,
        handed: bytes | None = None,
        value: bytes | None = None,
        by: str = "",
        key: str = "",
        asker: records.Asker = records.NOBODY,
    ) -> tuple[str, bool]:
        """Start a new run of the same definition that takes over what was done before `step`, or all that was done.

        `handed` is another input (JSON) of the step, `value` of the run. Raises `NotFound` (`flow.no_run`, `flow.no_step`), `Conflict`
        (`flow.not_begun`, `flow.key_reused`), `TooLarge` when what it takes over does not fit into one message.
        """
        sight = await self.look(run)
        start = sight.start
        now_ns = clock.now_ns()
        kept, blob = (bytes(start.input), start.blob) if value is None else await self._work.values.keep(value)
        own = None
        if handed is not None:
            own_value, own_blob = await self._work.values.keep(handed)
            own = facts.Handed(msgspec.Raw(own_value), own_blob)
        given, left = await self.taking.over(sight, step)
        made_of = msgspec.structs.replace(
            start, input=msgspec.Raw(kept), blob=blob, by=by, key=key, parent=None, started_ns=now_ns, of=run,
            given=given, left=left if value is None else {}, handed=again.handed(sight.run, step, own), traceparent="",
            trigger="", first="", number=0, after=0, tree=None, tree_depth=0, paused=False, heard=0, asker=asker,
        )  # fmt: skip
        made = keyed_run(f"{run}.{step}", key) if key else new_run(now_ns)
        new = await self._begin(made, made_of)
        if not new:
            await self._check_same(made, made_of)
        return made, new

    async def keep(self, run: str, data: bytes, digest: str, *, part: int = 1) -> bool:
        """Put the facts of a run that is over, as JSON, into the past; False when there is one of this name.

        These are the last of them when they are the `part`-th: the parts before were put by. Raises `Invalid`
        (`flow.bad_history`) for what is not a whole run of the definition with this digest.
        """
        found = self._facts_of(run, data)
        if part > 1 and await self._is_there(run):
            return False
        found = [*await history.parts_before(self._connection, run, part), *found]
        known = [fact for stored in found if (fact := read(stored)) is not None]
        start = next((fact.body for fact in known if isinstance(fact.body, facts.Start)), None)
        if start is None or start.digest != digest:
            raise Invalid("This is not a whole run of that definition.", code="flow.bad_history")
        if await self._is_there(run):
            return False
        if not any(fact.what == "ended" for fact in known):
            raise Invalid(
                "It had not ended when it was written.",
                code="flow.bad_history",
                hint="Export it again where it ran, once it is over.",
            )
        await history.keep(self._connection, run, found, parts=part > 1)
        return True

    async def put_by(self, run: str, data: bytes, part: int) -> bool:
        """Keep a part of a run until its last one is kept; False when there is a run of this name.

        Raises `Invalid` (`flow.bad_history`) for what is not of that run.
        """
        found = self._facts_of(run, data)
        if await self._is_there(run):
            return False
        await history.put_by(self._connection, run, part, found)
        return True

    def _facts_of(self, run: str, data: bytes) -> list[Stored]:
        found = history.unpacked(data)
        place = facts.subject(check_id(run))
        if not found or not all(stored.subject.startswith(f"{place}.") for stored in found):
            raise Invalid("This is not a whole run of that definition.", code="flow.bad_history")
        return found

    async def _is_there(self, run: str) -> bool:
        try:
            await self._finish(run)
        except NotFound:
            return False
        return True

    async def _check_same(self, run: str, start: Start) -> None:
        place = facts.subject(run, "start")
        stored = await reading.last(self._connection, subjects.FACTS, place)
        if stored is None:  # it is over, and packed away
            kept = await history.kept_facts(self._connection, run)
            stored = next((one for one in kept if one.subject == place), None)
        if stored is None:
            return
        before = msgspec.json.decode(stored.data, type=facts.Start)
        if _given(before) != _given(start):
            raise Conflict(
                f"The key {start.key!r} was used for another run: {run}.", code="flow.key_reused",
                hint="Use a new key, or start exactly the same.", detail={"id": run},
            )  # fmt: skip

    # -- wishes ------------------------------------------------------------------------------------------------------

    async def cancel(self, run: str, *, by: str = "", why: str = "") -> None:
        """Have a run stopped, and everything that it started; raises `NotFound`, `Conflict` (`flow.over`)."""
        run = await self._must_live(run)
        await anew.deliver(self._connection, self._facts, run, ("cancel",), facts.encode(facts.Wish(by, why)))

    async def hold(self, run: str, *, by: str = "", resume: bool = False) -> None:
        """Begin no new steps of a run, or begin them again."""
        run = await self._must_live(run)
        place = ("resume" if resume else "pause", secrets.token_hex(6))
        await anew.deliver(self._connection, self._facts, run, place, facts.encode(facts.Wish(by)))

    async def signal(self, run: str, name: str, payload: bytes, *, by: str = "", key: str = "") -> bool:
        """Send a signal to a run, or to the one that goes on for it; False when one with this key was sent before.

        A key holds for the whole chain, as far back as `anew.HEARD_IN` runs.
        """
        signal = facts.Signal(msgspec.Raw(payload), by)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16] if key else secrets.token_hex(8)
        place = ("signal", subjects.token(name, "signal"), digest)
        try:
            living = await self._must_live(run)
        except Conflict:
            last = await self.latest(run)
            if key and await anew.was_sent(self._connection, last, place):  # its acknowledgement was lost
                return False
            raise
        if key and await anew.was_sent(self._connection, living, place):
            await anew.catch_up(self._connection, self._facts, living, place)
            return False
        await anew.catch_up(self._connection, self._facts, living)
        return await anew.deliver(self._connection, self._facts, living, place, facts.encode(signal))

    async def answer(self, run: str, step: str, *, approve: bool, by: str, comment: str = "") -> None:
        """Approve or reject; recording the answer is what makes it count, so it counts once.

        Raises what `asked` raises, `Conflict` (`flow.answered`), which names the answer that stands, for a later one, and
        `NotFound` (`flow.not_asked`) for one that was recorded behind what ended the question.
        """
        await self.asked(run, step, by)
        now_ns = clock.now_ns()
        if approve:
            output = outputs.encoded({"approved": True, "by": by, "comment": comment})
            outcome = records.Outcome("completed", facts.NULL, msgspec.Raw(output), ended_ns=now_ns)
        else:
            told = f"{by or 'Somebody'} rejected it{f': {comment}' if comment else '.'}"
            error = Failed(told, code="flow.rejected", detail={"by": by, "comment": comment})
            outcome = records.Outcome("failed", facts.NULL, error=error.to_wire(), ended_ns=now_ns)
        try:
            await self._facts.append(records.outcome_subject(run, step, 0, 1), records.encode(outcome))
        except Conflict as error:
            stands = await self.answered(await self.look(run), step)
            raise (error if stands is None else stands.settled()) from error
        if await self.answered(await self.look(run), step) is None:
            told = f"No step {step!r} of {run} waits for an answer any more: this one came too late."
            raise NotFound(told, code="flow.not_asked", hint="See `knotwork run show`.")

    async def answered(self, sight: Sight, step: str) -> Answer | None:
        """Return the answer that a step was given while it asked, None when there is none, or what ended it came before."""
        place = records.outcome_subject(sight.id, step, 0, 1)
        count = next((number for number, stored in enumerate(sight.facts) if stored.subject == place), 0)
        if not count:
            return None
        before = await self.look(sight.id, up_to=count)
        return answers.standing(sight.facts[count]) if isinstance(before.run.open.get(f"ask.{step}"), Ask) else None

    async def asked(self, run: str, step: str, by: str) -> Ask:
        """Return what a step asks.

        Raises `NotFound` (`flow.no_run`, `flow.not_asked`), `Denied` (`flow.not_approver`), `Conflict` (`flow.answered`).
        """
        sight = await self.look(run)
        effect = sight.run.open.get(f"ask.{step}")
        if not isinstance(effect, Ask):
            hint = await self._where_it_is_asked(sight)
            if (stands := await self.answered(sight, step)) is not None:
                raise stands.settled(hint)
            told = f"No step {step!r} of {run} waits for an answer."
            raise NotFound(told, code="flow.not_asked", hint=hint or "See `knotwork run show`.")
        assert effect.spec.kind == "approval"
        approvers = effect.spec.approvers
        if approvers and by not in approvers:
            raise Denied(
                f"{by!r} may not decide this.", code="flow.not_approver", detail={"approvers": list(approvers)}
            )
        return effect

    async def _where_it_is_asked(self, sight: Sight) -> str:
        """Return what to do for whoever answers a run that has ended: an answer is never taken for another question."""
        if sight.finish is None:
            return ""
        if not sight.finish.next:
            return "It has ended. If it was retried, answer the run that this made (`knotwork run list`)."
        return f"It went on as {await self.latest(sight.id)}: name that to answer what is asked there."

    async def _must_live(self, run: str) -> str:
        """Return a run that has not ended, or the one that goes on for it; raises `Conflict` (`flow.over`)."""
        asked, finish = run, await self._finish(check_id(run))
        while finish is not None and finish.next:  # the last may have gone on while we looked
            run = await self.latest(run)
            finish = await self._finish(run)
        if finish is None:
            return run
        told = f"{run}, which went on for {asked}, has ended." if asked != run else f"{run} has ended."
        raise Conflict(
            told, code="flow.over", hint="See `knotwork run show`.", detail={"id": run, "state": finish.state}
        )


def new_run(now_ns: int) -> str:
    """Return an id that sorts by time: `w`, the milliseconds since 1970 in hex, and 40 random bits."""
    return f"{records.WORKFLOW}{now_ns // 1_000_000:012x}{secrets.token_hex(5)}"


def keyed_run(workflow: str, key: str) -> str:
    """Return the id of the run of a workflow that has this key."""
    return facts.derived_run(f"{workflow}\0{key}")


def _given(start: Start) -> tuple[str, dict[str, tuple[bytes, str]]]:
    """Return what a run is started with, as it is compared with another start."""
    inputs = {"": facts.Handed(start.input, start.blob), **start.handed}
    return start.workflow, {name: (codec.canonical(bytes(one.input)), one.blob) for name, one in inputs.items()}
