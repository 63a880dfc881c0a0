"""How can hundreds of facts share one fsync? Group commit: what waits while one write is under way goes out together.

A lone fact is published at once. While it is under way others gather; they then go out as one atomic batch (JetStream
ADR-50: either all are stored or none), which costs one fsync for up to a thousand. A batch is refused whole when one of
its facts exists already, so then each is sent alone and each gets its own answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.bus import publisher, wire
from knotwork.sdk.errors import KnotworkError, Unavailable, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.publisher import Ack

BATCH_MAX = 1000
"""Messages in one atomic batch: the server's own limit."""
BATCH_MAX_BYTES = 4 * 1024 * 1024
UNKNOWN = frozenset({"bus.lost", "bus.no_answer"})
"""Errors after which a batch may be stored or not."""
BATCH_MIN = 8
"""Fewer than this cost less one by one: an atomic batch has a fixed price of about 2.2 ms."""
GATHER_MAX_S = 0.010
"""How long a batch waits at most for those who were told of the one before."""


@dataclass(slots=True)
class _Waiting:
    subject: str
    payload: bytes
    head: bytes
    answer: asyncio.Future[Ack]


class GroupCommit:
    """Appends facts to one stream (`allow_atomic`); made by `open_group_commit`."""

    def __init__(self, connection: Connection, *, waiting_max: int = 20_000, returning: bool = False) -> None:
        """Write over `connection`; more than `waiting_max` facts waiting are refused as `Unavailable`.

        `returning`: who is told that his fact is stored often has the next one a moment later. He would just miss the
        next batch, and half of all would wait for two of them; so a batch waits for those of the one before, for half
        as long as that one took at most.
        """
        self._connection, self._returning = connection, returning
        self._enough, self._wanted = asyncio.Event(), 0
        self._waiting: list[_Waiting] = []
        self._waiting_max = waiting_max
        self._writing: list[_Waiting] = []
        self._some = asyncio.Event()
        self._closed = False
        self.batches = self.singles = 0
        """Batches that were written, and facts that went by themselves."""

    async def append(self, subject: str, payload: bytes, *pairs: tuple[str, str]) -> Ack:
        """Store one fact and return when the server has it on disk.

        Raises what `publisher.publish` raises; `Unavailable` (`bus.commit_full`) when too many wait. After `TimedOut`
        and `Unreachable` (`bus.lost`, `bus.closed`) it may be stored or not: append it again, and take `Conflict` as yes.
        """
        return await self.put(subject, payload, *pairs)

    def put(self, subject: str, payload: bytes, *pairs: tuple[str, str]) -> asyncio.Future[Ack]:
        """Take one fact and return its answer to come, which raises what `append` raises; for those who cannot wait."""
        if self._closed:
            raise _closed()
        if len(payload) > self._connection.max_payload > 0:
            raise wire.too_large("fact", len(payload), self._connection.max_payload)
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable("Too many facts wait to be written.", code="bus.commit_full", retry_after_s=0.5)
        waiting = _Waiting(subject, payload, publisher.head(*pairs), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._some.set()
        if len(self._waiting) == self._wanted:
            self._enough.set()
        return waiting.answer

    @property
    def alone(self) -> bool:
        """Return whether what was put last goes out at once, by itself."""
        return len(self._waiting) == 1 and not self._writing

    async def run(self) -> None:
        """Write what waits, for ever; one write at a time."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            self._writing, start_s = self._take(), loop.time()
            count = len(self._writing)
            if count < BATCH_MIN:
                await self._singly(self._writing)
            else:
                await self._together(self._writing)
            self._writing = []
            if self._returning and count >= BATCH_MIN:
                await self._gather(len(self._waiting) + count, (loop.time() - start_s) / 2)
            if not self._waiting:
                self._some.clear()

    async def _gather(self, count: int, most_s: float) -> None:
        """Return when `count` facts wait, or after a moment."""
        self._enough.clear()
        self._wanted = min(count, BATCH_MAX)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(most_s, GATHER_MAX_S)):
                if len(self._waiting) < self._wanted:
                    await self._enough.wait()
        self._wanted = 0

    def close(self) -> None:
        """Take nothing more, and tell everyone who still waits; what is under way may be stored or not."""
        self._closed = True
        _fail(self._writing, Unreachable("The writer was closed; it may be stored or not.", code="bus.closed"))
        _fail(self._waiting, _closed())
        self._waiting.clear()

    def _take(self) -> list[_Waiting]:
        count = batch_length([len(waiting.payload) for waiting in self._waiting[:BATCH_MAX]])
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return [waiting for waiting in group if not waiting.answer.done()]

    async def _singly(self, group: list[_Waiting]) -> None:
        messages = [(waiting.subject, waiting.payload, waiting.head) for waiting in group]
        answers = await publisher.publish_many(self._connection, messages)
        self.singles += len(group)
        for waiting, answer in zip(group, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, KnotworkError):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)

    async def _together(self, group: list[_Waiting]) -> None:
        mark = b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: " % secrets.token_hex(8).encode()
        last = len(group)
        try:
            for place, waiting in enumerate(group[:-1], start=1):
                self._connection.send(
                    waiting.subject, waiting.payload, "", b"%b%b%d\r\n\r\n" % (_own(waiting), mark, place)
                )
            end = group[-1]
            head = b"%b%b%d\r\nNats-Batch-Commit: 1\r\n\r\n" % (_own(end), mark, last)
            ack = await publisher.publish(self._connection, end.subject, end.payload, head=head)
        except KnotworkError as error:
            if error.code not in UNKNOWN:
                await self._singly(group)
            else:  # each asks for itself: sent again, what is stored would be refused as a duplicate
                _fail(group, error)
            return
        self.batches += 1
        first = ack.seq - last + 1
        for place, waiting in enumerate(group):
            if not waiting.answer.done():
                waiting.answer.set_result(publisher.Ack(ack.stream, first + place))


def batch_length(sizes: list[int]) -> int:
    """Return how many of the payloads that wait go into one batch, the first ones; `sizes` are bytes."""
    size = 0
    for count, one in enumerate(sizes[:BATCH_MAX]):
        size += one
        if count and size > BATCH_MAX_BYTES:
            return count
    return min(len(sizes), BATCH_MAX)


def _own(waiting: _Waiting) -> bytes:
    """Return the header block of a fact as far as it goes without the empty line at its end."""
    return waiting.head[:-2] or b"NATS/1.0\r\n"


def _fail(group: list[_Waiting], error: KnotworkError) -> None:
    for waiting in group:
        if not waiting.answer.done():
            waiting.answer.set_exception(type(error)(error.message, code=error.code, retry_after_s=error.retry_after_s))


def _closed() -> Unreachable:
    return Unreachable("The writer is closed.", code="bus.closed")


@contextlib.asynccontextmanager
async def open_group_commit(connection: Connection, *, returning: bool = False) -> AsyncIterator[GroupCommit]:
    """Run a writer inside the block (see `GroupCommit`); leaving it fails whoever still waits."""
    writer = GroupCommit(connection, returning=returning)
    async with asyncio.TaskGroup() as group:
        runner = group.create_task(writer.run(), name="group commit")
        try:
            yield writer
        finally:
            runner.cancel()
            writer.close()
