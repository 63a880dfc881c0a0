"""Which firings do plugins tell? Of the nodes where a plugin works, one at a time listens for each trigger.

A firing's run is known by the id that the plugin gave it, so it is one run whoever tells it. How far a plugin has come
(its mark) is written down after the run is started: whoever goes on from there tells nothing anew, or harmlessly again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock
from knotwork.bus.background import what_ended
from knotwork.flow.shards import owner
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, Unavailable
from knotwork.sockets import raised
from knotwork.sockets.pace import History, Pace
from knotwork.trigger.listening import Listener
from knotwork.trigger.model import Definition, Plugin
from knotwork.trigger.resting import awake, gives_up, recent, rest
from knotwork.trigger.tended import Tended

if TYPE_CHECKING:
    from knotwork.flow.shards import Shards
    from knotwork.sockets.slot import Slot
    from knotwork.trigger.starting import Starter
    from knotwork.trigger.store import Known, State, Store

log = logging.getLogger(__name__)
Said = Callable[[str, dict[str, Any]], None]
AGAIN_S = 0.5
LOOK_S = 0.2
WELL_S = 5.0
"""After so long without a failure the last one is forgotten."""
WHY_MAX = 500


class Telling:
    """The triggers of this node that fire for what plugins tell."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        store: Store,
        starter: Starter,
        sources: Callable[[], dict[str, Slot]],
        *,
        pace: Pace | None = None,
        said: Said = lambda _name, _told: None,
    ) -> None:
        """Fire those of `store` whose source is one of our `sources` and with us, in tasks of `group`.

        `said` is told by name and fields when we leave a trigger to another node.
        """
        self._store, self._starter, self._sources = store, starter, sources
        self._shards: Shards = starter.flow.shards
        self._shards.offers = self._offers
        self._pace, self._said = pace or Pace(), said
        self._names: set[str] = set()
        self._tended = Tended(group, self._surely)

    def _offers(self) -> dict[str, bool]:
        return {name: slot.state == "running" for name, slot in self._sources().items()}

    def changed(self, name: str) -> None:
        """Look at a trigger anew: it is new, different or gone."""
        known = self._store.known.get(name)
        if known is not None and isinstance(known.trigger, Plugin):
            self._names.add(name)
        else:
            self._names.discard(name)
        self._settle(name)

    def look(self) -> None:
        """See which triggers are ours by now."""
        for name in list(self._names):
            self._settle(name)

    def _settle(self, name: str) -> None:
        """Begin or end listening, as it should be now."""
        known = self._store.known.get(name)
        if known is not None and not self._is_ours(known.trigger):
            known = None
        self._tended.settle(name, known)

    def _is_ours(self, trigger: Definition) -> bool:
        return (
            isinstance(trigger, Plugin)
            and trigger.enabled
            and self.node_of(trigger) == self._starter.node
            and trigger.source in self._sources()
        )

    # -- what others are told ----------------------------------------------------------------------------------------

    def node_of(self, trigger: Plugin) -> str:
        """Return the node that listens; an empty text when none can."""
        state = self._store.states.get(trigger.id)
        working = self._working(trigger)
        return owner(awake(working, state.rests, clock.now_ns()) if state is not None else working, trigger.id)

    def _working(self, trigger: Plugin) -> list[str]:
        """Return the nodes where its plugin runs."""
        return [node for node, works in self._shards.having(trigger.source).items() if works]

    def check(self, trigger: Definition) -> None:
        """Raise `Invalid` (`trigger.no_source`) for a trigger whose source no node has."""
        if isinstance(trigger, Plugin):
            self.must_have(trigger.source)

    def must_have(self, source: str) -> None:
        """Raise `Invalid` (`trigger.no_source`) for a source that no node has."""
        if not self._shards.having(source):
            raise Invalid(
                f"No node that serves this project has a table [triggers.{source}].", code="trigger.no_source",
                hint="Write it into the configuration of a node; `knotwork plugin list` shows which types there are.",
            )  # fmt: skip

    def why(self, trigger: Definition, state: State) -> str:
        """Return what keeps a trigger from firing, in words; an empty text when nothing does."""
        if not isinstance(trigger, Plugin):
            return ""
        if self.node_of(trigger):
            return state.why
        slot = self._sources().get(trigger.source)
        if slot is not None:
            return f"[triggers.{trigger.source}] is {slot.state} here" + (f": {slot.why}" if slot.why else "")
        having = ", ".join(sorted(self._shards.having(trigger.source)))
        return f"[triggers.{trigger.source}] works on none of: {having}" if having else (
            f"no node that is there has [triggers.{trigger.source}]"
        )  # fmt: skip

    # -- listening ---------------------------------------------------------------------------------------------------

    async def _surely(self, known: Known) -> None:
        """Listen, whatever happens, until cancelled."""
        trigger = known.trigger
        assert isinstance(trigger, Plugin)
        history = History(self._pace)
        starts, in_a_row = -1, 0
        while True:
            slot = self._sources().get(trigger.source)
            if slot is None or slot.state != "running":  # soon it is another node's
                await asyncio.sleep(LOOK_S)
                continue
            if slot.starts != starts:  # somebody restarted it
                history.forget()
                starts, in_a_row = slot.starts, 0
            began_s = time.monotonic()
            one = Listener(self._store, self._starter, known)
            try:
                await self._listen(one, slot, starts)
            except Conflict:
                log.debug("another node listens for the trigger %s, too", trigger.id)
                await asyncio.sleep(AGAIN_S)
            except raised.ENDS:
                raise
            except BaseException as error:  # noqa: BLE001  the boundary: whatever a plugin raises ends here
                ran_s = time.monotonic() - began_s
                in_a_row = 1 if one.progressed or ran_s >= self._pace.healthy_s else in_a_row + 1
                if slot.state == "running":  # else others know that it works here no more
                    await self._give_up(trigger, in_a_row, told_of(error))
                await self._pause(known, slot, history, error, ran_s)

    async def _give_up(self, trigger: Plugin, failures: int, why: str) -> None:
        """Leave a trigger to another node for a while, when it keeps failing here and may work there."""
        node, working = self._starter.node, self._working(trigger)
        try:
            state, revision = await self._store.state(trigger.id)
            now_ns = clock.now_ns()
            if not gives_up(failures, node, working, state.rests, now_ns):
                return
            made = rest(state.rests.get(node), why, now_ns)
            state.rests = recent(state.rests, now_ns) | {node: made}
            await self._store.save(trigger.id, state, revision)
        except KnotworkError as error:
            log.debug("that %s is left to others is not written down: %s", trigger.id, error)
            return
        rest_s = (made.until_ns - now_ns) / 1e9
        log.warning(
            "the trigger %s is left to other nodes for %g s: %d failures in a row", trigger.id, rest_s, failures
        )
        to = owner(awake(working, state.rests, now_ns), trigger.id)
        self._said(
            "trigger.given_up",
            {"trigger": trigger.id, "source": trigger.source, "node": node, "to": to, "rest_s": rest_s, "why": why},
        )

    async def _listen(self, one: Listener, slot: Slot, starts: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(slot, starts, one))
                await one.run(slot.plugin)
                watching.cancel()
        except BaseExceptionGroup as failed:
            raise what_ended(failed) from None

    async def _watch(self, slot: Slot, starts: int, one: Listener) -> None:
        """Raise `Unavailable` when the plugin is not there any more; forget what ailed it when it is well."""
        well_s = time.monotonic() + WELL_S
        while slot.state == "running" and slot.starts == starts and self._sources().get(slot.id) is slot:
            await asyncio.sleep(LOOK_S)
            if time.monotonic() > well_s:
                await one.recovered()
                well_s = float("inf")
        raise Unavailable(slot.why or f"[triggers.{slot.id}] is {slot.state}", code="plugin.not_running")

    async def _pause(self, known: Known, slot: Slot, history: History, error: BaseException, ran_s: float) -> None:
        """Say why it does not listen, and wait until it may again."""
        told = told_of(error)
        chance = random.random()  # noqa: S311  spreads retries, keeps no secret
        crashed = not isinstance(error, Unavailable)
        pause_s = history.failed(now_s=time.monotonic(), ran_s=ran_s, crashed=crashed, chance=chance)
        if pause_s is None:
            again = f"`knotwork plugin restart triggers.{slot.id}` tries it again"
            told = f"{self._pace.crashes_max} crashes in {self._pace.crash_window_s:g} s, {again}; the last one: {told}"
        else:
            pause_s = max(pause_s, getattr(error, "retry_after_s", None) or 0.0)
        log.warning("the trigger %s does not hear its plugin: %s", known.trigger.id, told[:WHY_MAX])
        await self._say(known, told[:WHY_MAX])
        until_s, starts = time.monotonic() + (float("inf") if pause_s is None else pause_s), slot.starts
        # a slot tells nobody but the host that it was restarted
        while time.monotonic() < until_s and slot.starts == starts and self._sources().get(slot.id) is slot:  # noqa: ASYNC110
            await asyncio.sleep(min(LOOK_S, max(0.0, until_s - time.monotonic())))

    async def _say(self, known: Known, why: str) -> None:
        try:
            state, revision = await self._store.state(known.trigger.id)
            state.why = why
            await self._store.save(known.trigger.id, state, revision)
        except KnotworkError as error:
            log.debug("why %s does not fire is not written down: %s", known.trigger.id, error)


def told_of(error: BaseException) -> str:
    """Return what an error says, bounded."""
    return raised.text(error)[:WHY_MAX]
