"""How do agents that came in get work, and how is it told to them? The claims of one project, as the ops' replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import codec, subjects
from knotwork.bus.away import why_away
from knotwork.desk.callers import agent_id, caller_name
from knotwork.desk.moments import moment
from knotwork.desk.seen_agents import check_name
from knotwork.desk.tasks.values import SHOWN_MAX_BYTES
from knotwork.mesh.records import AgentRecord
from knotwork.ops import claim_replies, pages, replies
from knotwork.sdk.errors import NotFound
from knotwork.trust.scopes import circles
from knotwork.work import queues, records
from knotwork.work.attached import KIND

if TYPE_CHECKING:
    from knotwork.mesh.membership import Membership
    from knotwork.mesh.sessions import Sessions
    from knotwork.ops.claim_ports import Shown, Worker
    from knotwork.ops.op import Caller
    from knotwork.trust.who import Who
    from knotwork.work.claims import Claimed, Settled
    from knotwork.work.leases import Claim
    from knotwork.work.room import Work

ANSWER_MAX_BYTES = 5 * 1024 * 1024
"""Inputs and checkpoints in one answer: it has to fit into one message. What does not fit is handed back."""


class ClaimDesk:
    """One project's claims (`ops.claim_ports.Claims`)."""

    def __init__(self, work: Work, sessions: Sessions, membership: Membership, owner: Callable[[], str]) -> None:
        """Give and take through our part in the project's work, at a node of `owner()`, to agents that are themselves."""
        self._work, self._claims = work, work.claims
        self._sessions, self._membership, self._owner = sessions, membership, owner

    def _admit(self, worker: Worker, by: Who) -> None:
        """Refuse who cannot be given work here, or would wait for ever for what there is none of.

        Raises `Denied` (`claim.not_you`) when somebody comes in the name of another who is there, and `Invalid`
        (`policy.unknown_boundary`) for one who accepts a boundary that nobody configured.
        """
        check_name(worker.name, by, self._owner(), self._sessions, self._membership.directory)
        policy = self._membership.policy()
        for boundary in worker.boundaries:
            policy.admit(boundary)

    def _by_name(self, name: str, by: Who) -> tuple[str, ...]:
        """Return what else work is routed by that is for somebody: names of before, and its names as all see them."""
        if by.kind != "agent":
            return (subjects.seen(name),)
        agent = self._sessions.find(by.id)
        names = self._sessions.names(agent) if agent.handle == name else (name,)
        seen = names if agent.scope in ("team", "public") else ()
        return (*(queues.routed(agent=one) for one in names[1:]), *(subjects.seen(one) for one in seen))

    async def connect(self, worker: Worker, caller: Caller) -> AsyncGenerator[replies.Chunk, None]:
        """Let an agent in until the generator is closed; yields what it is told.

        Raises `Unavailable` (`bus.disconnected`) when the node leaves the project.
        """
        self._admit(worker, caller.who)
        with self._work.attached.line(_record(worker), agent=agent_id(caller)) as notices:
            yield replies.Chunk(data={"event": "connected", "worker": worker.name})
            async for notice in notices:
                yield replies.Chunk(data=lost(notice.claim, notice.why))
        raise self._claims.left()

    async def claim(
        self, worker: Worker, caller: Caller, *, count: int, wait_s: float, lease_s: float
    ) -> claim_replies.ClaimedTasks:
        """Return up to `count` tasks as soon as there are some, none after `wait_s`."""
        self._admit(worker, caller.who)
        record, held_max = self._work.attached.asked(_record(worker), wait_s)
        own = tuple(subjects.own(one, name) for one in circles(caller.who) for name in record.capabilities)
        own += self._by_name(worker.name, caller.who)
        record = msgspec.structs.replace(record, concurrency=count, capabilities=(*record.capabilities, *own))
        found = await self._claims.claim(
            record, lease_s=lease_s, wait_s=wait_s, held_max=held_max, agent=agent_id(caller)
        )
        if not found and self._work.submitter.storage.tight:  # else it would wait without knowing why
            raise self._work.submitter.no_room_for("Nothing is begun until there is room for its outcome.")
        told = await self._told(found)
        caller.undo.append(lambda: self._claims.hand_back(found[: len(told)], "nobody got the answer"))
        return claim_replies.ClaimedTasks(tasks=told, why="" if told else self._why_none(worker, held_max))

    def _why_none(self, worker: Worker, held_max: int) -> str:
        """Return why somebody got nothing, whatever waits; "" when nothing did."""
        held = self._claims.keeper.held(worker.name)
        if held >= held_max:
            return f"You hold {held} tasks, as many as you may hold at once: end one first."
        away = why_away(self._membership.connection)
        return f"{away.message} What waits is not known here until it is back." if away is not None else ""

    async def claimed(
        self, worker: str, caller: Caller, *, run: str, limit: int, cursor: str
    ) -> claim_replies.ClaimedPage:
        """Return up to `limit` tasks that somebody holds, those of one `run` alone unless it is "", the oldest first."""
        check_name(worker, caller.who, self._owner(), self._sessions, self._membership.directory)
        held = self._claims.keeper.claims_of(agent_id(caller), (worker,))
        held = [claim for claim in held if run in ("", claim.run)]
        rows: list[claim_replies.ClaimedTask] = []
        room = ANSWER_MAX_BYTES
        for one in await self._claims.claimed(pages.page(held, _began, cursor, limit)[0]):
            value, blob = await self._input(one)
            room -= len(value) + len(one.checkpoint or b"")
            if room < 0 and rows:
                limit = len(rows)
                break
            rows.append(_claimed(one, value, blob))
        return claim_replies.ClaimedPage(tasks=rows, next=pages.page(held, _began, cursor, limit)[1])

    async def _told(self, found: list[Claimed]) -> list[claim_replies.ClaimedTask]:
        """Return tasks as they are told; whatever stops it, none is lost."""
        rows: list[claim_replies.ClaimedTask] = []
        room = ANSWER_MAX_BYTES
        try:
            for one in found:
                value, blob = await self._input(one)
                room -= len(value) + len(one.checkpoint or b"")
                if room < 0 and rows:
                    break
                rows.append(_claimed(one, value, blob))
        except BaseException:
            self._claims.hand_back(found, "it could not be told")
            raise
        self._claims.hand_back(found[len(rows) :], "the answer was full")
        return rows

    async def _input(self, one: Claimed) -> tuple[bytes, str]:
        """Return the input of a task, and its digest when it is too large to be told."""
        digest = one.task.blob
        if not digest:
            return bytes(one.task.input), ""
        try:
            if (await self._work.values.blobs.info(digest)).size <= SHOWN_MAX_BYTES:
                return await self._work.values.input_of(one.task), ""
        except NotFound:  # whoever works on it finds out, and says so
            pass
        return b"null", digest

    async def extend(self, shown: Shown, lease_s: float | None) -> claim_replies.Held:
        """Let the lease begin anew, for `lease_s` seconds or, with None, as long as it was."""
        return _held(await self._claims.extend(self._token(shown), lease_s))

    async def progress(self, shown: Shown, percent: float | None, text: str) -> claim_replies.Held:
        """Tell whoever watches how far it is."""
        return _held(await self._claims.report(self._token(shown), percent, text))

    async def stream(self, shown: Shown, data: Any) -> claim_replies.Held:
        """Send live output to whoever watches."""
        return _held(await self._claims.stream(self._token(shown), data))

    async def save(self, shown: Shown, data: Any) -> claim_replies.Checkpoint:
        """Keep a checkpoint."""
        return claim_replies.Checkpoint(id=(await self._claims.save(self._token(shown), data)).run, data=data)

    async def saved(self, shown: Shown) -> claim_replies.Checkpoint:
        """Return the checkpoint kept last."""
        held, data = await self._claims.saved(self._token(shown))
        return claim_replies.Checkpoint(id=held.run, data=None if data is None else codec.decode(data))

    async def complete(self, shown: Shown, output: Any) -> claim_replies.Settled:
        """End the attempt as done."""
        return _settled(await self._claims.complete(self._token(shown), output))

    async def go_on(self, shown: Shown, output: Any) -> claim_replies.Settled:
        """End this iteration; `output` is the input of the next."""
        return _settled(await self._claims.go_on(self._token(shown), output))

    async def fail(
        self, shown: Shown, message: str, *, code: str, retriable: bool, retry_after_s: float | None
    ) -> claim_replies.Settled:
        """End the attempt as failed."""
        ended = await self._claims.fail(
            self._token(shown), message, code=code, retriable=retriable, retry_after_s=retry_after_s
        )
        return _settled(ended)

    async def release(self, shown: Shown, why: str) -> claim_replies.Released:
        """Give the task back unfinished."""
        return claim_replies.Released(id=(await self._claims.release(self._token(shown), why)).run)

    def _token(self, shown: Shown) -> str:
        """Return the claim that is shown; raises `Invalid` (`claim.invalid`) when it is one on another task."""
        self._claims.check(shown.claim, shown.id)
        return shown.claim

    async def signal(self, run: str, name: str, data: Any, caller: Caller) -> claim_replies.Signalled:
        """Send a signal to a run."""
        new = await self._work.signals.send(run, name, data, caller_name(caller))
        return claim_replies.Signalled(id=run, name=name, already=not new)

    async def wait_signal(self, run: str, name: str, wait_s: float) -> claim_replies.SignalRow:
        """Return a signal when it is there, or that there is none after `wait_s`."""
        found = await self._work.signals.wait(run, name, wait_s)
        if found is None:
            return claim_replies.SignalRow(id=run, name=name, sent=False)
        return claim_replies.SignalRow(
            id=run, name=name, sent=True, data=codec.decode(bytes(found.value)), by=found.by, at=moment(found.at_ns)
        )


