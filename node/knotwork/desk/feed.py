"""What happens in a project, for whoever looks on? Work as the server tells it; everything else by looking at what is known.

Directory, targets and launches are kept in memory by watches of their own. They are compared with how they were before
every half second while somebody looks on, which also shows what nobody says: a node that fell silent. Nothing is stored
and nothing repeated; each watcher has a bounded buffer that loses the oldest first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knotwork.bus import digits, patterns, subjects
from knotwork.bus.away import leaves
from knotwork.bus.background import background
from knotwork.bus.reading import Stored
from knotwork.desk.backlog import Backlog
from knotwork.desk.moments import rfc3339
from knotwork.sdk.errors import Busy, KnotworkError
from knotwork.trust.who import Who
from knotwork.work import history, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.ops.ports import NodeControl
    from knotwork.ops.project_replies import Happening

log = logging.getLogger(__name__)
WATCHERS_MAX = 256
LOOK_S = 0.5
STATS_S = 2.0
LOOKED_AT = ("agents", "targets", "spinups", "stats")
_FACT_PARTS, _TASK_PARTS = 5, 8
_OWN = b'"queue":"=='
"""What stands in the outcome of work that is not for the whole project."""
Rows = Mapping[str, dict[str, Any]]


@dataclass(eq=False)
class _Watcher:
    topics: frozenset[str]
    backlog: Backlog[Happening] = field(default_factory=Backlog)


class Feed:
    """What happens in one project (`ops.project_replies.Happenings`). Made by `open_feed`."""

    def __init__(self, project_name: str, connection: Connection, node: NodeControl) -> None:
        """Listen to nothing yet."""
        self._project, self._connection, self._node = project_name, connection, node
        self._name = secrets.token_hex(4)
        self._number = 0
        self._watchers: set[_Watcher] = set()
        self._some = asyncio.Event()
        self._lock = asyncio.Lock()
        self._before: dict[str, Rows] = {}
        self._stats_s = 0.0
        self._listening: list[Any] = []
        self._closed = False

    async def watch(self, topics: frozenset[str], after: str) -> AsyncGenerator[Happening, None]:
        """Yield what happens from now on, for ever."""
        self._check()
        if len(self._watchers) >= WATCHERS_MAX:
            raise Busy(
                f"{WATCHERS_MAX} look on already, which is as many as may.", code="project.too_many_watchers",
                retry_after_s=5.0,
            )  # fmt: skip
        watcher = _Watcher(topics)
        self._watchers.add(watcher)
        try:
            await self._begin(topics)
            yield self._made("feed", "opened", {"topics": sorted(topics), "after": after, "resumed": False})
            while True:
                lost = await watcher.backlog.stirred()
                self._check()
                if lost:
                    yield self._made("feed", "missed", {"count": lost})
                while watcher.backlog.rows:
                    yield watcher.backlog.rows.popleft()
        finally:
            self._watchers.discard(watcher)
            self._forget()

    def _check(self) -> None:
        if self._closed:
            raise leaves("The node", self._project)

    async def _begin(self, topics: frozenset[str]) -> None:
        """See how things are now, and hear what is said from now on."""
        async with self._lock:
            if "work" in topics and not self._listening:
                listen = self._connection.listen
                self._listening = [await listen(patterns.TOLD, self._told), await listen(patterns.TASKS, self._queued)]
                await self._connection.round_trip()
            for topic in topics & {*LOOKED_AT} - self._before.keys():
                self._before[topic] = {} if topic == "stats" else await self._rows(topic)
            if "stats" in topics:  # whoever comes is told the figures at once
                self._before["stats"], self._stats_s = {}, 0.0
        self._some.set()

    def _forget(self) -> None:
        """Look and listen no more than anybody wants."""
        wanted = frozenset[str]().union(*(one.topics for one in self._watchers))
        if "work" not in wanted:
            for one in self._listening:
                self._connection.unlisten(one)
            self._listening = []
        for topic in self._before.keys() - wanted:
            del self._before[topic]
        if not self._before:
            self._some.clear()

    # -- by looking --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look around as long as somebody wants to know, until cancelled."""
        while True:
            await self._some.wait()
            try:
                async with self._lock:
                    await self._look()
            except KnotworkError as error:
                log.debug("%s is looked at again in a moment: %s", self._project, error)
            except Exception:  # whatever is wrong with telling, the project goes on
                log.exception("what happens in %s cannot be told", self._project)
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        for topic in list(self._before):
            if topic == "stats":
                if time.monotonic() < self._stats_s + STATS_S:
                    continue
                self._stats_s = time.monotonic()
            now = await self._rows(topic)
            before = self._before.get(topic)
            if before is None:  # nobody wants to know any more
                continue
            self._before[topic] = now
            for what, row in changes(before, now):
                self._offer(self._made(topic, "figures" if topic == "stats" else what, row))

    async def _rows(self, topic: str) -> Rows:
        """Return how things are now, by a name of their own."""
        from knotwork.ops import project  # with its models: a node starts without them
        from knotwork.ops.ports import AgentFilter

        node, name = self._node, self._project
        if topic == "agents":
            found = await node.mesh(name, Who("", "", name, "")).agents(AgentFilter(states=project.EVERY_STATE))
            return {row.name: row.model_dump() for row in found}
        if topic == "targets":
            return {row.name: row.model_dump() for row in node.targets(name).rows()}
        if topic == "spinups":
            return {row.id: row.model_dump() for row in node.targets(name).launches(ended=True)}
        return {name: (await project.figures(node, name)).model_dump()}

    # -- by listening ------------------------------------------------------------------------------------------------

    def _told(self, message: Message) -> None:
        """Take a fact that was just stored."""
        from knotwork.desk.tasks import rows as task_rows  # the same

        subject = subjects.told_by(message.subject)
        parts = subject.split(".")
        if len(parts) < _FACT_PARTS or not subjects.is_token(parts[2]) or _OWN in message.data:
            return
        for one in history.told(Stored(subject, message.data, 0, rfc3339(None))):
            told = task_rows.transition(one).model_dump(exclude_defaults=True)
            self._offer(self._made("work", one.what, {"id": parts[2], **told}))

    def _queued(self, message: Message) -> None:
        """Take an attempt on its way into a queue; its subject tells all there is to say."""
        parts = message.subject.split(".")
        if len(parts) != _TASK_PARTS:
            return
        _, boundary, route, lane, run, *_ = parts
        iteration, number = digits.read(parts[6]), digits.read(parts[7])
        if iteration is None or number is None:
            return
        if subjects.circle_of(route):  # who looks on is told what the whole project may know
            return
        data = {"id": run, "state": "pending", "route": route, "lane": lane, "attempt": number}
        if boundary != records.NO_BOUNDARY:
            data["boundary"] = boundary
        if iteration:
            data["iteration"] = iteration
        self._offer(self._made("work", "queued", data))

    # -- telling -----------------------------------------------------------------------------------------------------

    def _made(self, topic: Any, what: str, data: dict[str, Any]) -> Happening:
        from knotwork.ops.project_replies import Happening  # the same

        self._number += 1
        return Happening(id=f"{self._name}-{self._number}", topic=topic, what=what, at=rfc3339(None), data=data)

    def _offer(self, row: Happening) -> None:
        for watcher in self._watchers:
            if row.topic in watcher.topics:
                watcher.backlog.offer(row)

    def close(self) -> None:
        """Send everybody away."""
        self._closed = True
        for watcher in self._watchers:
            watcher.backlog.some.set()


def changes(before: Rows, now: Rows) -> list[tuple[str, dict[str, Any]]]:
    """Return what is different: `appeared` and `changed` with the row as it is, `gone` as it was (pure)."""
    found = [("appeared", row) for name, row in now.items() if name not in before]
    found += [("changed", row) for name, row in now.items() if name in before and _held(before[name]) != _held(row)]
    return found + [("gone", row) for name, row in before.items() if name not in now]


def _held(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what counts by itself: the seconds for which a target cools down."""
    return {**row, "why": ""} if row.get("state") == "cooling-down" else row


@asynccontextmanager
async def open_feed(project_name: str, connection: Connection, node: NodeControl) -> AsyncIterator[Feed]:
    """Tell what happens in a project while the block runs."""
    feed = Feed(project_name, connection, node)
    async with background() as group:
        group.create_task(feed.run(), name=f"feed {project_name}")
        try:
            yield feed
        finally:
            feed.close()
