"""May a task that came out of its queue begin? Not when it has ended, is too late, kills its workers, or is held elsewhere.

Everybody who takes from TASKS sends what arrives through here, the node's own agents and those that came in alike. A
task that is certainly fresh begins at once; any other is first looked up in FACTS, because acknowledgements do not
survive a crash of the server, and in LEASES, because an agent that came in may still hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from knotwork.bus import clock, digits, pulls, reading, subjects
from knotwork.bus.background import begin_in, heard
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound, TimedOut
from knotwork.work import fold, keyed, proof, records, settle, still
from knotwork.work.gate import Gate
from knotwork.work.records import Outcome, Released, Started, Task

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.pulls import Delivery
    from knotwork.bus.reading import Stored
    from knotwork.work.recording import Recorder
    from knotwork.work.taking import Taking

log = logging.getLogger(__name__)
Key = tuple[str, str, int, int]
HELD_MAX_S = 10
"""How long a task that may not begin yet is left alone before it is looked at again, at most."""
BACK_S, BACK_SURELY_S = 3.0, 15.0
"""So long after NATS came back its nodes are waited for; and so long before one of them is said to have been killed by a task."""
KNOWN_MAX = 10_000
UNCALLED_MAX = 3
"""So often an attempt may come before what calls for it is found."""


class Ended(Protocol):
    """Whether an attempt has ended, for those that FACTS has forgotten."""

    async def __call__(self, task: Task, /) -> bool:
        """Return whether the attempt has an outcome that is kept elsewhere."""


class Adopts(Protocol):
    """Whether an agent that came in holds an attempt which was delivered again."""

    async def __call__(self, task: Task, delivery: Delivery, /) -> bool:
        """Return whether it does; the delivery is kept for it then."""


class Beginner(Protocol):
    """Who begins what may begin."""

    def begin(self, task: Task, delivery: Delivery, taker: str, left_s: float | None) -> None:
        """Begin an attempt, which may take `left_s` seconds."""

    def holds(self, task: Task, delivery: Delivery) -> bool:
        """Return whether the attempt runs here already; the delivery takes the place of the one before."""

    def name(self, taker: str) -> str:
        """Return the agent that takes, as it goes on record."""

    @property
    def claims(self) -> bool:
        """Return whether what begins is held by claims in LEASES."""


class Intake:
    """What is done with deliveries before they begin, for one taker of one project."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        recorder: Recorder,
        facts: GroupCommit,
        *,
        taking: Taking,
        beginner: Beginner,
        node: str,
        has_ended: Ended,
        adopts: Adopts,
    ) -> None:
        """Hand what may begin to `beginner`; what must be looked up first is, in tasks of `group`."""
        self._group, self._connection = group, connection
        self._recorder, self._facts, self._taking, self._beginner = recorder, facts, taking, beginner
        self._node, self._has_ended, self._adopts = node, has_ended, adopts
        self.gate = Gate()
        """Says which tasks may not begin yet; set by the room."""
        self._looking: set[Key] = set()
        self._held: set[Key] = set()
        """What was handed back because it may not begin yet, as long as that is so."""
        self._fresh_after, self._since_s = 2**62, 0.0

    async def reconnected(self) -> None:
        """Find out, after a (re)connect, what is certainly fresh from now on."""
        self._fresh_after, self._since_s = 2**62, time.monotonic()
        self._taking.forget()
        self._fresh_after = await reading.last_seq(self._connection, subjects.TASKS)

    def arrived(self, delivery: Delivery, taker: str) -> None:
        """Take a delivery that `taker` has a place for."""
        try:
            task = records.decode_task(delivery.data)
            if task.subject != delivery.subject:
                raise Invalid("It does not stand where it says.", code="work.bad_record")
        except KnotworkError as error:
            log.error("a message on %s is no task and is dropped: %s", delivery.subject, error)  # noqa: TRY400
            self._taking.answer(delivery.reply, pulls.TERM)
            return
        fresh = delivery.count == 1 and delivery.seq > self._fresh_after
        if fresh and fold.place_of(task) == fold.FIRST and not task.key and not self.gate.concerns(task):
            self._begin(task, delivery, taker)
        else:
            self._taking.hold(taker, 1)
            self.spawn(self._look_up(task, delivery, taker, fresh=fresh))

    @property
    def looking(self) -> bool:
        """Return whether something is looked up that may begin here."""
        return bool(self._looking)

    def spawn(self, work: Coroutine[Any, Any, None], failed: Callable[[], None] | None = None) -> None:
        """Run `work` beside, `failed()` if a bug of ours ends it; when all is closing it is left: what is not recorded comes again."""
        begin_in(self._group, work, failed)

    async def outcome_of(self, task: Task) -> Outcome | None:
        """Return the outcome of an attempt, None when there is none in FACTS."""
        return await outcome_at(self._connection, task.outcome_subject)

    async def release(
        self, task: Task, delivery: int, reply: str, agent: str, why: str, *, code: str = "", after_s: int = 0
    ) -> None:
        """Give an attempt back unfinished, on record: somebody else takes it, after `after_s` seconds, and it is no crash."""
        fact = Released(self._node, agent, clock.now_ns(), why[:256], code)
        try:
            await self._facts.append(records.trace_subject(task, "released", delivery), records.encode(fact))
        except KnotworkError as failure:
            log.debug("handing %s back is not on record: %s", task.run, failure)
        self._taking.answer(reply, pulls.later(after_s) if after_s else pulls.NAK)

    def started(self, task: Task, agent: str, started_ns: int, delivery: int) -> None:
        """Have it go on record that an attempt was begun; nobody waits for it."""
        fact = Started(self._node, agent, started_ns, delivery, self._beginner.claims)
        try:
            stored = self._facts.put(records.trace_subject(task, "started", delivery), records.encode(fact))
        except KnotworkError:
            return
        stored.add_done_callback(heard)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _look_up(self, task: Task, delivery: Delivery, taker: str, *, fresh: bool) -> None:
        """Begin a task that may have ended already, or may have killed its workers, only when neither is so."""
        key = key_of(task)
        try:
            if not self._beginner.holds(task, delivery) and key not in self._looking:
                self._looking.add(key)
                try:
                    await self._begin_unless_over(task, delivery, taker, fresh=fresh)
                finally:
                    self._looking.discard(key)
        except KnotworkError as error:
            log.debug("%s could not be looked up, it comes again: %s", task.run, error)
        finally:
            self._taking.hold(taker, -1)
            self._taking.pump()

    async def _begin_unless_over(self, task: Task, delivery: Delivery, taker: str, *, fresh: bool) -> None:
        if not await proof.proved(self._connection, task, exactly=True):
            await self._pass_over(task, delivery)
        elif fresh and (not _is_keyed(task) or await keyed.is_new(self._connection, task.run)):
            if not await self._held_back(task, delivery):
                self._begin(task, delivery, taker)
        elif await self._is_over(task):
            self._taking.answer(delivery.reply, pulls.ACK)
        elif await self._adopts(task, delivery):
            log.debug("%s came again and is held by an agent that came in", task.run)
        elif await self._is_worked_on(task, delivery):
            log.debug("%s came again and may be worked on still", task.run)
        elif await self._held_back(task, delivery):
            log.debug("%s may not begin yet", task.run)
        elif (crashed := await self._crashes(task, delivery, taker)) is not None:
            self._poison(task, delivery, *crashed)
        else:
            self._begin(task, delivery, taker)

    async def _is_worked_on(self, task: Task, delivery: Delivery) -> bool:
        """Leave an attempt to a node that has it still; and for a while to one that is not back yet after NATS was away.

        The longer for one that would be said to have killed its workers.
        """
        if delivery.count == 1:
            return False
        gone = await self._gone(task, delivery)
        who = {one.node for one in gone if one is not None and not one.claimed}
        word = await still.ask(self._connection, sorted(who - {self._node}), task, delivery)
        verdict = len(gone) + settle.killed(task) >= task.retry.max_crashes
        if word == "is away" and time.monotonic() - self._since_s < (BACK_SURELY_S if verdict else BACK_S):
            self._taking.answer(delivery.reply, pulls.later(1))
            return True
        return word == "has it"

    async def _held_back(self, task: Task, delivery: Delivery) -> bool:
        """Hand a task back that may not begin yet, to be looked at again; the longer it waits, the later."""
        key = key_of(task)
        if not await self.gate.holds(task):
            self._held.discard(key)
            return False
        after_s = min(delivery.count, HELD_MAX_S)
        if key in self._held:
            self._taking.answer(delivery.reply, pulls.later(after_s))
        else:  # once on record: else the first delivery would count as begun, and whoever vanished as still at it
            if len(self._held) >= KNOWN_MAX:
                self._held.clear()
            self._held.add(key)
            why = "what it is part of is paused"
            await self.release(task, delivery.count, delivery.reply, "", why, after_s=after_s)
        return True

    async def _pass_over(self, task: Task, delivery: Delivery) -> None:
        """Remove an attempt that none before it calls for; when it only came too early, the right one follows.

        While the end of the one before is not on record it is left alone for a while: a copy of FACTS may be behind.
        """
        found = await proof.before(self._connection, task, fold.place_of(task))
        if found is None and delivery.count < UNCALLED_MAX:
            return  # it is delivered again
        proof.of(self._connection).pass_over(delivery.subject)
        with contextlib.suppress(NotFound):
            await reading.delete(self._connection, subjects.TASKS, delivery.seq)
        self._taking.answer(delivery.reply, pulls.TERM)
        if found is not None and found[1].state in ("waiting", "continued"):
            ended = records.decode_task(bytes(found[1].task))
            if await proof.proved(self._connection, ended):
                await self._recorder.carry_out(ended, found[1])

    def _begin(self, task: Task, delivery: Delivery, taker: str) -> None:
        left_s = _left_s(task)
        now_ns = clock.now_ns()
        if left_s is not None and left_s <= 0:
            error = TimedOut("Its deadline passed before an agent could begin it.", code="work.deadline")
            self._end(task, delivery, "timed-out", error, self._beginner.name(taker))
        elif 0 < task.start_by_ns <= now_ns and delivery.count == 1:
            outcome = settle.unbegun(task, self._node, now_ns, random.random())  # noqa: S311  (jitter)
            self._recorder.record(task, outcome, lambda: self._taking.answer(delivery.reply, pulls.ACK))
        else:
            self._beginner.begin(task, delivery, taker, left_s)

    async def _is_over(self, task: Task) -> bool:
        """Return whether an attempt has its outcome; what that calls for is done again."""
        outcome = await self.outcome_of(task)
        if outcome is None:
            if _is_keyed(task) and await keyed.kept(self._connection, task.run) is not None:
                return True
            return await self._has_ended(task)
        await self._recorder.carry_out(task, outcome)
        return True

    async def _crashes(self, task: Task, delivery: Delivery, taker: str) -> tuple[int, list[Started | None]] | None:
        """Return how many workers a task has killed when those are too many, and those of this attempt, as far as known.

        Else return None, and it is on record that it begins.
        """
        if delivery.count == 1:
            return None
        gone = await self._gone(task, delivery)  # anew: some may have handed it back while they were asked
        count = len(gone) + settle.killed(task)
        if count >= task.retry.max_crashes:
            return count, gone
        name, claims = self._beginner.name(taker), self._beginner.claims
        fact = Started(self._node, name, clock.now_ns(), delivery.count, claims)
        with contextlib.suppress(Conflict):  # a server that crashed counts deliveries anew
            await self._facts.append(records.trace_subject(task, "started", delivery.count), records.encode(fact))
        return None

    async def _gone(self, task: Task, delivery: Delivery) -> list[Started | None]:
        """Return who began each delivery of an attempt that counts as a crash, None for whoever is not known."""
        begun, released = await self._traces(task, "started"), await self._traces(task, "released")
        crashed = settle.crashes(delivery.count, frozenset(begun), frozenset(released))
        return [_begun(begun[number]) if number in begun else None for number in crashed]

    async def _traces(self, task: Task, what: str) -> dict[int, Stored]:
        """Return what is on record about deliveries of an attempt, by their number."""
        found = await reading.each_last(self._connection, subjects.FACTS, [f"{records.trace_subject(task, what)}.*"])
        numbered = ((digits.read(stored.subject.rpartition(".")[2]), stored) for stored in found)
        return {number: stored for number, stored in numbered if number is not None}

    def _poison(self, task: Task, delivery: Delivery, crashed: int, ended: Sequence[Started | None]) -> None:
        """End a task that kills its workers; those of this attempt go with it as attempts that crashed."""
        error = settle.poison(crashed)
        past = settle.crashed(task, ended, clock.now_ns())
        self._end(msgspec.structs.replace(task, past=(*task.past, *past)), delivery, "dead", error, "")

    def _end(self, task: Task, delivery: Delivery, state: records.Ended, error: KnotworkError, agent: str) -> None:
        """Record the end of an attempt that does not begin."""
        outcome = Outcome(
            state, records.raw(task), error=error.to_wire(), node=self._node, agent=agent, ended_ns=clock.now_ns(),
            delivery=delivery.count,
        )  # fmt: skip
        self._recorder.record(task, outcome, lambda: self._taking.answer(delivery.reply, pulls.ACK))


async def outcome_at(connection: Connection, subject: str) -> Outcome | None:
    """Return the outcome on a subject of FACTS, None when there is none; garbage is none: the recorder removes it."""
    stored = await reading.last(connection, subjects.FACTS, subject)
    if stored is None:
        return None
    try:
        return records.decode_outcome(stored.data)
    except Invalid:
        return None


def key_of(task: Task) -> Key:
    """Return what an attempt is known by."""
    return task.run, task.step, task.iteration, task.number


def _begun(stored: Stored) -> Started | None:
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(stored.data, type=Started)
    return None


def _is_keyed(task: Task) -> bool:
    """Return whether it is the first attempt of a task with a key: it may have been stored twice (`keyed`)."""
    return bool(task.key) and fold.place_of(task) == fold.FIRST


def _left_s(task: Task) -> float | None:
    """Return how long an attempt may take from now on, in seconds; None: as long as it likes."""
    left = [task.timeout_s] if task.timeout_s else []
    if task.deadline_ns:
        left.append((task.deadline_ns - clock.now_ns()) / 1e9)
    return min(left) if left else None