def _began(claim: Claim) -> str:
    """Return the place of a claim among others: when it was given."""
    return f"{claim.started_ns:020d} {claim.key}"


def _record(worker: Worker) -> AgentRecord:
    """Return an agent as others see it."""
    return AgentRecord(
        worker.name, worker.capabilities, worker.description, boundaries=worker.boundaries,
        executor=worker.kind or KIND, concurrency=worker.max_tasks, attached=True,
    )  # fmt: skip


def _claimed(one: Claimed, value: bytes, blob: str) -> claim_replies.ClaimedTask:
    task, claim = one.task, one.claim
    return claim_replies.ClaimedTask(
        id=task.run,
        step=records.shown_step(claim.step),
        claim=one.token,
        input=codec.decode(value),
        input_blob=blob,
        capability=task.capability,
        boundary=records.shown_boundary(task.boundary),
        priority=task.priority,
        attempt=task.number,
        iteration=task.iteration,
        key=task.key or task.run,
        checkpoint=None if one.checkpoint is None else codec.decode(one.checkpoint),
        lease_s=claim.lease_s,
        deadline=moment(claim.ends_ns),
        labels=task.labels,
        parent=task.parent,
        by=task.by,
        traceparent=task.traceparent,
    )


def lost(claim: Claim, why: str) -> dict[str, str]:
    """Return what an agent is told of a claim that stands no more."""
    told, step = {"event": "lost", "id": claim.run, "why": why}, records.shown_step(claim.step)
    return told | ({"step": step} if step else {})


def _held(claim: Claim) -> claim_replies.Held:
    return claim_replies.Held(id=claim.run, lease_s=claim.lease_s, until=moment(claim.until_ns))


def _settled(ended: Settled) -> claim_replies.Settled:
    return claim_replies.Settled(id=ended.run, state=ended.state, due_at=moment(ended.due_ns), already=ended.already)
