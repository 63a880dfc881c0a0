"""How do agents that are no plugins do durable work? They claim tasks, say that they live, and say how each one ended.

A claim is a lease: whoever shows its token (`tickets`) while the lease stands (`leases`) speaks for the task, to any
node of the project. How it ends is recorded like the end of a hosted attempt, by the same `Recorder`, so the same holds:
exactly one outcome stands, whoever comes late is refused, and saying the same twice does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from knotwork.bus import clock, codec, frames, pulls, reading, subjects
from knotwork.bus.away import leaves
from knotwork.config import secrets
from knotwork.sdk.errors import Conflict, Failed, Invalid, KnotworkError, Unavailable
from knotwork.work import leases, records, settle, tickets
from knotwork.work.checkpoints import Checkpoints
from knotwork.work.keeping import Keeper
from knotwork.work.overdue import Overdue, late
from knotwork.work.polls import Given, Polls
from knotwork.work.records import Outcome, Task
from knotwork.work.standing import Standing, ended, is_said_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Kind
    from knotwork.mesh.records import AgentRecord
    from knotwork.work.intake import Ended
    from knotwork.work.leases import Claim, Over
    from knotwork.work.polls import Look
    from knotwork.work.queues import Depth, Patience
    from knotwork.work.recording import Recorder
    from knotwork.work.taking import Accepts
    from knotwork.work.tickets import Seal, Ticket
    from knotwork.work.values import Values

RECORD_S = 20.0
"""How long whoever says how a task ended waits until that is stored, before being told to say it again."""
FORGOTTEN_NS = 15 * 10**9
"""When a claim is older than this, FACTS may have forgotten an outcome that stands."""
Said = Literal["completed", "continued", "failed"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task in the hands of whoever claimed it. `checkpoint` is what an attempt before left, None for nothing."""

    task: Task
    claim: Claim
    token: str
    checkpoint: bytes | None


@dataclass(frozen=True, slots=True)
class Settled:
    """How the attempt ended. `already`: the same was said before."""

    run: str
    state: records.Ended
    due_ns: int
    already: bool


