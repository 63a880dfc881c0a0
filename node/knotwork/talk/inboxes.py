"""What is in an agent's inbox? Its messages as they lie in the stream, chosen by what the agent wants and has read.

Reading takes nothing out: it is written down that a message was shown, before it is, so that of two readers only one
gets it; what a filter passes over stays unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from knotwork.bus import clock, patterns, reading, subjects
from knotwork.bus.background import begin_in
from knotwork.bus.fitting import ANSWER_MAX_BYTES
from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound
from knotwork.talk import inbox_state, message
from knotwork.talk.inbox_state import InboxState, Wish
from knotwork.talk.message import Said
from knotwork.talk.reads import contended
from knotwork.talk.stores import INBOX_MAX

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.talk.reads import Reads
    from knotwork.trust.who import Who

log = logging.getLogger(__name__)
TRIES = 20
BATCH = 200
POLL_S = 5.0
"""Who waits looks again after so long, should he not have been told."""
AWAY_S = 0.3
"""The same when it could not be looked just now: NATS is away."""
TAKE_BACK_S, TAKE_BACK_TRIES = 0.5, 240
BACKS_S = 2.0
"""How long a reader waits for messages that are just being made unread again, in seconds; longer only without NATS."""
MAKE_ROOM = 100
"""So many messages that were read go at once when there is no room."""
FULL_S = 0.5
"""An inbox that was found full counts as full for so long."""
ROOMS_MAX = 1000
"""Full inboxes that are remembered."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What an agent is shown. `state` is how its inbox is then, `unread` how many are left.

    `more` says that there are others that are wanted.
    """

    messages: list[Said]
    state: InboxState
    unread: int = 0
    more: bool = False

    @property
    def after(self) -> int:
        """Return the place of the last of them."""
        return self.messages[-1].place if self.messages else 0


class Inboxes:
    """The inboxes of one project."""

    def __init__(self, connection: Connection, reads: Reads, group: asyncio.TaskGroup) -> None:
        """Read over `connection`; what need not be waited for runs in `group`."""
        self._connection, self._reads, self._group = connection, reads, group
        self._shown: dict[str, int] = {}
        self._rooms: dict[str, _Room] = {}
        self._backs: dict[str, set[asyncio.Task[None]]] = {}

    async def read(self, agent: str, wish: Wish, *, mark: bool = True) -> Shown:
        """Return messages to an agent, and write down that it got them unless `mark` is off.

        Raises what the stream's reading raises, `Unavailable` (`talk.contended`).
        """
        if agent in self._backs:  # who asks again with a key would be shown now what is unread again a moment later
            await asyncio.wait(self._backs[agent], timeout=BACKS_S)
        for _ in range(TRIES):
            before, revision = await self._reads.inbox(agent)
            state, now_ns = inbox_state.settled(before), clock.now_ns()
            if wish.key in state.keyed:
                again = await self._at(agent, state.keyed[wish.key])
                return Shown(again, state, await self._unread(agent, state))
            found, seen, more = await self._scan(agent, state, wish, now_ns)
            if not mark or not found:
                return Shown(found, state, await self._unread(agent, state), more)
            changed = inbox_state.starting(inbox_state.after_showing(state, found, now_ns), seen)
            changed = inbox_state.after_keying(changed, wish.key, found)
            try:
                await self._reads.save(agent, changed, revision)
                unread = await self._unread(agent, changed)
            except Conflict:
                continue
            except BaseException:  # cancelled, too: nobody gets the answer, and it is written, or will be in a moment
                new = [one.place for one in found if not state.is_done(one.place)]
                self._begin_to_take_back(agent, new, (state, revision))
                raise
            if agent in self._rooms:
                self._rooms[agent].full_until_s = 0.0
            self._tidy_soon(agent, len(found))
            return Shown(found, state, unread, more)
        raise contended()

    async def _at(self, agent: str, places: Sequence[int]) -> list[Said]:
        """Return the messages at some places of an inbox, without those that are not there any more."""
        found, now_ns = [], clock.now_ns()
        for place in places:
            said = await self._one(subjects.inbox(agent), place)
            if said is not None and not inbox_state.expired(said, now_ns):
                found.append(said)
        return found

    async def _one(self, subject: str, place: int) -> Said | None:
        """Return the message at a place, None for nothing."""
        found = await reading.at(self._connection, subjects.INBOXES, subject, place)
        return message.said(found.subject, found.data, found.seq, found.time_ns) if found is not None else None

    async def _scan(self, agent: str, state: InboxState, wish: Wish, now_ns: int) -> tuple[list[Said], list[int], bool]:
        """Return what is wanted, which places were seen behind what is clear, and whether more is wanted than returned."""
        found: list[Said] = []
        seen: list[int] = []
        start, more = (wish.after if wish.all else max(state.clear, wish.after)), False
        done = sum(place > state.clear for place in state.done)
        batch = BATCH if wish.urgent else min(BATCH, wish.limit + 1 + done)
        async for one in self._each(agent, start, batch):
            if start == state.clear and not inbox_state.expired(one, now_ns):
                seen.append(one.place)
            if inbox_state.wanted(state, one, wish, now_ns):
                found.append(one)
                if len(found) > wish.limit and not wish.urgent:
                    more = True
                    break
                if len(found) >= 2 * wish.limit:  # of an inbox full of large ones only these are held
                    found = inbox_state.picked(found, wish, ANSWER_MAX_BYTES)
                    more = True
        chosen = inbox_state.picked(found, wish, ANSWER_MAX_BYTES)
        return chosen, seen, more or len(chosen) < len(found)

    async def _each(self, agent: str, after: int, batch: int = BATCH) -> AsyncIterator[Said]:
        """Yield the messages of an inbox behind a place, in order."""
        subject = subjects.inbox(agent)
        while True:
            stored = await reading.batch(self._connection, subjects.INBOXES, subject, after + 1, batch)
            for one in stored:
                said = message.said(one.subject, one.data, one.seq, one.time_ns)
                if said is not None:
                    yield said
            if not stored or (len(stored) < batch and sum(len(one.data) for one in stored) < ANSWER_MAX_BYTES):
                return
            after, batch = stored[-1].seq, BATCH

    async def _unread(self, agent: str, state: InboxState) -> int:
        """Return how many messages there are to be shown; a few less while some that were read are just being let go."""
        start = state.clear
        count = await reading.count_from(self._connection, subjects.INBOXES, subjects.inbox(agent), start + 1)
        gone = {*state.done, *inbox_state.resting(state, clock.now_ns())}
        return max(0, count - sum(place > start for place in gone))

    async def all(self, agent: str) -> AsyncIterator[Said]:
        """Yield every message of an inbox, the oldest first."""
        async for one in self._each(agent, 0):
            yield one

    async def unread(self, agent: str) -> int:
        """Return how many messages of an inbox there are to be shown."""
        state, _ = await self._reads.inbox(agent)
        start = state.clear
        if not any(place > start for place in state.done):
            return await self._unread(agent, state)
        now_ns, wish = clock.now_ns(), inbox_state.Wish()
        return len([one async for one in self._each(agent, start) if inbox_state.wanted(state, one, wish, now_ns)])

    async def wait(self, agent: str, wish: Wish, wait_s: float, *, mark: bool = True) -> Shown:
        """Return messages as soon as there are some, none after `wait_s` seconds."""
        loop = asyncio.get_running_loop()
        end_s, news = loop.time() + wait_s, asyncio.Event()
        heard = subjects.heard(subjects.inbox(agent))
        listening = await self._connection.listen(heard, lambda _message: news.set())
        try:
            while True:
                news.clear()
                pause_s = POLL_S
                try:
                    shown = await self.read(agent, wish, mark=mark)
                    if shown.messages or loop.time() >= end_s:
                        return shown
                except KnotworkError as error:
                    if not error.retriable or loop.time() >= end_s:
                        raise
                    pause_s = AWAY_S
                await set_within(news, min(max(0.0, end_s - loop.time()), pause_s))
        finally:
            self._connection.unlisten(listening)

    def take_back_soon(self, agent: str, shown: list[Said]) -> None:
        """Let messages be unread again, as soon as that can be written down: nobody got the answer they were in."""
        self._begin_to_take_back(agent, [one.place for one in shown])

    def _begin_to_take_back(self, agent: str, places: list[int], before: tuple[InboxState, int] | None = None) -> None:
        task = begin_in(self._group, self._take_back(agent, places, before))
        if task is None:
            return
        self._backs.setdefault(agent, set()).add(task)
        task.add_done_callback(lambda _: self._taken_back(agent, task))

    def _taken_back(self, agent: str, task: asyncio.Task[None]) -> None:
        self._backs[agent].discard(task)
        if not self._backs[agent]:
            del self._backs[agent]

    async def _take_back(self, agent: str, places: list[int], before: tuple[InboxState, int] | None = None) -> None:
        """Let messages be unread again; `before` is the state, and its revision, that they may just be taken from."""
        for _ in range(TAKE_BACK_TRIES):
            try:
                if before is None or not await self._forestalled(agent, *before):
                    await self._reads.change(agent, lambda state: inbox_state.after_taking_back(state, places))
            except KnotworkError as error:
                log.debug("messages of %s are unread again in a moment: %s", agent, error)
                await asyncio.sleep(TAKE_BACK_S)
            else:
                return
        log.warning("%d messages of %s count as read, and nobody got them", len(places), agent)

    async def _forestalled(self, agent: str, state: InboxState, revision: int) -> bool:
        """Write a state once more; return whether what may be on its way in its place comes too late now."""
        try:
            await self._reads.save(agent, state, revision)
        except Conflict:
            return False
        return True

    async def get(self, place: int, who: Who) -> Said:
        """Return a message that somebody got or sent; raises `NotFound` (`message.not_found`)."""
        said = await self._one(patterns.INBOXES, place)
        if said is None or inbox_state.expired(said, clock.now_ns()) or who.id not in (said.to, said.envelope.sender):
            raise message.unknown(message.name("inbox", place))
        return said

    async def let_in(self, agent: str, post: str) -> bool:
        """Return whether a message from another project, by its name there, is in an inbox."""
        async for one in self.all(agent):
            if one.envelope.post == post:
                return True
        return False

    async def state(self, agent: str) -> InboxState:
        """Return how far an agent is with its inbox."""
        return (await self._reads.inbox(agent))[0]

    async def ack(self, who: Who, places: list[int]) -> list[Said]:
        """Acknowledge messages, or mark them as read; raises `NotFound` (`message.not_found`) and changes nothing then."""
        found = [await self.get(place, who) for place in places]
        for one in found:
            if one.to != who.id:
                raise message.unknown(one.id)
        await self._reads.change(who.id, lambda state: inbox_state.after_ack(state, places))
        return found

    # -- room --------------------------------------------------------------------------------------------------------

    def _tidy_soon(self, agent: str, shown: int) -> None:
        """Let an inbox not become full of what was read: a sender would have to make room first."""
        self._shown[agent] = self._shown.get(agent, 0) + shown
        if self._shown[agent] >= MAKE_ROOM or len(self._shown) > ROOMS_MAX:
            del self._shown[agent]
            begin_in(self._group, self._tidy(agent))

    async def _tidy(self, agent: str) -> None:
        subject = subjects.inbox(agent)
        with contextlib.suppress(KnotworkError):
            for _ in range(INBOX_MAX // MAKE_ROOM):
                count = await reading.count_from(self._connection, subjects.INBOXES, subject, 1)
                if count <= INBOX_MAX // 2 or not await self.make_room(agent):
                    return

    def is_full(self, agent: str) -> bool:
        """Return whether an inbox was found full a moment ago, and was not read here since.

        One that goes on sending to it does not hold up what others send with him then.
        """
        room = self._rooms.get(agent)
        return room is not None and time.monotonic() < room.full_until_s

    async def make_room(self, agent: str) -> bool:
        """Let some messages go that are done, the oldest first; returns whether there is room now.

        Of many who find an inbox full at the same time one makes room for all.
        """
        room = self._rooms.setdefault(agent, _Room())
        made = room.made
        room.wanted += 1
        try:
            async with room.lock:
                return room.made != made or await self._make_room(agent, room)
        finally:
            room.wanted -= 1
            if len(self._rooms) > ROOMS_MAX and not room.wanted:
                self._rooms.pop(agent, None)

    async def _make_room(self, agent: str, room: _Room) -> bool:
        state, revision = await self._reads.inbox(agent)
        if room.none_at == revision:
            room.full_until_s = time.monotonic() + FULL_S
            return False  # nothing was read since we looked in vain
        subject, upto = subjects.inbox(agent), state.floor
        for one in await reading.batch(self._connection, subjects.INBOXES, subject, 1, MAKE_ROOM):
            if not state.is_done(one.seq):
                break
            upto = one.seq
        gone = await reading.purge(self._connection, subjects.INBOXES, subject, upto + 1)
        if not gone and state.done:
            single = state.done[:MAKE_ROOM]
            for place in single:
                with contextlib.suppress(NotFound):
                    await self._delete(agent, place)
                    gone += 1
            await self._reads.change(agent, lambda now: inbox_state.after_forgetting(now, single))
        room.none_at = None if gone else revision
        room.full_until_s = 0.0 if gone else time.monotonic() + FULL_S
        room.made += bool(gone)
        return gone > 0

    async def _delete(self, agent: str, place: int) -> None:
        if await reading.at(self._connection, subjects.INBOXES, subjects.inbox(agent), place) is None:
            # places come from a record: never delete what is somebody else's
            raise message.unknown(message.name("inbox", place))
        await reading.delete(self._connection, subjects.INBOXES, place)


@dataclass(slots=True)
class _Room:
    """Who makes room in one inbox: how often it was made, and the revision at which there was none to be made."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    made: int = 0
    wanted: int = 0
    none_at: int | None = None
    full_until_s: float = 0.0
