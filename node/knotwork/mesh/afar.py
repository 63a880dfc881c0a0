"""Which agents of other projects may be seen from here? Those whose scope reaches beyond their project, told in COMMONS.

Each node tells of its own agents, whatever their project, in a bucket that all nodes watch, and gives a sign of life
beside them: agents of a node that is silent are offline. What an agent looks like there is what its project knows of
it; who may see it is decided where somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from knotwork.bus import clock, kv, subjects
from knotwork.bus.background import together
from knotwork.bus.waits import set_within
from knotwork.mesh import session_records as rules
from knotwork.sdk.errors import Invalid, KnotworkError
from knotwork.trust.scopes import may_see, reaches_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket, Entry
    from knotwork.mesh.session_records import AgentSession
    from knotwork.trust.who import Who

log = logging.getLogger(__name__)
BEAT_S, BEAT_KEPT_S = 10.0, 35
"""How often a node that has such agents gives a sign of life, and for how long it counts, in seconds."""
AGAIN_S = 0.5
_AGENT, _NODE = "agent.", "node."


class Afar:
    """The agents of all projects that may be seen from others. One for each node; `run` it beside the projects."""

    def __init__(self, node: str, instance: str) -> None:
        """Tell of the agents of `node`, as the process `instance`; nothing is known yet."""
        self._node, self._instance = node, instance
        self._known: dict[str, AgentSession] = {}
        self._by_name: dict[tuple[str, str], str] = {}
        self._beats: dict[str, str] = {}
        self._ours: dict[str, AgentSession] = {}
        self._news: dict[str, AgentSession | None] = {}
        self._stirred = asyncio.Event()

    # -- who is there ------------------------------------------------------------------------------------------------

    def seen_by(self, by: Who) -> Iterator[tuple[AgentSession, rules.Presence]]:
        """Yield the agents of other projects that somebody may see, with how they are."""
        for record in list(self._known.values()):
            if record.project != by.project and may_see(record.scope, record.who, by):
                yield record, self.presence(record)

    def with_capability(self, capability: str, by: Who) -> list[Who]:
        """Return the agents of other projects that somebody may see, that can do something and are not offline."""
        return [
            record.who
            for record, presence in self.seen_by(by)
            if capability in record.capabilities and record.registered and presence != "offline"
        ]

    def find(self, name: str, by: Who) -> AgentSession | None:
        """Return an agent of another project by id or `handle@project`; None when there is none that `by` may see.

        It may be a handle that it had, as within its project: its messages bear that name.
        """
        handle, _, project = name.partition("@")
        if project and (project, handle) not in self._by_name:
            record = self._formerly(project, handle)
        else:
            record = self._known.get(self._by_name[project, handle] if project else name)
        if record is None or record.project == by.project or not may_see(record.scope, record.who, by):
            return None
        return record

    def _formerly(self, project: str, handle: str) -> AgentSession | None:
        """Return the agent that had a handle which nobody has now, None when that is not one alone."""
        had = [one for one in self._known.values() if one.project == project and handle in one.formerly]
        return had[0] if len(had) == 1 else None

    def presence(self, record: AgentSession) -> rules.Presence:
        """Return how an agent is, as far as it is told here."""
        beat = self._beats.get(record.node)
        state = "offline" if beat is None else "online"
        return rules.presence(record, node=state, same_instance=beat == record.instance, now_ns=clock.now_ns())

    # -- our own -----------------------------------------------------------------------------------------------------

    def tell(self, record: AgentSession) -> None:
        """Tell of an agent of ours as it is now, soon; or let others forget it, when it is its project's alone."""
        if reaches_out(record.scope):
            self._ours[record.id] = self._news[record.id] = record
            self._heard(record)
        elif record.id in self._ours or record.id in self._known:
            self._ours.pop(record.id, None)
            self._news[record.id] = None
            self._gone(record.id)
        self._stirred.set()

    async def run(self, commons: Callable[[], Connection | None]) -> None:
        """Tell and listen over the connection to COMMONS, for ever; not at all where there is none."""
        while (connection := commons()) is not None:
            try:
                await connection.wait_connected()
                await self._attend(await kv.open_bucket(connection, subjects.AGENTS))
            except KnotworkError as error:
                log.debug("agents of other projects are looked for in a moment: %s", error)
            await asyncio.sleep(AGAIN_S)

    async def _attend(self, bucket: Bucket) -> None:
        self._news |= dict(self._ours)
        await together(bucket.watch(self._entry, lambda: None), self._tell(bucket))

    async def _tell(self, bucket: Bucket) -> None:
        beaten_s = 0.0
        while True:
            self._stirred.clear()
            while self._news:
                agent, record = next(iter(self._news.items()))
                if record is None:
                    await bucket.delete(_AGENT + agent, ttl_s=rules.FORGET_S)
                else:
                    await bucket.put(_AGENT + agent, rules.encode(record), ttl_s=rules.FORGET_S)
                if self._news.get(agent) is record:
                    del self._news[agent]
            if self._ours and time.monotonic() - beaten_s >= BEAT_S:
                await bucket.put(_NODE + self._node, self._instance.encode(), ttl_s=BEAT_KEPT_S)
                beaten_s = time.monotonic()
            await set_within(self._stirred, BEAT_S / 4)

    # -- what is heard -----------------------------------------------------------------------------------------------

    def _entry(self, entry: Entry) -> None:
        kind, _, name = entry.key.partition(".")
        if kind == "node" and entry.value is None:
            self._beats.pop(name, None)
        elif kind == "node" and entry.value is not None:
            self._beats[name] = entry.value.decode("ascii", "replace")[:256]
        elif kind == "agent" and name not in self._ours:  # nobody knows better than we do
            if entry.value is None:
                self._gone(name)
                return
            try:
                record = rules.decode(name, entry.value)
            except Invalid as error:
                log.warning("%s", error)
                return
            if reaches_out(record.scope):
                self._heard(record)

    def _heard(self, record: AgentSession) -> None:
        self._gone(record.id)
        self._known[record.id] = record
        self._by_name[record.project, record.handle] = record.id

    def _gone(self, agent: str) -> None:
        before = self._known.pop(agent, None)
        if before is not None and self._by_name.get((before.project, before.handle)) == agent:
            del self._by_name[before.project, before.handle]
