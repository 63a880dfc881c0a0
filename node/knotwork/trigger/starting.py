"""What does a firing do? It starts its run, once for its key, if no run before it is in the way; and it is noted."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock
from knotwork.flow.runs import Wanted
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound, TooLarge
from knotwork.trigger import envelope
from knotwork.trigger.firings import Fired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knotwork.flow.room import Flow
    from knotwork.flow.runs import Begun
    from knotwork.trigger.envelope import Firing
    from knotwork.trigger.firings import Firings
    from knotwork.trigger.model import Definition
    from knotwork.trigger.store import State

log = logging.getLogger(__name__)
FOR_GOOD = (Invalid, NotFound, TooLarge)
"""Errors that will be the same the next time."""
RUNS_KEPT = 10
JUST_NOW_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Started:
    """What came of a firing: the run, and whether it is new; or why there is none."""

    run: str = ""
    new: bool = True
    why: str = ""
    error: KnotworkError | None = None


class Starter:
    """Starts what triggers of one project fire."""

    def __init__(self, flow: Flow, firings: Firings, node: str) -> None:
        """Start runs of `flow`; `node` is who we are."""
        self.flow, self.firings, self.node = flow, firings, node

    async def start(self, trigger: Definition, firing: Firing) -> Started:
        """Start the run of a firing; started again with the same key it is the same run.

        What will never work is told in the answer; raises what may work later.
        """
        return await self._asked(trigger, firing, self.flow.runs.start)

    async def would_start(self, trigger: Definition, firing: Firing) -> Started:
        """Return what `start` would answer; nothing is started. Raises what may work later."""
        return await self._asked(trigger, firing, self.flow.runs.meant)

    async def _asked(self, trigger: Definition, firing: Firing, ask: Callable[[Wanted], Awaitable[Begun]]) -> Started:
        key = getattr(trigger, "key", "") or firing.key
        try:
            wanted = Wanted(
                trigger.workflow, envelope.input_of(trigger, firing), key, f"trigger/{trigger.id}",
                envelope.labels(trigger, firing), trigger.priority, trigger.boundary or "", trigger.id,
            )  # fmt: skip
            begun = await ask(wanted)
        except Conflict as error:
            if error.code != "flow.key_reused":
                raise
            return Started(str(error.detail.get("id", "")), new=False, error=error)
        except FOR_GOOD as error:
            return Started(error=error, why=error.message)
        return Started(begun.id, begun.new)

    async def in_the_way(self, state: State) -> str:
        """Return the run before that goes on, and forget those that are over."""
        for run in list(state.runs):
            try:
                over = await self.flow.runs.over(run)
            except NotFound:  # forgotten, or decided on just now
                over = now_ns() - state.last_ns > JUST_NOW_NS
            if not over:
                return run
            state.runs.remove(run)
        return ""

    async def fire(self, trigger: Definition, firing: Firing, state: State) -> Started:
        """Fire, unless the run before is in the way and the trigger says to skip; `queue` is the caller's to keep.

        `state` is brought up to date. Raises what may work later.
        """
        before = await self.in_the_way(state) if trigger.overlap in ("skip", "cancel") else ""
        done = await self.would_start(trigger, firing) if before else Started()
        if before == done.run:  # another node was faster, or it was told before
            before = ""
        if done.error is None and before and trigger.overlap == "skip":
            done = Started(why=f"{before} goes on")
        elif done.error is None:
            if before:
                await self.stop(before, trigger)
            done = await self.start(trigger, firing)
        if done.run:
            state.runs = [*(run for run in state.runs if run != done.run), done.run][-RUNS_KEPT:]
            state.last_ns = firing.fired_ns
        await self.note(trigger, firing, done, again=True)
        return done

    async def stop(self, run: str, trigger: Definition) -> None:
        """Have a run stopped that is in the way of another."""
        try:
            await self.flow.runs.cancel(run, by=f"trigger/{trigger.id}", why="the trigger fired again")
        except (Conflict, NotFound) as error:
            log.debug("%s need not be stopped: %s", run, error)

    async def note(self, trigger: Definition, firing: Firing, done: Started, *, again: bool = False) -> None:
        """Keep what came of a firing, and count it when it started a run.

        `again` says that one which is known by now is the same firing, not counted before its node died.
        """
        what: Any = "started" if done.run else "failed" if done.error is not None else "skipped"
        if what == "failed":
            log.warning("the trigger %s fired in vain: %s", trigger.id, done.why)
        await self.firings.add(
            trigger.id,
            Fired(firing.key, what, firing.fired_ns, firing.due_ns, done.run, self.node, done.why),
            counts=bool(done.run) and (done.new or again),
        )


def input_json(value: Any) -> bytes:
    """Return a constant of a trigger as JSON."""
    return msgspec.json.encode(value)


def now_ns() -> int:
    """Return the time."""
    return clock.now_ns()
