"""Who keeps a task alive while an agent from outside has it? The node that gave it, or that the agent spoke to last.

JetStream wants a sign of life every few seconds, an agent may be silent for hours: so its node gives them, until the
lease it was given is over. All nodes watch LEASES, so each knows all claims; only a claim's keeper acts on it. When a
keeper dies its deliveries come again; whoever gets one sees in LEASES that the task is held, and keeps it from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from knotwork.bus import clock, patterns, pulls, subjects
from knotwork.bus.background import begin_in
from knotwork.sdk.errors import Conflict, KnotworkError
from knotwork.work import intake
from knotwork.work import leases as stored
from knotwork.work.lasting import Lasting
from knotwork.work.leases import Claim

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Entry
    from knotwork.bus.pulls import Delivery
    from knotwork.bus.wire import Message
    from knotwork.work.leases import Leases, Over
    from knotwork.work.queues import Patience
    from knotwork.work.records import Task

log = logging.getLogger(__name__)
TICK_S = 0.25


class Listener(Protocol):
    """Whoever wants to know that an agent does not hold a task any more, without having said so itself."""

    def __call__(self, claim: Claim, why: Over, /) -> None:
        """Take note; `why` is `ended` or `expired`."""


@dataclass(eq=False, slots=True)
class Kept:
    """One claim as this node knows it. `heard_s` is when its lease began, `renewed_s` when it was kept alive last."""

    claim: Claim
    revision: int
    heard_s: float
    renewed_s: float
    busy: bool = False
    """Something is being done about it: it is not begun twice."""
    consumer: str = field(init=False)
    """Looked at several times a second."""

    def __post_init__(self) -> None:
        self.consumer = self.claim.consumer


class Keeper:
    """Keeps the claims of one project."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        leases: Leases,
        *,
        node: str,
        patience: Patience,
        facts: GroupCommit,
        time_over: Callable[[Claim], Coroutine[Any, Any, None]],
    ) -> None:
        """Keep those of `node` in tasks of `group`; a delivery lives as long without a sign of life as `patience` says.

        `time_over(claim)` ends an attempt whose time is over.
        """
        self._group, self._connection, self._leases = group, connection, leases
        self._node, self._patience = node, patience
        self._time_over = time_over
        self._kept: dict[str, Kept] = {}
        self._held: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._changes: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()
        self._lasting = Lasting(facts, self.keeps_alive)
        leases.changed = self.note

    # -- what others want to know ------------------------------------------------------------------------------------

    def held(self, worker: str) -> int:
        """Return how many tasks an agent holds, wherever it got them."""
        return self._held[worker]

    def consumers(self) -> Iterable[str]:
        """Yield the consumer of each task that this node keeps; others' keepers may be dead."""
        return (kept.consumer for kept in self._mine())

    def claims_of(self, agent: str, names: Collection[str]) -> list[Claim]:
        """Return what an agent holds, wherever it got it: by its id, or its names (`Claim.is_of`)."""
        return [kept.claim for kept in self._kept.values() if kept.claim.is_of(agent, names)]

    def all_consumers(self) -> Iterable[str]:
        """Yield the consumer of each task that an agent from outside holds, on any node."""
        return (kept.consumer for kept in self._kept.values())

    def keeps(self, task: Task) -> bool:
        """Return whether an agent from outside holds an attempt, as far as this node has heard."""
        kept = self._kept.get(stored.key(task.run, task.step))
        return kept is not None and kept.claim.subject == task.subject

    def keeps_alive(self, claim: Claim) -> bool:
        """Return whether a claim stands, and this node keeps it, as far as it has heard."""
        kept = self._kept.get(claim.key)
        return kept is not None and kept.claim.id == claim.id and self._is_mine(kept)

    def knows(self, run: str, step: str) -> bool:
        """Return whether an agent from outside holds a step of a run, as far as this node has heard."""
        return stored.key(run, step) in self._kept

    def on_lost(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of every claim that is lost, on any node; returns the function that takes it back."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever somebody holds less than before."""
        self._changes.append(callback)

    # -- keeping -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen for tasks that are ended by others."""
        await self._connection.listen(patterns.CANCELLED_TASKS, self._cancelled)

    async def run(self) -> None:
        """Watch all claims and keep ours, for ever."""
        again = asyncio.Event()
        forget = self._connection.on_up(again.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(), name="claims")
                group.create_task(self._resume(again), name="claims after a reconnect")
                while True:
                    await asyncio.sleep(TICK_S)
                    for kept in self._mine():
                        self._look_after(kept, self._loop.time())
        finally:
            forget()

    async def adopt(self, task: Task, delivery: Delivery) -> bool:
        """Return whether an agent holds a task that was delivered again, here; this node keeps it from now on then."""
        while True:
            claim, revision = await self._leases.read(task.run, task.step)
            if claim is None or claim.over or claim.subject != task.subject:
                return False
            ours = msgspec.structs.replace(claim, reply=delivery.reply, node=self._node)
            with contextlib.suppress(Conflict):
                await self._leases.change(ours, revision)
                return True

    def _look_after(self, kept: Kept, now_s: float) -> None:
        if now_s - kept.renewed_s >= self._patience.of(kept.consumer) / 3:
            self._renew(kept, now_s)
        if kept.busy:
            return
        if now_s - kept.heard_s >= kept.claim.lease_s:
            self._begin(kept, self._expire(kept))
        elif kept.claim.ends_ns and clock.now_ns() >= kept.claim.ends_ns:
            self._begin(kept, self._time_over(kept.claim))

    def _renew(self, kept: Kept, now_s: float) -> None:
        with contextlib.suppress(KnotworkError):  # no connection: at once when it is back
            self._connection.send(kept.claim.reply, pulls.ALIVE)
            kept.renewed_s = now_s

    def _begin(self, kept: Kept, work: Coroutine[Any, Any, None]) -> None:
        kept.busy = True
        task = begin_in(self._group, work)
        if task is not None:  # else the group is closing: whoever keeps it next does it
            task.add_done_callback(lambda _task: setattr(kept, "busy", False))

    async def _expire(self, kept: Kept) -> None:
        """End a lease that nobody extended, in one step with seeing that nobody did, and give the task back."""
        over = msgspec.structs.replace(kept.claim, over="expired")
        try:
            await self._leases.change(over, kept.revision)
        except Conflict:
            return  # it was extended or ended meanwhile: we shall hear of it
        except KnotworkError as error:
            log.debug("the lease on %s is ended in a moment: %s", kept.claim.run, error)
            return
        log.info("%s lost %s: its lease is over", kept.claim.worker, kept.claim.run)
        self.give_back(kept)

    def abandon(self, *names: str, agent: str = "") -> None:
        """Take back what an agent holds that is gone: somebody else gets it now, not when its leases are over."""
        for kept in self._mine():
            if kept.claim.is_of(agent, names) and not kept.busy:
                self._begin(kept, self._expire(kept))

    def give_back(self, kept: Kept) -> None:
        """Let somebody else have a task at once, unless JetStream has given it to somebody else already."""
        if self._loop.time() - kept.renewed_s < self._patience.of(kept.claim.consumer) * 0.8:
            with contextlib.suppress(KnotworkError):  # it goes to somebody else after the consumer's own lease then
                self._connection.send(kept.claim.reply, pulls.NAK)
                self.hint(kept.claim)

    def hint(self, claim: Claim) -> None:
        """Tell workers that a task is there again; raises `Unreachable`."""
        boundary, routed, lane = claim.subject.split(".")[1:4]
        self._connection.send(subjects.hint(boundary, routed, lane))

    # -- hearing -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                await self._leases.bucket.watch(self._heard, lambda: None)
            except KnotworkError as error:  # the bucket is gone
                log.debug("claims are watched again in a moment: %s", error)
                await asyncio.sleep(1.0)
                with contextlib.suppress(KnotworkError):
                    await self._leases.open()

    def _heard(self, entry: Entry) -> None:
        if not entry.key.startswith(stored.PREFIX):
            return
        if entry.value is None:
            kept = self._drop(entry.key, "expired")
            if kept is not None and self._is_mine(kept):  # the server was faster
                self.give_back(kept)
            return
        known = self._kept.get(entry.key)
        if known is not None and known.revision >= entry.revision:
            return  # we wrote it, and heard before that it is stored
        try:
            claim = stored.decode(entry.value)
        except KnotworkError as error:
            log.warning("%s: %s", entry.key, error)
            return
        if claim.key == entry.key:
            self.note(claim, entry.revision)

    def note(self, claim: Claim, revision: int) -> None:
        """Know a claim as it is now. Its lease is counted from when we hear of it: clocks of nodes may differ."""
        now_s = self._loop.time()
        before = self._kept.get(claim.key)
        if before is not None and before.revision >= revision:
            return
        if claim.over:
            self._drop(claim.key, claim.over)
            return
        self._kept[claim.key] = kept = Kept(claim, revision, now_s, 0.0)
        self._held[claim.worker] += 1
        if before is not None:
            self._less(before.claim.worker)
            self._follow(before, kept)
        if self._is_mine(kept) and (before is None or before.claim.id != claim.id or not self._is_mine(before)):
            self._lasting.add(claim)
        if self._is_mine(kept) and not kept.renewed_s:
            age_s = (clock.now_ns() - claim.started_ns) / 1e9
            if claim.delivery == 1 and 0 <= age_s < self._patience.of(claim.consumer) / 6:
                kept.renewed_s = now_s - age_s  # that it was delivered just now is a sign of life by itself
            else:
                self._renew(kept, now_s)

    def _follow(self, before: Kept, kept: Kept) -> None:
        """Let a claim take the place of what stood there: itself as it was, or the claim of another, who may take more now."""
        if before.claim.id != kept.claim.id:
            self._changed()
            return
        if before.claim.until_ns == kept.claim.until_ns:
            kept.heard_s = before.heard_s  # it was not extended, it only has another keeper
        if before.claim.reply == kept.claim.reply and self._is_mine(before):
            kept.renewed_s = before.renewed_s

    def _drop(self, key: str, why: Over) -> Kept | None:
        """Forget a claim that stands no more; whoever held it is told, unless it was by its own word."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._less(kept.claim.worker)
            self._changed()
            if why != "said":
                for listener in list(self._listeners):
                    listener(kept.claim, why)
        return kept

    def _less(self, worker: str) -> None:
        self._held[worker] -= 1
        if not self._held[worker]:
            del self._held[worker]

    def _changed(self) -> None:
        for callback in self._changes:
            callback()

    def _mine(self) -> list[Kept]:
        return [kept for kept in self._kept.values() if self._is_mine(kept)]

    def _is_mine(self, kept: Kept) -> bool:
        return kept.claim.node == self._node

    # -- what is ended by others -------------------------------------------------------------------------------------

    def _cancelled(self, message: Message) -> None:
        run, step = message.subject.rpartition(".")[2], message.data.decode("utf-8", "replace")
        for kept in [one for one in self._kept.values() if one.claim.run == run and step in ("", one.claim.step)]:
            self._ended(kept, pulls.ACK)

    def _ended(self, kept: Kept, answer: bytes) -> None:
        """Take note that an attempt has its outcome, recorded by somebody else than who holds it."""
        self._drop(kept.claim.key, "ended")
        if self._is_mine(kept):
            with contextlib.suppress(KnotworkError):  # it comes again, and is looked up then
                self._connection.send(kept.claim.reply, answer)
            self._begin(kept, self._end(kept))

    async def _end(self, kept: Kept) -> None:
        with contextlib.suppress(KnotworkError):  # the server removes it when its lease is over
            await self._leases.change(msgspec.structs.replace(kept.claim, over="ended"), kept.revision)

    async def _resume(self, again: asyncio.Event) -> None:
        """After a reconnect: give signs of life at once, and look for what ended meanwhile without our being told."""
        while True:
            await again.wait()
            again.clear()
            for kept in self._mine():
                self._renew(kept, self._loop.time())
            for kept in self._mine():
                try:
                    if await intake.outcome_at(self._connection, kept.claim.outcome_subject) is not None:
                        self._ended(kept, pulls.NAK)  # whoever gets it does what the outcome calls for, again
                except KnotworkError:
                    await asyncio.sleep(TICK_S)
                    again.set()
                    break