class Claims:
    """Claims of one project, as this node gives and takes them; made by `room.open_work`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        recorder: Recorder,
        facts: GroupCommit,
        held: GroupCommit,
        *,
        values: Values,
        project: str,
        node: str,
        patience: Patience,
        accepts: Accepts,
        has_ended: Ended,
        draining: Callable[[], bool],
        look: Look,
    ) -> None:
        """Speak for `node`, and write who has what through `held`; `patience` says how long a delivery lives without sign of life."""
        self._connection, self._recorder, self._values = connection, recorder, values
        self._project, self._node, self._has_ended, self._draining = project, node, has_ended, draining
        self._closed = False
        self._seal: Seal | None = None
        self.leases = leases.Leases(connection, held)
        self._standing = Standing(connection, self.leases)
        self.checkpoints = Checkpoints(connection)
        self.keeper = Keeper(
            group, connection, self.leases, node=node, patience=patience, facts=facts, time_over=self._time_over
        )
        self.overdue = Overdue(connection, self.keeper, self._time_over, node=node)
        self.polls = Polls(
            group, connection, recorder, facts, leases=self.leases, node=node, accepts=accepts, has_ended=has_ended,
            adopts=self.keeper.adopt, open_for_work=lambda: not (self._closed or draining()),
            look=look,
        )  # fmt: skip
        self.keeper.on_change(self.polls.taking.pump)

    async def open(self) -> None:
        """Make sure that everything is there, and listen."""
        self._seal = await tickets.open_seal(self._connection, self._project)
        await self.leases.open()
        await self.checkpoints.open()
        await self.keeper.open()
        await self.polls.taking.open()

    def close(self) -> None:
        """Give out nothing more; who waits for work is told."""
        self._closed = True
        self.polls.close()

    def left(self) -> Unavailable:
        """Return the error of whoever waits for something of a project that its node leaves, or may come back to."""
        return leaves(self._node, self._project)

    async def reconnected(self) -> None:
        """Take up the thread after a (re)connect."""
        await self.polls.intake.reconnected()
        self.polls.taking.pump()

    def swept(self, depths: Sequence[Depth]) -> None:
        """Take note of how the queues stand."""
        self.polls.swept(depths, self.keeper.consumers())

    # -- claiming ----------------------------------------------------------------------------------------------------

    async def claim(
        self, record: AgentRecord, *, lease_s: float, wait_s: float, held_max: int, agent: str = ""
    ) -> list[Claimed]:
        """Return tasks for an agent as soon as there are some: `record.concurrency` at most, none after `wait_s`.

        It never holds more than `held_max`. `agent` is its id when it has a session. Raises `Unavailable`: `node.draining`,
        and `bus.disconnected` when the node leaves the project.
        """
        if self._closed:
            raise self.left()
        if self._draining():
            raise Unavailable(
                f"{self._node} is draining.", code="node.draining", hint="Ask another node.", retry_after_s=5.0
            )
        given = await self.polls.wait(record, lease_s, lambda: held_max - self.keeper.held(record.name), wait_s, agent)
        if self._closed and not given:
            raise self.left()
        found = []
        try:
            for one in given:
                again = one.task.number > 1 or one.task.iteration > 0 or one.claim.delivery > 1
                found.append(await self._claimed(one.task, one.claim, again=again))
        except BaseException:
            for one in given:
                self.polls.hand_back(one, "it could not be told")
            raise
        return found

    async def claimed(self, claims: Iterable[Claim]) -> list[Claimed]:
        """Return what was given with claims (`keeper.claims_of`) once more, without what has ended meanwhile."""
        found = [(claim, await self._task_of(claim)) for claim in claims]
        return [await self._claimed(task[0], claim, again=True) for claim, task in found if task is not None]

    async def _claimed(self, task: Task, claim: Claim, *, again: bool) -> Claimed:
        """Return a task as its holder is told of it; only one that is begun `again` can have a checkpoint."""
        left = await self.checkpoints.read(claim.run, claim.step) if again else None
        return Claimed(task, claim, self._token(claim), left)

    def hand_back(self, found: Sequence[Claimed], why: str) -> None:
        """Give tasks back that nobody was told of, in the background."""
        for one in found:
            self.polls.hand_back(Given(one.claim, one.task), why)

    def _token(self, claim: Claim) -> str:
        assert self._seal is not None, "claims are used before they are opened"
        return self._seal.close(
            tickets.Ticket(claim.id, claim.subject, claim.worker, claim.delivery, claim.started_ns, claim.until_ns)
        )

    # -- while it is held --------------------------------------------------------------------------------------------

    async def extend(self, token: str, lease_s: float | None = None) -> Claim:
        """Let the lease begin anew, for `lease_s` or as long as it is, and this node keep it; returns the claim.

        Like all that takes a token it raises `Invalid` (`claim.invalid`), `Conflict` (`claim.expired`,
        `claim.superseded`, `claim.ended`) and `Cancelled` (`claim.cancelled`).
        """
        ticket = self._ticket(token)
        while True:
            claim, revision = await self._standing.claim(ticket)
            now_ns = clock.now_ns()
            hold_s = claim.lease_s if lease_s is None else lease_s
            longer = msgspec.structs.replace(
                leases.alive(claim, now_ns), until_ns=now_ns + int(hold_s * 1e9), lease_s=hold_s, node=self._node
            )
            with contextlib.suppress(Conflict):
                await self.leases.change(longer, revision)
                return longer

    async def report(self, token: str, percent: float | None, text: str) -> Claim:
        """Tell whoever watches how far it is."""
        claim = await self._living(token)
        self._tell(claim, "progress", codec.encode({"percent": percent, "text": text}))
        return claim

    async def stream(self, token: str, value: Any) -> Claim:
        """Send a piece of live output to whoever watches."""
        claim = await self._living(token)
        self._tell(claim, "chunk", codec.encode(value))
        return claim

    async def save(self, token: str, value: Any) -> Claim:
        """Keep a value for the attempts that follow; raises `TooLarge` (`claim.checkpoint_too_large`), too."""
        claim = await self._living(token)
        await self.checkpoints.write(claim.run, claim.step, codec.encode(value))
        return claim

    async def saved(self, token: str) -> tuple[Claim, bytes | None]:
        """Return what was kept last, by this attempt or one before; None for nothing."""
        claim, _ = await self._standing.claim(self._ticket(token))
        return claim, await self.checkpoints.read(claim.run, claim.step)

    async def _living(self, token: str) -> Claim:
        """Return a claim that stands, whose holder just showed that it lives."""
        while True:
            claim = await self.leases.beat(*await self._standing.claim(self._ticket(token)))
            if claim is not None:
                return claim

    def _tell(self, claim: Claim, kind: Kind, data: bytes) -> None:
        self._connection.send(subjects.live(claim.run, claim.step), data, "", frames.HEADS[kind])

    # -- ending it ---------------------------------------------------------------------------------------------------

    async def complete(self, token: str, output: Any) -> Settled:
        """Record that the attempt succeeded; `Conflict` (`claim.ended`) when something else was said before."""
        return await self._end(token, "completed", codec.encode(output), None)

    async def go_on(self, token: str, output: Any) -> Settled:
        """Record that there is more to do, with `output` as the next input."""
        return await self._end(token, "continued", codec.encode(output), None)

    async def fail(
        self, token: str, message: str, *, code: str, retriable: bool, retry_after_s: float | None
    ) -> Settled:
        """Record that the attempt failed; the task's retry policy says what follows."""
        told = Failed(secrets.redact(message), code=code, detail={"retriable": retriable}, retry_after_s=retry_after_s)
        return await self._end(token, "failed", b"null", told)

    async def release(self, token: str, why: str) -> Claim:
        """Give the task back unfinished; somebody else takes it at once, and no attempt is used up."""
        ticket = self._ticket(token)
        claim, _ = await self._standing.claim(ticket)
        task, _ = await self._task(claim, ticket)
        standing = await self.leases.end(claim, "said")
        if standing is None:
            raise await self._standing.refusal(ticket)
        await self.polls.intake.release(task, standing.delivery, standing.reply, standing.worker, why)
        self.keeper.hint(standing)
        return standing

    async def _end(self, token: str, said: Said, output: bytes, error: KnotworkError | None) -> Settled:
        ticket = self._ticket(token)
        claim, revision = await self.leases.read(ticket.run, ticket.step)
        if claim is None or claim.over or claim.id != ticket.id:
            return await self._before(ticket, said, output)
        found = await self._task_of(claim)
        if found is None:
            return await self._before(ticket, said, output)
        task, data = found
        now_ns = clock.now_ns()
        if now_ns - claim.started_ns > FORGOTTEN_NS and await self._has_ended(task):
            raise await self._standing.refusal(ticket)
        value, digest = await self._values.keep(output)
        state: records.Ended = "completed" if said == "completed" else "continued"
        due_ns, wire = 0, error.to_wire() if error is not None else None
        if wire is not None:
            state, due_ns, wire = settle.judged(task, wire, now_ns, random.random())  # noqa: S311  (jitter)
        outcome = Outcome(
            state, msgspec.Raw(data), msgspec.Raw(value), digest, wire,
            self._node, claim.worker, claim.started_ns, now_ns, due_ns, claim.delivery,
        )  # fmt: skip
        outcome = settle.bounded(task, outcome)
        standing = await self._record(task, outcome)
        await self._settled(claim, "said", standing, revision)
        if standing is outcome:
            return Settled(claim.run, outcome.state, outcome.due_ns, already=False)
        return await self._before(ticket, said, output)

    async def _record(self, task: Task, outcome: Outcome, *, timed_out: bool = False) -> Outcome:
        try:
            async with asyncio.timeout(RECORD_S):
                if timed_out:
                    standing = await self._recorder.append_end(task, outcome)
                else:  # who says something that is too large is told so, and says something else
                    standing = await self._recorder.append(task, outcome)
                await self._recorder.carry_out(task, standing)
        except TimeoutError:
            raise Unavailable(
                "It could not be stored yet, or it was and nobody said so.", code="claim.not_recorded",
                hint="Say the same again: it counts once.", retry_after_s=1.0,
            ) from None  # fmt: skip
        return standing

    async def _settled(self, claim: Claim, why: Over, standing: Outcome, revision: int = 0) -> None:
        """Let go of a task that has its outcome; what fails here is done by whoever gets it again."""
        with contextlib.suppress(KnotworkError):
            claim = await self.leases.end(claim, why, revision) or claim
            self._connection.send(claim.reply, pulls.ACK)
        redrivable = standing.state == "dead" and claim.step == records.STEP  # it goes on from there
        if standing.state in records.FINAL and not redrivable:
            self.polls.intake.spawn(self.checkpoints.forget(claim.run, claim.step))

    async def _time_over(self, claim: Claim) -> None:
        """End an attempt that took longer than it may."""
        with contextlib.suppress(KnotworkError):
            found = await self._task_of(claim)
            if found is None:
                return
            task, data = found
            now_ns = clock.now_ns()
            error = late(task, claim, now_ns).to_wire()
            state, due_ns, error = settle.judged(task, error, now_ns, random.random())  # noqa: S311  (jitter)
            outcome = Outcome(
                state, msgspec.Raw(data), error=error, node=self._node, agent=claim.worker,
                started_ns=claim.started_ns, ended_ns=now_ns, due_ns=due_ns, delivery=claim.delivery,
            )  # fmt: skip
            await self._settled(claim, "ended", await self._record(task, outcome, timed_out=True))

    # -- does it stand? ----------------------------------------------------------------------------------------------

    def check(self, token: str, run: str) -> None:
        """Raise `Invalid` (`claim.invalid`) unless a token is ours, and one on `run` when that is given."""
        if self._ticket(token).run != run and run:
            raise Invalid(
                "This claim is one on another task.", code="claim.invalid",
                hint="Send the `claim` that came with the task.",
            )  # fmt: skip

    def _ticket(self, token: str) -> Ticket:
        assert self._seal is not None, "claims are used before they are opened"
        return self._seal.open(token)

    async def _task(self, claim: Claim, ticket: Ticket) -> tuple[Task, bytes]:
        found = await self._task_of(claim)
        if found is None:
            raise await self._standing.refusal(ticket)
        return found

    async def _task_of(self, claim: Claim) -> tuple[Task, bytes] | None:
        stored = await reading.last(self._connection, subjects.TASKS, claim.subject)
        return None if stored is None else (records.decode_task(stored.data), stored.data)

    async def _before(self, ticket: Ticket, said: Said, output: bytes) -> Settled:
        """Return how the attempt ended when the same claim said the same before; raises why it is refused else."""
        standing = await self._standing.outcome(ticket)
        if standing is None or not is_said_by(standing, ticket):
            raise await self._standing.refusal(ticket)
        kind = standing.state if standing.state in ("completed", "continued") else "failed"
        value, digest = await self._values.keep(output)
        if kind != said or (kind != "failed" and (bytes(standing.output), standing.blob) != (value, digest)):
            raise ended(ticket, standing)
        return Settled(ticket.run, standing.state, standing.due_ns, already=True)
