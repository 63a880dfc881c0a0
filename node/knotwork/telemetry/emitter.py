"""How does what happened reach the sinks without anybody waiting for it?

`Emitter.emit` appends to one bounded queue per sink and returns; a pump per sink takes batches from its queue.
A sink that is slow, hangs or raises loses its own records, which are counted, and nobody else's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock
from knotwork.sdk import Event, Metric, Record, Span
from knotwork.telemetry import trace
from knotwork.telemetry.pump import Pump, SinkStats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.sdk import Telemetry

_KINDS: dict[str, type[Event | Span | Metric]] = {"events": Event, "spans": Span, "metrics": Metric}


class Emitter:
    """The one place that records are handed to.

    `wants_events`, `wants_spans`, `wants_metrics` are plain attributes: whether any sink takes such records at all.
    Look at them before building a record on a hot path. Sinks are attached and detached in the loop that `run` runs
    in; `emit` may be called from any thread.
    """

    __slots__ = (
        "_closed", "_group", "_over", "_pumps", "_retiring", "_routes", "_stats",
        "node", "wants_events", "wants_metrics", "wants_spans",
    )  # fmt: skip

    def __init__(self, node: str = "") -> None:
        """Make an emitter without sinks; `node` is written into the events made by `event`."""
        self.node = node
        self.wants_events = self.wants_spans = self.wants_metrics = False
        self._pumps: dict[str, Pump] = {}
        self._retiring: set[Pump] = set()
        self._stats: dict[str, SinkStats] = {}
        self._routes: dict[type, tuple[Pump, ...]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._over = asyncio.Event()
        self._closed = False

    def emit(self, record: Record) -> None:
        """Hand one record to every sink that takes its kind. Never blocks, never raises; drops when a queue is full."""
        for pump in self._routes.get(type(record), ()):
            if len(pump.queue) < pump.queue_max:
                pump.queue.append(record)
            else:
                pump.stats.dropped += 1
            if pump.idle:
                pump.wake()

    __call__ = emit

    def event(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        *,
        level: str = "info",
        project: str = "",
    ) -> None:
        """Emit an `Event` of now, of this node and of the current trace; costs nothing when nobody listens."""
        if self.wants_events:
            made = Event(name, clock.now_ns(), self.node, project, level, data or {}, trace.current.get())  # type: ignore[arg-type]
            self.emit(made)

    def attach(self, id: str, sink: Telemetry, queue_max: int = 10_000) -> None:  # noqa: A002 - the word of the TOML
        """Send records to `sink` from now on, in one step without a wait; `queue_max` is in records.

        A sink that has this id already is replaced: it gets what was queued for it and nothing more (`settle` waits
        for that); the counts of the id go on. A sink may have an attribute `wants`, a set of "events", "spans",
        "metrics", to get these only.
        """
        if self._closed:
            return
        old = self._pumps.pop(id, None)
        if old is not None:
            self._retire(old)
        stats = self._stats.setdefault(id, SinkStats())
        pump = self._pumps[id] = Pump(id, sink, queue_max, stats)
        self._reroute()
        if self._group is not None:
            pump.start(self._group)

    async def detach(self, id: str, timeout_s: float = 2.0) -> None:  # noqa: A002 - the word of the TOML
        """Send nothing more to this sink; returns when it has got what was queued, or after `timeout_s`.

        What is still queued then is counted as dropped. Unknown ids are ignored.
        """
        pump = self._pumps.pop(id, None)
        if pump is None:
            return
        self._reroute()
        self._retire(pump)
        await pump.finish(timeout_s)
        self._retiring.discard(pump)
        if id not in self._pumps:
            self._stats.pop(id, None)

    def drop(self, id: str) -> None:  # noqa: A002 - the word of the TOML
        """Send nothing more to this sink, not even what is queued, which is counted as dropped; for one that is closed.

        Unknown ids are ignored; the counts of the id go on when a sink is attached under it again.
        """
        pump = self._pumps.pop(id, None)
        if pump is not None:
            self._reroute()
            pump.cut()

    async def settle(self, timeout_s: float = 2.0) -> None:
        """Return when every replaced sink has got what was queued for it and may be closed, or after `timeout_s`."""
        async with asyncio.TaskGroup() as group:
            for pump in tuple(self._retiring):
                group.create_task(pump.finish(timeout_s))
        self._retiring = {pump for pump in self._retiring if not pump.over}

    async def flush(self, timeout_s: float = 1.0, only: str = "") -> bool:
        """Wait until the sinks, or `only` the one of this id, have handled what is queued now.

        False when `timeout_s` was not enough.
        """
        try:
            async with asyncio.timeout(timeout_s):
                for id_, pump in tuple(self._pumps.items()):
                    if only in ("", id_):
                        await pump.flushed()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_s: float = 2.0) -> None:
        """Take nothing more, let all sinks finish (`timeout_s` for all together), and end `run`."""
        self._closed = True
        pumps, self._pumps = tuple(self._pumps.values()), {}
        self._reroute()
        for pump in pumps:
            self._retire(pump)
        await self.settle(timeout_s)
        self._over.set()

    async def run(self) -> None:
        """Pump until `close`; run it once, in the host's group. Cancelled, it drops and counts what is queued."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for pump in self._pumps.values():
                    pump.start(group)
                await self._over.wait()
                self._group = None
        finally:
            self._group = None

    def stats(self) -> dict[str, SinkStats]:
        """Return a copy of the counts of every attached sink, by id."""
        return {id_: pump.snapshot() for id_, pump in self._pumps.items()}

    def sinks(self) -> dict[str, Telemetry]:
        """Return the attached sinks, by id."""
        return {id_: pump.sink for id_, pump in self._pumps.items()}

    def _retire(self, pump: Pump) -> None:
        self._retiring = {old for old in self._retiring if not old.over}
        self._retiring.add(pump)
        pump.close()

    def _reroute(self) -> None:
        """Swap the routes as a whole, so that a thread inside `emit` sees the old ones or the new."""
        routes = {
            record: tuple(pump for pump in self._pumps.values() if kind in pump.wants)
            for kind, record in _KINDS.items()
        }
        self._routes = routes
        self.wants_events = bool(routes[Event])
        self.wants_spans = bool(routes[Span])
        self.wants_metrics = bool(routes[Metric])
