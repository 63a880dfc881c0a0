"""How far has each agent read? In READS: its inbox, and its place in each channel; written with compare-and-set.

Places in channels only ever move on, so whoever writes takes the larger of two. They are written a moment after a read
and not waited for: what a crash takes back is only what was marked last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import msgspec

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, Unavailable
from knotwork.talk import inbox_state
from knotwork.talk.inbox_state import InboxState
from knotwork.talk.stores import READS_S

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

log = logging.getLogger(__name__)
TRIES = 20
FLUSH_S = 0.2
AGAIN_S = 1.0
AHEAD_MAX = 10_000
"""Agents whose marks wait to be written, at most."""
Places = dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[int, msgspec.Meta(ge=0, le=10**15)]]
_places = msgspec.json.Decoder(Places)


class Reads:
    """What the agents of one project have read."""

    def __init__(self, connection: Connection) -> None:
        """Keep it over `connection`."""
        self._bucket = kv.Bucket(connection, subjects.READS)
        self._ahead: dict[str, dict[str, int]] = {}
        self._some = asyncio.Event()

    # -- inboxes -----------------------------------------------------------------------------------------------------

    async def inbox(self, agent: str) -> tuple[InboxState, int]:
        """Return how far an agent is with its inbox, and the revision to change that with."""
        entry = await self._bucket.get(_key("inbox", agent))
        if entry is None or entry.value is None:
            return InboxState(), 0
        try:
            return inbox_state.decode(entry.value), entry.revision
        except Invalid as error:
            log.warning("the inbox of %s counts as unread: %s", agent, error)
            return InboxState(), entry.revision

    async def save(self, agent: str, state: InboxState, revision: int) -> None:
        """Write how far an agent is; raises `Conflict` when somebody else wrote since."""
        await self._write(_key("inbox", agent), inbox_state.encode(state), revision)

    async def change(self, agent: str, make: Callable[[InboxState], InboxState]) -> InboxState:
        """Change how far an agent is, whoever else does, too; raises `Unavailable` (`talk.contended`)."""
        for _ in range(TRIES):
            state, revision = await self.inbox(agent)
            changed = make(state)
            if changed == state:
                return state
            try:
                await self.save(agent, changed, revision)
            except Conflict:
                continue
            return changed
        raise contended()

    async def _write(self, key: str, value: bytes, revision: int) -> None:
        if revision:
            await self._bucket.update(key, value, revision, ttl_s=READS_S)
        else:
            await self._bucket.create(key, value, ttl_s=READS_S)

    # -- channels ----------------------------------------------------------------------------------------------------

    async def channels(self, agent: str) -> dict[str, int]:
        """Return up to which place an agent has read each channel; one it never read is not in it."""
        places, _ = await self._channels(agent)
        return _later(places, self._ahead.get(agent, {}))

    async def _channels(self, agent: str) -> tuple[dict[str, int], int]:
        entry = await self._bucket.get(_key("channels", agent))
        if entry is None or entry.value is None:
            return {}, 0
        try:
            return _places.decode(entry.value), entry.revision
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("the channels count as unread for %s: %s", agent, error)
            return {}, entry.revision

    def advance(self, agent: str, channel: str, place: int) -> None:
        """Mark a channel as read up to a place; it is written in a moment."""
        if agent in self._ahead or len(self._ahead) < AHEAD_MAX:
            ahead = self._ahead.setdefault(agent, {})
            ahead[channel] = max(place, ahead.get(channel, 0))
            self._some.set()

    async def mark(self, agent: str, places: dict[str, int]) -> dict[str, int]:
        """Mark channels as read up to these places, and return all; raises `Unavailable` (`talk.contended`)."""
        for _ in range(TRIES):
            before, revision = await self._channels(agent)
            after = _later(before, places)
            if after == before:
                return before
            try:
                await self._write(_key("channels", agent), msgspec.json.encode(after), revision)
            except Conflict:
                continue
            return after
        raise contended()

    async def run(self) -> None:
        """Write what was marked; for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(FLUSH_S)
            self._some.clear()
            for agent, places in list(self._ahead.items()):
                try:
                    await self.mark(agent, dict(places))
                except KnotworkError as error:
                    log.debug("what %s has read is written in a moment: %s", agent, error)
                    await asyncio.sleep(AGAIN_S)
                    self._some.set()
                    break
                if self._ahead.get(agent) == places:
                    del self._ahead[agent]
                else:
                    self._some.set()


def contended() -> Unavailable:
    """Return the error of a record that others change all the time."""
    return Unavailable("Too many change this at the same time.", code="talk.contended", retry_after_s=0.5)


def _later(some: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    return {name: max(some.get(name, 0), others.get(name, 0)) for name in {**some, **others}}


def _key(what: str, agent: str) -> str:
    return f"{what}.{subjects.token(agent, 'agent id')}"
