"""Which messages of a stream start runs? The node that the trigger is with reads on from where it, or another, has come.

A message's run is known by its place in the stream, so it is one run whoever starts it. What is gathered (batch,
debounce) is written down before it is started: all nodes agree on what belongs together.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import TYPE_CHECKING

from knotwork.bus import reading, streams
from knotwork.bus.background import to_its_end, together
from knotwork.bus.pauses import comes_again
from knotwork.bus.reader import reader_of
from knotwork.bus.waits import set_within
from knotwork.flow import expressions
from knotwork.sdk.errors import Invalid, NotFound
from knotwork.trigger import envelope
from knotwork.trigger.envelope import Firing
from knotwork.trigger.model import Definition, Subject
from knotwork.trigger.starting import Starter, now_ns
from knotwork.trigger.store import Pending, State, Window
from knotwork.trigger.tended import Tended

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.reader import Reader
    from knotwork.bus.reading import Stored
    from knotwork.trigger.store import Known, Store

log = logging.getLogger(__name__)
S = 1_000_000_000
BATCH, AT_ONCE = 256, 32
LOOK_S = 1.0
AGAIN_S = 0.5
WINDOWS_MAX = 1000
"""Keys that are waited for at a time; with more, the oldest is not waited for any longer."""
TOGETHER_MAX_BYTES = 32 * 1024 * 1024
"""How much one run is given of messages; a larger input could not be kept."""


class Following:
    """The triggers of this node that fire for messages."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        store: Store,
        starter: Starter,
        mine: Callable[[str], bool],
    ) -> None:
        """Fire those of `store` that are `mine`, in tasks of `group`."""
        self._group, self._connection, self._store = group, connection, store
        self._starter, self._mine = starter, mine
        self._tended = Tended(group, self._surely)

    def changed(self, name: str) -> None:
        """Begin or end following, as it should be now."""
        known = self._store.known.get(name)
        if known is not None and not (
            isinstance(known.trigger, Subject) and known.trigger.enabled and self._mine(name)
        ):
            known = None
        self._tended.settle(name, known)

    async def check(self, trigger: Definition) -> None:
        """Raise `Invalid` (`trigger.no_stream`) for a trigger whose messages are kept nowhere."""
        if isinstance(trigger, Subject):
            await self.stream(trigger.subject, trigger.stream)

    async def stream(self, subject: str, stream: str | None) -> str:
        """Return the stream that takes a subject, the one named if one is; raises `Invalid` (`trigger.no_stream`)."""
        found = await streams.api(self._connection, "STREAM.NAMES", {"subject": subject})
        names = [str(one) for one in found.get("streams") or []]
        if stream is None and len(names) == 1:
            return names[0]
        if stream is not None and stream in names:
            return stream
        why = f"{', '.join(names)} do: say which" if len(names) > 1 else "none does"
        raise Invalid(
            f"{stream or 'One stream'} must take the subject {subject!r}, and {why}.",
            code="trigger.no_stream", hint="Publish events (`knotwork event publish`), or make a stream for the subject.",
        )  # fmt: skip

    async def _surely(self, known: Known) -> None:
        """Follow, whatever happens, until cancelled."""
        news = asyncio.Event()
        subject = known.trigger.subject if isinstance(known.trigger, Subject) else ""
        listening = await self._connection.listen(subject, lambda _: news.set())
        try:
            while True:
                with comes_again(f"seeing to the trigger {known.trigger.id}"):  # perhaps another node does, too
                    await self._follow(known, news)
                await asyncio.sleep(AGAIN_S)
        finally:
            self._connection.unlisten(listening)

    async def _follow(self, known: Known, news: asyncio.Event) -> None:
        trigger = known.trigger
        assert isinstance(trigger, Subject)
        reader = await reader_of(self._connection, await self.stream(trigger.subject, trigger.stream))
        one = _Follower(self._group, self._store, self._starter, known, reader)
        await one.begin()
        while True:
            news.clear()
            if await one.step():
                continue
            await set_within(news, one.pause_s())


