"""Who is watching what happens? A telemetry sink of our own, with one bounded buffer for each watcher."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from knotwork.desk.backlog import Backlog
from knotwork.desk.moments import rfc3339
from knotwork.ops import replies
from knotwork.sdk import Event, Record

if TYPE_CHECKING:
    from knotwork.telemetry.emitter import Emitter


@dataclass(eq=False)
class _Watcher:
    names: tuple[str, ...]
    project: str
    backlog: Backlog[Event] = field(default_factory=Backlog)

    def wants(self, event: Event) -> bool:
        if self.project and event.project not in ("", self.project):
            return False
        if not self.names:
            return True
        room = event.name.partition(".")[0]
        return event.name in self.names or f"{room}.*" in self.names


class Watching:
    """Hands events to whoever watches; attached to the emitter only while somebody does."""

    wants = frozenset({"events"})
    _SINK = "node.events"

    def __init__(self, emitter: Emitter) -> None:
        """Watch nothing yet."""
        self._emitter = emitter
        self._watchers: set[_Watcher] = set()

    async def emit(self, records: Sequence[Record]) -> None:
        """Take a batch (`sdk.Telemetry`)."""
        for record in records:
            if isinstance(record, Event):
                self._offer(record)

    def _offer(self, event: Event) -> None:
        for watcher in self._watchers:
            if watcher.wants(event):
                watcher.backlog.offer(event)

    async def watch(self, names: Sequence[str], project: str) -> AsyncGenerator[replies.EventRow, None]:
        """Yield events as they happen, for ever."""
        watcher = _Watcher(tuple(names), project)
        if not self._watchers:
            self._emitter.attach(self._SINK, self)
        self._watchers.add(watcher)
        try:
            async with aclosing(_rows(watcher.backlog)) as rows:
                async for row in rows:
                    yield row
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                await self._emitter.detach(self._SINK, 0.1)


async def _rows(backlog: Backlog[Event]) -> AsyncGenerator[replies.EventRow, None]:
    while True:
        if lost := await backlog.stirred():
            yield replies.EventRow(name="telemetry.dropped", at=rfc3339(None), level="warning", data={"count": lost})
        while backlog.rows:
            event = backlog.rows.popleft()
            yield replies.EventRow(
                name=event.name,
                at=rfc3339(event.time_ns),
                node=event.node,
                project=event.project,
                level=event.level,
                data=dict(event.data),
                traceparent=event.traceparent,
            )
