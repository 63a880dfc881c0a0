"""What may be done with runs? Start, look, wait, cancel, pause, signal, approve; from any node, whoever looks after them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import publisher, reading, subjects
from knotwork.flow import again, anew, answers, decide, facts, history, outputs
from knotwork.flow.effects import Ask
from knotwork.flow.run import Run, begin
from knotwork.sdk.errors import Conflict, Denied, Failed, Invalid, NotFound, TimedOut, Unavailable, Unreachable
from knotwork.work import records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.bus.wire import Message
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.facts import Fact, Finish, Start
    from knotwork.work.room import Work

log = logging.getLogger(__name__)
AGAIN_S = 0.5


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


@dataclass(frozen=True, slots=True)
class Sight:
    """A run as it is: its start, what its facts add up to, and its end when it has one."""

    id: str
    start: Start
    run: Run
    finish: Finish | None
    facts: list[Stored]


class Runs:
    """The runs of one project."""

    def __init__(self, connection: Connection, work: Work, definitions: Definitions) -> None:
        """Read and append facts over `connection`."""
        self._connection, self._work, self._facts = connection, work, work.facts
        self._definitions = definitions
        self._waiting: dict[str, list[asyncio.Future[Finish]]] = {}

    async def open(self) -> None:
        """Listen for ends."""
        await self._connection.listen("told.*.*.ended", self._told)  # tasks have no such fact

    # -- starting ----------------------------------------------------------------------------------------------------

    async def start(self, wanted: Wanted) -> tuple[str, bool]:
        """Start a run durably; returns its id, and False when one with its key was there before.

        Raises `NotFound` (`flow.no_workflow`), `Invalid` (`flow.schema`) for an input that does not fit, `Conflict`
        (`flow.key_reused`) for a key that was used for something else, `Unavailable` when the store is full.
        """
        self._work.submitter.check_new("The run was not started.")
        digest, graph = await self._definitions.find(wanted.workflow)
        workflow = graph.workflow
        if workflow.input_schema is not None:
            outputs.must_fit(workflow.input_schema, wanted.input, "The input")
        value, blob = await self._work.values.keep(wanted.input)
        now_ns = time.time_ns()
        start = facts.Start(
            workflow.name, digest, msgspec.Raw(value), blob, wanted.by, wanted.labels or {},
            wanted.priority or workflow.priority, wanted.boundary, key=wanted.key, trigger=wanted.trigger,
            traceparent=wanted.traceparent, started_ns=now_ns, given=wanted.given or {},
        )  # fmt: skip
        run = keyed_run(workflow.name, wanted.key) if wanted.key else new_run(now_ns)
        if wanted.key and await history.is_kept(
            self._connection, run
        ):  # before: whoever looks after runs begins as soon as it is stored
            return run, False
        try:
            await self._facts.append(facts.subject(run, "start"), facts.encode(start))
        except Conflict as error:
            if error.code != "bus.exists" or not wanted.key:
                raise
            await self._check_same(run, start)
            return run, False
        if wanted.key and await history.is_kept(self._connection, run):
            await reading.purge(self._connection, subjects.FACTS, f"{facts.subject(run)}.>", 0)
            return run, False
        return run, True

    async def fork(
        self,
        run: str,
        step: str = "",
        *,
        handed: bytes | None = None,
        value: bytes | None = None,
        by: str = "",
        key: str = "",
    ) -> tuple[str, bool]:
        """Start a new run of the same definition that takes over what was done before `step`, or all that was done.

        `handed` is another input (JSON) of the step, `value` of the run. Raises `NotFound` (`flow.no_run`, `flow.no_step`), `Conflict`
        (`flow.not_begun`), `TooLarge` when what it takes over does not fit into one message.
        """
        sight = await self.look(run)
        start = sight.start
        now_ns = time.time_ns()
        kept, blob = (bytes(start.input), start.blob) if value is None else await self._work.values.keep(value)
        own = None
        if handed is not None:
            own_value, own_blob = await self._work.values.keep(handed)
            own = facts.Handed(msgspec.Raw(own_value), own_blob)
        made_of = msgspec.structs.replace(
            start, input=msgspec.Raw(kept), blob=blob, by=by, key=key, parent=None, started_ns=now_ns, of=run,
            given=again.given(sight.run, step), handed=again.handed(sight.run, step, own), traceparent="", trigger="", first="", number=0, after=0, tree=None, tree_depth=0,
        )  # fmt: skip
        made = keyed_run(f"{run}.{step}", key) if key else new_run(now_ns)
        try:
            await self._facts.append(facts.subject(made, "start"), facts.encode(made_of))
        except Conflict as error:
            if error.code != "bus.exists" or not key:
                raise
            return made, False
        return made, True

    async def keep(self, run: str, data: bytes, digest: str) -> bool:
        """Put the facts of a run that is over, as JSON, into the past; False when there is one of this name.

        Raises `Invalid` (`flow.bad_history`) for what is not a whole run of the definition with this digest.
        """
        found = history.unpacked(data)
        place = facts.subject(_check_id(run))
        ours = all(stored.subject.startswith(f"{place}.") for stored in found)
        read = [fact for stored in found if (fact := _read(stored)) is not None]
        start = read[0].body if read else None
        if not (ours and isinstance(start, facts.Start) and start.digest == digest and read[-1].what == "ended"):
            raise Invalid("This is not a whole run of that definition.", code="flow.bad_history")
        try:
            await self._finish(run)
        except NotFound:
            await publisher.publish(self._connection, subjects.history(run), history.packed(found))
            return True
        return False

    async def replay(self, run: str) -> again.Difference | None:
        """Return where the recorded history of a run and today's rules part, None when they agree."""
        sight = await self.look(run)
        graph = await self._definitions.graph(sight.start.digest)
        read = [fact for stored in sight.facts if (fact := _read(stored)) is not None]
        return again.difference(run, graph, read)

    async def _check_same(self, run: str, start: Start) -> None:
        stored = await reading.last(self._connection, subjects.FACTS, facts.subject(run, "start"))
        if stored is None:
            return
        before = msgspec.json.decode(stored.data, type=facts.Start)
        if (bytes(before.input), before.blob, before.workflow) != (bytes(start.input), start.blob, start.workflow):
            raise Conflict(
                f"The key {start.key!r} was used for another run: {run}.", code="flow.key_reused",
                hint="Use a new key, or start exactly the same.", detail={"id": run},
            )  # fmt: skip

    # -- looking -----------------------------------------------------------------------------------------------------

    async def look(self, run: str, *, up_to: int | None = None) -> Sight:
        """Return a run as it is, or as it was after its first `up_to` facts; raises `NotFound` (`flow.no_run`)."""
        _check_id(run)
        found = await history.all_facts(self._connection, run)
        if not any(stored.subject.endswith(".start") for stored in found):
            found = await history.kept_facts(self._connection, run)
        read = [fact for stored in found[:up_to] if (fact := _read(stored)) is not None]
        start = next((fact.body for fact in read if isinstance(fact.body, facts.Start)), None)
        if start is None:
            raise NotFound(f"There is no run {run!r}.", code="flow.no_run", hint="See `knotwork run list`.")
        graph = await self._definitions.graph(start.digest)
        seen = folded(run, graph, read)
        finish = next((fact.body for fact in read if isinstance(fact.body, facts.Finish)), None)
        return Sight(run, start, seen, finish, found)

    async def ended(self, run: str) -> Finish:
        """Return how a run ended, or the last that goes on for it, now or then; bound it with `asyncio.timeout`."""
        finish = await self._ended(_check_id(run))
        while finish.next:
            finish = await self._ended(await anew.latest(self._connection, finish.next))
        return finish

    async def latest(self, run: str) -> str:
        """Return the last run that goes on for one; itself when there is none."""
        return await anew.latest(self._connection, _check_id(run))

    async def _ended(self, run: str) -> Finish:
        future: asyncio.Future[Finish] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, []).append(future)
        try:
            while not future.done():
                try:
                    found = await self._finish(run)
                except (Unreachable, Unavailable, TimedOut) as error:
                    log.debug("whether %s has ended is looked up in a moment: %s", run, error)
                    await asyncio.wait([future], timeout=AGAIN_S)
                else:
                    return found if found is not None else await future
            return future.result()
        finally:
            waiting = self._waiting[run]
            waiting.remove(future)
            if not waiting:
                del self._waiting[run]

    async def over(self, run: str) -> bool:
        """Return whether a run has ended, and all that go on for it; raises `NotFound` (`flow.no_run`)."""
        finish = await self._finish(_check_id(run))
        if finish is not None and finish.next:
            finish = await self._finish(await self.latest(run))
        return finish is not None

    async def _finish(self, run: str) -> Finish | None:
        places = [facts.subject(run, what) for what in ("ended", "start")]
        found = {one.subject: one.data for one in await reading.each_last(self._connection, subjects.FACTS, places)}
        if places[0] in found:
            return msgspec.json.decode(found[places[0]], type=facts.Finish)
        if places[1] in found:
            return None
        for kept in await history.kept_facts(self._connection, run):
            fact = _read(kept)
            if fact is not None and isinstance(fact.body, facts.Finish):
                return fact.body
        raise NotFound(f"There is no run {run!r}.", code="flow.no_run", hint="See `knotwork run list`.")

    def _told(self, message: Message) -> None:
        run = message.subject.split(".", 3)[2]
        if run not in self._waiting:
            return
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            finish = msgspec.json.decode(message.data, type=facts.Finish)
            for future in self._waiting[run]:
                if not future.done():
                    future.set_result(finish)

    async def reconnected(self) -> None:
        """Look up what is awaited: what ended meanwhile was not told."""
        for run, futures in list(self._waiting.items()):
            finish = await self._finish(run)
            for future in futures if finish is not None else ():
                if not future.done() and finish is not None:
                    future.set_result(finish)

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
        """Send a signal to a run, or to the one that goes on for it; False when one with this key was sent before."""
        signal = facts.Signal(msgspec.Raw(payload), by)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16] if key else secrets.token_hex(8)
        place = ("signal", subjects.token(name, "signal"), digest)
        try:
            run = await self._must_live(run)
        except Conflict:
            if key and await self._was_sent(run, place):  # said again, because its acknowledgement was lost
                return False
            raise
        return await anew.deliver(self._connection, self._facts, run, place, facts.encode(signal))

    async def _was_sent(self, run: str, place: tuple[str, ...]) -> bool:
        """Return whether a run that is over, or one that went on for it, was sent this."""
        while run:
            sight = await self.look(run)
            if any(stored.subject == facts.subject(run, *place) for stored in sight.facts):
                return True
            run = sight.finish.next if sight.finish is not None else ""
        return False

    async def answer(self, run: str, step: str, *, approve: bool, by: str, comment: str = "") -> None:
        """Approve or reject; recording the answer is what makes it count, so it counts once.

        Raises what `asked` raises, and `Conflict` (`flow.answered`), which names the answer that stands, for a later one.
        """
        await self.asked(run, step, by)
        now_ns = time.time_ns()
        if approve:
            output = outputs.encoded({"approved": True, "by": by, "comment": comment})
            outcome = records.Outcome("completed", NOTHING, msgspec.Raw(output), ended_ns=now_ns)
        else:
            told = f"{by or 'Somebody'} rejected it{f': {comment}' if comment else '.'}"
            error = Failed(told, code="flow.rejected", detail={"by": by, "comment": comment})
            outcome = records.Outcome("failed", NOTHING, error=error.to_wire(), ended_ns=now_ns)
        try:
            await self._facts.append(records.outcome_subject(run, step, 0, 1), records.encode(outcome))
        except Conflict as error:
            stands = await answers.standing(self._connection, (await self.look(run)).run, [], step)
            raise (error if stands is None else stands.settled()) from error

    async def asked(self, run: str, step: str, by: str) -> Ask:
        """Return what a step asks.

        Raises `NotFound` (`flow.no_run`, `flow.not_asked`), `Denied` (`flow.not_approver`), `Conflict` (`flow.answered`).
        """
        sight = await self.look(run)
        effect = sight.run.open.get(f"ask.{step}")
        if not isinstance(effect, Ask):
            if (stands := await answers.standing(self._connection, sight.run, sight.facts, step)) is not None:
                raise stands.settled()
            told = f"No step {step!r} of {run} waits for an answer."
            raise NotFound(told, code="flow.not_asked", hint="See `knotwork run show`.")
        assert effect.spec.kind == "approval"
        approvers = effect.spec.approvers
        if approvers and by not in approvers:
            raise Denied(
                f"{by!r} may not decide this.", code="flow.not_approver", detail={"approvers": list(approvers)}
            )
        return effect

    async def _must_live(self, run: str) -> str:
        """Return a run that has not ended, or the one that goes on for it; raises `Conflict` (`flow.over`)."""
        finish = await self._finish(_check_id(run))
        if finish is not None and finish.next:
            run = await self.latest(run)
            finish = await self._finish(run)
        if finish is None:
            return run
        raise Conflict(f"{run} has ended.", code="flow.over", hint="See `knotwork run show`.")


