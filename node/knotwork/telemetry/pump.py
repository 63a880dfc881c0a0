"""How does one sink get its batches? A bounded queue, one task, and an end that is bounded in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from knotwork.sockets import raised

if TYPE_CHECKING:
    from knotwork.sdk import Record, Telemetry

BATCH_MAX = 512
LINGER_S = 0.05  # how long the first record waits for company; at 16,000 records/s that fills a batch
SEND_TIMEOUT_S = 30.0
_LOG_EVERY_S = 30.0
_KINDS = frozenset({"events", "spans", "metrics"})
_log = logging.getLogger("knotwork.telemetry")


@dataclass(slots=True)
class SinkStats:
    """Counts of one sink in records: given to it, dropped before it (queue full, or it left), lost by it; and waiting."""

    sent: int = 0
    dropped: int = 0
    failed: int = 0
    queued: int = 0
    last_error: str = ""


class Pump:
    """One sink and its queue. `emit` touches `queue`, `queue_max`, `stats.dropped`, `idle` and `wake`, the rest is its own."""

    __slots__ = (
        "_closing", "_done", "_hurry", "_loop", "_quiet_until_s", "_ready", "_sending", "_task", "_waiters",
        "handled", "id", "idle", "queue", "queue_max", "sink", "stats", "wants",
    )  # fmt: skip

    def __init__(self, id_: str, sink: Telemetry, queue_max: int, stats: SinkStats) -> None:
        """Make it; nothing is sent before `start`. Each pump counts into the `stats` it is given."""
        self.id = id_
        self.sink = sink
        self.queue: deque[Record] = deque()
        self.queue_max = queue_max
        self.stats = stats
        self.idle = False
        self.wants: frozenset[str] = _wanted(sink)
        self.handled = 0
        self._sending = 0
        self._closing = False
        self._ready, self._hurry, self._done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._quiet_until_s = 0.0

    @property
    def over(self) -> bool:
        """Whether the sink will get nothing more and may be closed."""
        return self._done.is_set()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin to send, in a task of `group`."""
        if self._task is None and not self.over:
            self._loop = asyncio.get_running_loop()
            self._task = group.create_task(self._run(), name=f"telemetry {self.id}")

    def wake(self) -> None:
        """End the idling; called from any thread, once per idle time."""
        self.idle = False
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._ready.set)
            except RuntimeError:  # the loop is closed: nobody is left to send anything
                self._loop = None

    def close(self) -> None:
        """Ask for the end: what is queued is sent at once, then the pump is over."""
        self._closing = True
        self._hurry.set()
        self._ready.set()
        if self._task is None:
            self._end()

    async def finish(self, timeout_s: float) -> None:
        """Wait for the end that `close` asked for; after `timeout_s` cancel the sink and drop what is left."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._done.wait()
        except TimeoutError:
            self.cut()

    def cut(self) -> None:
        """End now: the sink is cancelled, what is left is dropped."""
        if self._task is not None:
            self._task.cancel()
        self._end()

    async def flushed(self) -> None:
        """Return when all that is queued now was handled, or the pump is over."""
        target = self.handled + self._sending + len(self.queue)
        if self.over or target == self.handled:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((target, waiter))
        self._hurry.set()
        try:
            await waiter
        finally:
            self._waiters = [one for one in self._waiters if one[1] is not waiter]

    def snapshot(self) -> SinkStats:
        """Return the counts of now."""
        return replace(self.stats, queued=len(self.queue) + self._sending)

    async def _run(self) -> None:
        try:
            while self.queue or not self._closing:
                await self._gather_company()
                for _ in range(0, len(self.queue), BATCH_MAX):
                    await self._send_one_batch()
        finally:
            self._end()

    async def _gather_company(self) -> None:
        """Wait for a record, then a moment for more, so that a busy node sends batches and the pump wakes rarely."""
        self._ready.clear()
        self._hurry.clear()
        if self._closing:
            return
        self.idle = True
        if not self.queue:  # looked at after `idle` was set: a thread that appends from now on wakes us
            await self._ready.wait()
        self.idle = False
        if self._closing or self._waiters or len(self.queue) >= BATCH_MAX:
            return
        try:
            async with asyncio.timeout(LINGER_S):
                await self._hurry.wait()
        except TimeoutError:
            return

    async def _send_one_batch(self) -> None:
        batch = [self.queue.popleft() for _ in range(min(BATCH_MAX, len(self.queue)))]
        self._sending = len(batch)
        await self._send(batch)
        self._sending = 0
        self.handled += len(batch)
        self._tell()
        await asyncio.sleep(0)  # a sink that never waits must not keep the loop for itself

    async def _send(self, batch: list[Record]) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self.sink.emit(batch)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                self.stats.failed += len(batch)
                raise
            self._failed(batch, "it raised CancelledError though nobody cancelled it")
        except TimeoutError:
            self._failed(batch, f"it did not take a batch within {SEND_TIMEOUT_S:g} s")
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - plugin boundary: a sink loses its own records, no more
            self._failed(batch, raised.text(error))
        else:
            self.stats.sent += len(batch)

    def _failed(self, batch: list[Record], why: str) -> None:
        self.stats.failed += len(batch)
        self.stats.last_error = why
        if time.monotonic() >= self._quiet_until_s:
            self._quiet_until_s = time.monotonic() + _LOG_EVERY_S
            _log.warning("telemetry sink %s lost %d records: %s", self.id, len(batch), why)

    def _tell(self) -> None:
        for target, waiter in self._waiters:
            if not waiter.done() and (self.handled >= target or self.over):
                waiter.set_result(None)

    def _end(self) -> None:
        self.idle = False
        self._sending = 0
        self.stats.dropped += len(self.queue)
        self.queue.clear()
        self._done.set()
        self._tell()


def _wanted(sink: Telemetry) -> frozenset[str]:
    wants = getattr(sink, "wants", None)
    if not isinstance(wants, frozenset | set | tuple | list):
        return _KINDS
    return frozenset(str(kind) for kind in wants) & _KINDS
