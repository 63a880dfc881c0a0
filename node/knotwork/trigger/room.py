"""How are the triggers of one project wired? Store, clock, streams, files, requests: opened together, closed together."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.bus import clock
from knotwork.bus.background import background, together
from knotwork.flow.facts import SHARDS
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound
from knotwork.trigger import due
from knotwork.trigger.answers import Answers
from knotwork.trigger.arrivals import Arrivals
from knotwork.trigger.envelope import Firing
from knotwork.trigger.firings import Firings
from knotwork.trigger.following import Following
from knotwork.trigger.model import Cron, Definition, Files, Once, Plugin
from knotwork.trigger.starting import Started, Starter, input_json, now_ns
from knotwork.trigger.store import Known, State, Store
from knotwork.trigger.telling import Said, Telling
from knotwork.trigger.timed import Timed
from knotwork.trigger.watching import Watching

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.flow.room import Flow
    from knotwork.sdk.secret import SecretRef
    from knotwork.sockets.slot import Slot
    from knotwork.work.room import Work

LOOK_S = 0.2


class Triggers:
    """Triggers of one project, as this node sees to them. Made by `open_triggers`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        work: Work,
        flow: Flow,
        *,
        node: str,
        read: Callable[[SecretRef], str],
        sources: Callable[[], dict[str, Slot]] = dict,
        said: Said = lambda _name, _told: None,
    ) -> None:
        """Wire the parts."""
        self.connection, self.flow, self.node = connection, flow, node
        self.store = Store(connection, self._changed)
        self.firings = Firings(connection)
        self.starter = Starter(flow, self.firings, node)
        self._timed = Timed(group, self.store, self.starter, self.is_mine)
        self._following = Following(group, connection, self.store, self.starter, self.is_mine)
        self._watching = Watching(group, self.store, self.starter, node, lambda: flow.shards.there)
        self.telling = Telling(group, self.store, self.starter, sources, said=said)
        self.arrivals = Arrivals(connection, self.store, self.starter, Answers(connection, flow, work.values), read)

    async def open(self) -> None:
        """Make the stores."""
        await together(self.store.open(), self.firings.open(), self.arrivals.open())

    async def run(self) -> None:
        """See to the triggers that are ours, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.store.run(), name="triggers")
            group.create_task(self._timed.run(), name="times")
            mine: frozenset[str] | None = None
            while True:
                if (now := self.flow.shards.mine) != mine:
                    mine = now
                    for name in list(self.store.known):
                        self._changed(name)
                self.telling.look()
                await asyncio.sleep(LOOK_S)

    def is_mine(self, name: str) -> bool:
        """Return whether this node sees to a trigger; for a moment two may."""
        known = self.store.known.get(name)
        if known is not None and isinstance(known.trigger, Plugin):
            return self.telling.node_of(known.trigger) == self.node
        return shard(name) in self.flow.shards.mine

    def _changed(self, name: str) -> None:
        self._timed.changed(name)
        self._following.changed(name)
        self._watching.changed(name)
        self.telling.changed(name)

    async def why(self, trigger: Definition, state: State) -> str:
        """Return what keeps a trigger from firing, in words, as far as this node can tell; else an empty text."""
        if isinstance(trigger, Files):
            return await self._watching.why(trigger)
        return self.telling.why(trigger, state)

    # -- by hand -----------------------------------------------------------------------------------------------------

    async def put(
        self,
        trigger: Definition,
        *,
        by: str = "",
        agent: str = "",
        replace: bool = True,
        instead_of: Known | None = None,
    ) -> bool:
        """Keep a trigger; returns whether it is new.

        Raises what the store raises, and `Invalid` for an odd stream (`trigger.no_stream`) or source (`trigger.no_source`).
        """
        await self._following.check(trigger)
        self.telling.check(trigger)
        try:
            await self.store.get(trigger.id)
        except NotFound:
            await self.firings.forget(trigger.id)  # of one that had its name
        except Invalid:  # of a newer version: to be replaced
            pass
        return await self.store.put(
            trigger, now_ns=clock.now_ns(), by=by, agent=agent, replace=replace, instead_of=instead_of
        )

    async def missing(self, named: Mapping[str, str]) -> list[tuple[str, KnotworkError]]:
        """Return what is to be said of each thing that a trigger names and that is not there; `named` by keys of its table.

        Raises what asking raises, such as `Unavailable`.
        """
        found: list[tuple[str, KnotworkError]] = []
        for key, text in named.items():
            try:
                if key == "workflow":
                    await self.flow.definitions.find(text)
                elif key == "subject":
                    await self._following.stream(text, named.get("stream"))
                elif key == "source":
                    self.telling.must_have(text)
            except (Invalid, NotFound) as error:
                found.append(("stream" if key == "subject" and "stream" in named else key, error))
        return found

    async def remove(self, name: str) -> bool:
        """Forget a trigger; its runs go on. False when there was none."""
        gone = await self.store.remove(name)
        if gone:
            await self.firings.forget(name)
        return gone

    async def switch(self, name: str, *, enabled: bool) -> Known:
        """Enable or disable a trigger; what comes while it is disabled is none of its business.

        Raises `NotFound`, and `Conflict` (`trigger.changed`) when somebody else changed it at the same time.
        """
        known = await self.store.get(name)
        if known.trigger.enabled != enabled:
            changed = known.trigger.model_copy(update={"enabled": enabled})
            await self.store.put(changed, now_ns=clock.now_ns(), by=known.by, agent=known.agent, instead_of=known)
        return await self.store.get(name)

    async def fire(self, name: str, body: bytes, key: str = "") -> Started:
        """Fire a trigger by hand, whether it is enabled or not and whatever is in the way."""
        known = await self.store.get(name)
        body = _body(known.trigger, body)
        firing = Firing(f"{name}/by-hand/{key or now_ns()}", body, 0, now_ns(), {"by_hand": True})
        done = await self.starter.start(known.trigger, firing)
        await self.starter.note(known.trigger, firing, done)
        if done.error is not None:
            raise done.error
        return done

    def times(self, trigger: Definition, count: int, since_ns: int) -> list[int]:
        """Return the next times at which a trigger fires, without what is added to each (jitter)."""
        if isinstance(trigger, Once):
            return [trigger.at_ns] if trigger.at_ns > since_ns else []
        if not isinstance(trigger, Cron):
            return []
        found = due.after(trigger.cron, trigger.timezone, since_ns)
        return [time_ns for time_ns, _ in zip(found, range(count), strict=False)]

    async def backfill(self, trigger: Cron, times: list[int]) -> list[Started]:
        """Start the runs of times that are over; those that there were are not started again."""
        found = []
        for time_ns in times:
            key = due.key(trigger.id, time_ns)
            firing = Firing(key, input_json(trigger.input), time_ns, now_ns(), {"input": trigger.input})
            done = await self.starter.start(trigger, firing)
            if done.new:
                await self.starter.note(trigger, firing, done)
            found.append(done)
        return found


def _body(trigger: Definition, body: bytes) -> bytes:
    if body == b"null" and isinstance(trigger, Cron | Once):
        return input_json(trigger.input)
    return body


def shard(name: str) -> str:
    """Return the shard that a trigger goes with, the same everywhere and always."""
    return SHARDS[hashlib.sha256(f"trigger {name}".encode()).digest()[0] % len(SHARDS)]


@asynccontextmanager
async def open_triggers(
    connection: Connection,
    work: Work,
    flow: Flow,
    *,
    node: str,
    read: Callable[[SecretRef], str],
    sources: Callable[[], dict[str, Slot]] = dict,
    said: Said = lambda _name, _told: None,
) -> AsyncIterator[Triggers]:
    """See to the triggers of a project inside the block; `sources` are our plugins for it, by their ids in TOML.

    `said` is told by name and fields what somebody may want to watch.
    """
    async with background() as group:
        triggers = Triggers(group, connection, work, flow, node=node, read=read, sources=sources, said=said)
        await triggers.open()
        group.create_task(triggers.run(), name="triggers")
        yield triggers