NOTHING = msgspec.Raw(b"null")


def folded(run: str, graph: Any, read: list[Fact]) -> Run:
    """Return what the facts of a run add up to (pure)."""
    made: Run | None = None
    early: list[Fact] = []
    for fact in read:
        if made is None and not isinstance(fact.body, facts.Start):
            early.append(fact)
        elif made is None:
            assert isinstance(fact.body, facts.Start)
            made = begin(run, graph, fact.body, fact.at_ns)
            decide.started(made)
            for one in early:
                decide.advance(made, one)
        else:
            decide.advance(made, fact)
    assert made is not None
    return made


def _read(stored: Stored) -> Fact | None:
    try:
        return facts.read_stored(stored)
    except (Invalid, facts.Unknown):
        return None


def _check_id(run: str) -> str:
    if not facts.is_run(run):
        raise Invalid(f"{run[:80]!r} is not the id of a run.", code="flow.bad_id", hint="See `knotwork run list`.")
    return run


def new_run(now_ns: int) -> str:
    """Return an id that sorts by time: `w`, the milliseconds since 1970 in hex, and 40 random bits."""
    return f"{records.WORKFLOW}{now_ns // 1_000_000:012x}{secrets.token_hex(5)}"


def keyed_run(workflow: str, key: str) -> str:
    """Return the id of the run of a workflow that has this key."""
    return facts.derived_run(f"{workflow}\0{key}")
