"""Who fires when a time comes? The node that the trigger is with; it decides with compare-and-set, then does it.

A time is first written down as pending, then its run is started, then it is struck out. Whoever takes over in between
starts the same run again, which is the same run.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from typing import TYPE_CHECKING

from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound
from knotwork.trigger import due
from knotwork.trigger.envelope import Firing
from knotwork.trigger.firings import Fired
from knotwork.trigger.model import Cron, Once
from knotwork.trigger.starting import Starter, input_json, now_ns
from knotwork.trigger.store import Pending, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.trigger.store import Known, Store

log = logging.getLogger(__name__)
S = 1_000_000_000
LOOK_S = 1.0
"""How long at most until it is noticed that a clock was set."""
AGAIN_S = 0.5
LONG_S = 30.0
AT_ONCE = 64
NEVER_NS = 2**62


def drop(pending: list[Pending], most: int, now: int) -> int:
    """Put what is pending in the order of its moments, and drop the oldest of more than `most` whose moment has come.

    What `jitter` puts off waits for nothing yet; of that there may be `AT_ONCE_MAX`. Returns how many were dropped.
    """
    pending.sort(key=lambda one: one.at_ns)
    waiting = sum(one.at_ns <= now for one in pending)
    too_many = max(0, waiting - most, len(pending) - max(most, due.AT_ONCE_MAX))
    del pending[:too_many]
    return too_many


def told_of(missed: int, dropped: int) -> str:
    """Return what a history says of times that nothing was started for."""
    told = [f"missed {missed} {'time' if missed == 1 else 'times'}, not made up for"] if missed else []
    return " and ".join([*told, *([f"dropped {dropped} that waited in a full queue"] if dropped else [])])


class Timed:
    """The triggers of this node that fire at times."""

    def __init__(self, group: asyncio.TaskGroup, store: Store, starter: Starter, mine: Callable[[str], bool]) -> None:
        """Fire those of `store` that are `mine`, in tasks of `group`."""
        self._group, self._store, self._starter, self._mine = group, store, starter, mine
        self._heap: list[tuple[int, str]] = []
        self._next: dict[str, int] = {}
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._waits: set[str] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._news = asyncio.Event()

    def changed(self, name: str) -> None:
        """Look at a trigger anew: it is new, different, gone, ours or not ours any more."""
        known = self._store.known.get(name)
        if (
            known is None
            or not known.trigger.enabled
            or not isinstance(known.trigger, Cron | Once)
            or not self._mine(name)
        ):
            self._next.pop(name, None)
            return
        self._at(name, 0)

    def _at(self, name: str, time_ns: int) -> None:
        self._next[name] = time_ns
        heapq.heappush(self._heap, (time_ns, name))
        self._news.set()

    async def run(self) -> None:
        """Fire whenever it is time, for ever."""
        while True:
            self._news.clear()
            now = now_ns()
            while self._heap and self._heap[0][0] <= now:
                at_ns, name = heapq.heappop(self._heap)
                if self._next.get(name) == at_ns:
                    self._attend(name)
            left_s = (self._heap[0][0] - now) / S if self._heap else LOOK_S
            await set_within(self._news, min(max(left_s, 0.0), LOOK_S))

    def _attend(self, name: str) -> None:
        self._next[name] = NEVER_NS
        if name in self._busy:
            self._again.add(name)
            return
        self._busy.add(name)
        self._group.create_task(self._surely(name), name=f"trigger {name}")

    async def _surely(self, name: str) -> None:
        next_ns: int | None = None
        try:
            async with self._places:
                known = self._store.known.get(name)
                if known is not None and known.trigger.enabled and self._mine(name):
                    next_ns = await self._see_to(known)
        except Conflict:  # another node saw to it: look what is left
            next_ns = now_ns() + int(AGAIN_S * S * random.random())  # noqa: S311  (jitter)
        except KnotworkError as error:
            log.debug("the trigger %s is seen to in a moment: %s", name, error)
            next_ns = now_ns() + int(AGAIN_S * S)
        except Exception:  # one that cannot be dealt with does not stop the others
            log.exception("the trigger %s cannot be seen to", name)
            next_ns = now_ns() + int(LONG_S * S)
        finally:
            self._busy.discard(name)
        if name in self._again:
            self._again.discard(name)
            next_ns = 0
        if next_ns is not None and name in self._next:
            self._at(name, next_ns)

    # -- one trigger -------------------------------------------------------------------------------------------------

    async def _see_to(self, known: Known) -> int | None:
        """Decide what is due and do it; returns when to look again."""
        trigger = known.trigger
        state, revision = await self._store.state(trigger.id)
        state.since_ns = max(state.since_ns, known.since_ns)
        state.pending = [one for one in state.pending if not one.messages]  # what one before it gathered is no time
        now = now_ns()
        passed_over = self._decide(known, state, now)
        if passed_over is not None:
            revision = await self._store.save(trigger.id, state, revision)
            if skipped := sum(passed_over):
                why = told_of(*passed_over)
                noted = Fired(f"missed/{due.told(now)}", "skipped", now, 0, "", self._starter.node, why, skipped)
                await self._starter.firings.add(trigger.id, noted)
        if state.pending:
            await self._work_off(known, state, revision)
            if isinstance(trigger, Once) and not state.pending:
                await self._store.remove(trigger.id, only=known)  # not one that took its place while it fired
                return None
        return self._look_again(known, state)

    def _decide(self, known: Known, state: State, now: int) -> tuple[int, int] | None:
        """Move what has come due to what is pending; returns how many times were missed, and dropped; None for no change."""
        trigger = known.trigger
        if isinstance(trigger, Once):
            key = due.key(trigger.id, trigger.at_ns)
            state.pending = [one for one in state.pending if one.key == key]  # not of one whose place it took
            if state.pending or trigger.at_ns > now:
                return None
            state.pending = [Pending(key, trigger.at_ns)]
            return 0, 0
        assert isinstance(trigger, Cron)
        found = due.dues(
            trigger.cron, trigger.timezone, state.since_ns, now,
            grace_s=trigger.grace, missed=trigger.missed, cap=trigger.max_missed,
        )  # fmt: skip
        if not found.times and not found.skipped:
            return None
        for time_ns in found.times:
            key = due.key(trigger.id, time_ns)
            state.pending.append(Pending(key, time_ns, time_ns + due.late_ns(key, trigger.jitter)))
        state.since_ns = max(found.times, default=found.upto_ns)
        queued = trigger.max_queued if trigger.overlap == "queue" else due.AT_ONCE_MAX
        return found.skipped, drop(state.pending, max(queued, len(found.times)), now)

    async def _work_off(self, known: Known, state: State, revision: int) -> None:
        """Do what is pending and may be done now, in its order."""
        trigger = known.trigger
        assert isinstance(trigger, Cron | Once)
        body = input_json(trigger.input)
        done = False
        try:
            while state.pending and state.pending[0].at_ns <= now_ns():
                if trigger.overlap == "queue" and (before := await self._starter.in_the_way(state)):
                    self._wait_for(trigger.id, before)
                    break
                one = state.pending[0]
                firing = Firing(one.key, body, one.due_ns, now_ns(), {"input": trigger.input})
                await self._starter.fire(trigger, firing, state)
                state.pending.pop(0)
                done = True
        finally:
            if done:
                await self._store.save(trigger.id, state, revision)

    def _wait_for(self, name: str, run: str) -> None:
        if name not in self._waits:
            self._waits.add(name)
            self._group.create_task(self._when_over(name, run), name=f"trigger {name} waits")

    async def _when_over(self, name: str, run: str) -> None:
        """Look again when a run is over."""
        try:
            while not await self._is_over(run):
                continue
        finally:
            self._waits.discard(name)
        if name in self._next:
            self._at(name, 0)

    async def _is_over(self, run: str) -> bool:
        try:
            await self._starter.flow.runs.ended(run)
        except NotFound:
            return True
        except KnotworkError:
            await asyncio.sleep(AGAIN_S)
            return False
        return True

    def _look_again(self, known: Known, state: State) -> int:
        trigger = known.trigger
        if isinstance(trigger, Once):
            return trigger.at_ns
        assert isinstance(trigger, Cron)
        next_ns = next(due.after(trigger.cron, trigger.timezone, state.since_ns), NEVER_NS)
        if state.pending and state.pending[0].at_ns > now_ns():
            next_ns = min(next_ns, state.pending[0].at_ns)
        return next_ns