class _Follower:
    """One trigger being followed: reads, decides, writes down, starts."""

    def __init__(self, group: asyncio.TaskGroup, store: Store, starter: Starter, known: Known, reader: Reader) -> None:
        assert isinstance(known.trigger, Subject)
        self._group, self._connection, self._store, self._starter = group, starter.flow.connection, store, starter
        self._known, self._trigger, self._reader, self._stream = known, known.trigger, reader, reader.stream
        self._state, self._revision = State(), 0

    async def begin(self) -> None:
        """Go on from where it has come."""
        self._state, self._revision = await self._store.state(self._trigger.id)
        self._sort_out()
        state, known = self._state, self._known
        if state.place == 0 or state.since_ns < known.since_ns:
            all_of_them = state.place == 0 and self._trigger.begin == "all"
            place = 1 if all_of_them else await self._place_at(known.since_ns)
            state.place, state.since_ns = max(state.place, place), known.since_ns
            await self._save()
        elif state.place > (newest := await reading.last_seq(self._connection, self._stream)) + 1:
            log.warning("the stream %s begins anew: %d is its last", self._stream, newest)
            state.place = 1
            await self._save()

    def _sort_out(self) -> None:
        """Leave what is of another stream, or of times, behind; deal one by one with what is not gathered any more."""
        state, of = self._state, f"{self._stream} {self._trigger.subject}"
        if not state.place or state.of not in ("", of):
            self._state = state = State(
                runs=state.runs, fired=state.fired, last_ns=state.last_ns, why=state.why, rests=state.rests
            )
        state.of = of
        if self._trigger.batch is None and self._trigger.debounce is None:
            left = [one.messages for one in state.pending] + [one.messages for one in state.windows.values()]
            state.pending = [Pending("", messages=[seq]) for seq in sorted({seq for some in left for seq in some})]
            state.windows = {}

    async def _place_at(self, time_ns: int) -> int:
        return max(1, await self._reader.place_at(self._trigger.subject, time_ns))

    async def _save(self) -> None:
        self._revision = await self._store.save(self._trigger.id, self._state, self._revision)

    def pause_s(self) -> float:
        """Return how long nothing need be done unless a message comes."""
        closes_ns = min((self._closes_ns(one) for one in self._state.windows.values()), default=0)
        return min(LOOK_S, max(0.0, (closes_ns - now_ns()) / S)) if closes_ns else LOOK_S

    async def step(self) -> bool:
        """Deal with the next messages; returns whether there may be more."""
        state, trigger = self._state, self._trigger
        await self._work_off()
        found = await self._reader.batch(trigger.subject, state.place, BATCH)
        if trigger.batch is None and trigger.debounce is None:
            firings = [self._firing(stored) for stored in found]
            await self._fire_all([firing for firing in firings if envelope.is_meant(trigger, firing)])
            if found:
                state.place = found[-1].seq + 1
                await self._save()
            return bool(found)
        for stored in found:
            self._gather(stored)
            state.place = stored.seq + 1
        closed = self._close(drained=not found)
        if found or closed:
            await self._save()
        await self._work_off()
        return bool(found)

    async def _work_off(self) -> None:
        """Fire for what is decided."""
        pending = self._state.pending
        while pending:
            gathered = await self._gathered(pending[0])
            if gathered is not None:
                await self._turn_of_next()
            await to_its_end(self._group, self._settle_first(gathered))

    async def _settle_first(self, gathered: Firing | None) -> None:
        """Fire for the first that is decided, None for nothing, and write down that it is done."""
        if gathered is not None:
            await self._fire(gathered)
        self._state.pending.pop(0)
        await self._save()

    async def _fire_all(self, firings: list[Firing]) -> None:
        many = AT_ONCE if self._trigger.overlap == "allow" else 1
        for begin in range(0, len(firings), many):
            await self._turn_of_next()
            await to_its_end(self._group, self._fire_some(firings[begin : begin + many]))

    async def _fire_some(self, firings: list[Firing]) -> None:
        """Fire for messages, and write down that these are done: whoever goes on from here does not begin with them."""
        await together(*(self._fire(firing) for firing in firings))
        self._state.place = int(firings[-1].more["number"]) + 1
        await self._save()

    async def _turn_of_next(self) -> None:
        """Wait for the run before, where runs wait for each other."""
        while self._trigger.overlap == "queue" and (before := await self._starter.in_the_way(self._state)):
            with contextlib.suppress(NotFound):
                await self._starter.flow.runs.ended(before)

    async def _fire(self, firing: Firing) -> None:
        await self._starter.fire(self._trigger, firing, self._state)

    def _firing(self, stored: Stored) -> Firing:
        key = f"{self._trigger.id}/{self._stream}-{stored.seq}-{stored.time_ns}"
        more = {"subject": stored.subject, "stream": self._stream, "number": stored.seq, "stored_at": stored.time}
        return Firing(key, envelope.as_json(stored.data), 0, now_ns(), more)

    # -- what belongs together ---------------------------------------------------------------------------------------

    def _gather(self, stored: Stored) -> None:
        trigger, windows = self._trigger, self._state.windows
        firing = self._firing(stored)
        if not envelope.is_meant(trigger, firing):
            return
        if trigger.debounce is None:
            if "" in windows and windows[""].size + len(firing.body) > TOGETHER_MAX_BYTES:
                self._end("")
            window = windows.setdefault("", Window(stored.time_ns, stored.time_ns))
            window.messages.append(stored.seq)
            window.last_ns, window.size = stored.time_ns, window.size + len(firing.body)
            assert trigger.batch is not None
            if len(window.messages) >= trigger.batch.count:
                self._end("")
            return
        name = self._name(firing)
        if name in windows and stored.time_ns > self._closes_ns(windows[name]):
            self._end(name)
        first_ns = windows[name].first_ns if name in windows else stored.time_ns
        windows[name] = Window(first_ns, stored.time_ns, [stored.seq])
        if len(windows) > WINDOWS_MAX:
            self._end(min(windows, key=lambda one: windows[one].first_ns))

    def _name(self, firing: Firing) -> str:
        assert self._trigger.debounce is not None
        if self._trigger.debounce.key is None:
            return ""
        try:
            value = expressions.evaluate(self._trigger.debounce.key, envelope.seen(self._trigger, firing))
        except Invalid:
            value = None
        return hashlib.sha256(expressions.as_key(value)).hexdigest()[:16]

    def _closes_ns(self, window: Window) -> int:
        trigger = self._trigger
        if trigger.debounce is None:
            assert trigger.batch is not None
            return window.first_ns + int(trigger.batch.within * S)
        quiet_ns = window.last_ns + int(trigger.debounce.quiet * S)
        return min(quiet_ns, window.first_ns + int(trigger.debounce.max_wait * S))

    def _close(self, *, drained: bool) -> bool:
        """End what is complete; what more of it may stand in the stream, only when all was read."""
        now = now_ns()
        over = [name for name, one in self._state.windows.items() if drained and self._closes_ns(one) <= now]
        for name in over:
            self._end(name)
        return bool(over or self._state.pending)

    def _end(self, name: str) -> None:
        window = self._state.windows.pop(name)
        key = f"{self._trigger.id}/{self._stream}-{window.messages[0]}-{window.messages[-1]}-{window.last_ns}"
        self._state.pending.append(Pending(key, 0, 0, window.messages))

    async def _gathered(self, one: Pending) -> Firing | None:
        """Return the firing of what belongs together, None when none of it is there any more."""
        found = []
        for seq in one.messages:
            stored = await self._reader.batch(self._trigger.subject, seq, 1)
            if stored and stored[0].seq == seq:
                found.append(stored[0])
        if not found:
            return None
        last = self._firing(found[-1])
        body = last.body
        if self._trigger.batch is not None:
            body = b"[" + b",".join(envelope.as_json(stored.data) for stored in found) + b"]"
        return Firing(one.key or last.key, body, 0, last.fired_ns, {**last.more, "count": len(found)})
