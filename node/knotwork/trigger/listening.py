"""What becomes of what a plugin tells for one trigger? Its runs are started, and how far it has come is written down."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.sdk.errors import Conflict, KnotworkError, NotFound, PluginFailed
from knotwork.sdk.trigger import ID_MAX, MARK_MAX_BYTES, Firing, Mark
from knotwork.trigger import envelope
from knotwork.trigger.starting import Starter, now_ns
from knotwork.trigger.store import State

if TYPE_CHECKING:
    from knotwork.sdk.trigger import Trigger
    from knotwork.trigger.model import Definition
    from knotwork.trigger.store import Known, Store

log = logging.getLogger(__name__)
AGAIN_S = 0.5
PLAIN_MAX = 128
"""Characters of an id that is used as it is; another is known by its digest."""


class Listener:
    """One trigger being listened for: takes what the plugin tells, starts its runs, writes down how far it has come."""

    def __init__(self, store: Store, starter: Starter, known: Known) -> None:
        """Take what is told for `known`."""
        self._store, self._starter, self._known, self._trigger = store, starter, known, known.trigger
        self._state, self._revision = State(), 0
        self.progressed = False
        """Whether anything new was told."""
        self._one_at_a_time = asyncio.Lock()

    async def run(self, plugin: Trigger) -> None:
        """Take what the plugin tells, until it fails; raises what it raises."""
        self._state, self._revision = await self._store.state(self._trigger.id)
        if self._state.since_ns < self._known.since_ns:  # what came before is none of its business
            before = self._state
            fresh = State(
                self._known.since_ns, runs=before.runs, fired=before.fired, why=before.why, rests=before.rests
            )  # fmt: skip
            self._state, self._revision = fresh, await self._store.save(self._trigger.id, fresh, self._revision)
        telling: Any = plugin.firings(self._state.mark)
        async with aclosing(telling):
            async for one in telling:
                await self._take(one)
        raise PluginFailed("its firings came to an end", code="plugin.ended")

    async def recovered(self) -> None:
        """Forget what ailed it."""
        async with self._one_at_a_time:
            if self._state.why:
                await self._save()

    async def _save(self) -> None:
        self._state.why = ""
        self._revision = await self._store.save(self._trigger.id, self._state, self._revision)

    async def _take(self, one: Any) -> None:
        if isinstance(one, Mark):
            mark, fires, new = _marked(one.value), False, False
        else:
            firing = _firing(self._trigger, one)
            mark, fires, new = _marked(one.mark), True, await self._fire(firing)
        async with self._one_at_a_time:
            if new or mark not in (None, self._state.mark):
                self.progressed = True
            rested = self.progressed and self._state.rests.pop(self._starter.node, None) is not None
            if mark is not None:
                self._state.mark = mark
            if mark is not None or self._state.why or rested or (fires and self._trigger.overlap != "allow"):
                await self._save()

    async def _fire(self, firing: envelope.Firing) -> bool:
        """Start its run; what cannot be done now is done in a moment: the plugin must not lose it. False: it was known."""
        while True:
            try:
                if self._trigger.overlap == "queue" and (before := await self._starter.in_the_way(self._state)):
                    await self._over(before)
                    continue
                done = await self._starter.fire(self._trigger, firing, self._state)
            except Conflict:
                raise
            except KnotworkError as error:
                log.debug("a firing of %s is done in a moment: %s", self._trigger.id, error)
                await asyncio.sleep(AGAIN_S)
            else:
                return done.new

    async def _over(self, run: str) -> None:
        try:
            await self._starter.flow.runs.ended(run)
        except NotFound:
            return


def _marked(mark: Any) -> Any:
    """Return a mark as it is kept; raises `PluginFailed` for one that cannot be."""
    try:
        text = msgspec.json.encode(mark)
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginFailed(f"told a mark that is no JSON: {error}", code="plugin.bad_firing") from error
    if len(text) > MARK_MAX_BYTES:
        told = f"told a mark of {len(text)} bytes, {MARK_MAX_BYTES} at most"
        raise PluginFailed(told, code="plugin.bad_firing")
    return msgspec.json.decode(text)


def _firing(trigger: Definition, one: Any) -> envelope.Firing:
    """Return the firing that a plugin tells; raises `PluginFailed` (`plugin.bad_firing`) for what is none."""
    if not isinstance(one, Firing):
        raise PluginFailed(f"told {type(one).__name__}, neither a Firing nor a Mark", code="plugin.bad_firing")
    if not isinstance(one.id, str) or not 1 <= len(one.id) <= ID_MAX:
        raise PluginFailed(f"the id of a firing has 1 to {ID_MAX} characters", code="plugin.bad_firing")
    try:
        body, more = msgspec.json.encode(one.input), msgspec.json.decode(msgspec.json.encode(dict(one.more)))
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginFailed(f"told a firing that is no JSON: {error}", code="plugin.bad_firing") from error
    return envelope.Firing(f"{trigger.id}/{known_as(one.id)}", body, 0, now_ns(), {**more, "id": one.id})


def known_as(name: str) -> str:
    """Return what an id is in a key: itself when it is short and plain, else its digest (pure)."""
    if len(name) <= PLAIN_MAX and name.isascii() and name.isprintable() and " " not in name:
        return name
    return f"sha256-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
