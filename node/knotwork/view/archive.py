"""Where do ended tasks go? One node at a time packs their outcomes into ARCHIVE, and removes them from FACTS a little later.

A segment is one message with hundreds of outcomes, so the past costs the server no memory per task. Its number is the
place in FACTS up to which everything is packed, so the archiver needs no memory of its own: it goes on behind the last
segment, and packing something twice harms nobody, because readers know an outcome by its subject. What frees room comes
before what needs some, so that a full store does not stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import digits, kv, patterns, publisher, reading, subjects
from knotwork.bus.commit import open_group_commit
from knotwork.sdk.errors import Conflict, KnotworkError
from knotwork.view.relief import Relief

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket
    from knotwork.bus.reading import Stored

log = logging.getLogger(__name__)
KEY = "archiver"
LEASE_S = 6
EVERY_S = 1.0
KEEP_S = 20.0
"""How long an outcome stays in FACTS after it was packed: longer than any view needs to read the segment."""
BATCH = 1000
STEP_S = 1.0
SEGMENT_MAX_BYTES = 1024 * 1024
OUTCOMES, TRACES = patterns.OUTCOMES, (patterns.REDRIVEN,)
"""What is removed of every task alike: what a redrive called for is in TASKS by then."""
LONG_NS = 200_000_000
"""An attempt that took longer may have left traces of its beginning; a shorter one has none."""
AT_ONCE = 32
CLOSED = tuple(f'{{"state":"{state}"'.encode() for state in ("completed", "failed", "cancelled", "timed-out"))
"""How outcomes begin after which no attempt comes."""
FINAL = (*CLOSED, b'{"state":"dead"')
KEYED_S = 24 * 3600
"""How long an idempotency key is remembered after its task has ended, at least."""
ENDED_MAX = 20_000


class Packed(msgspec.Struct, frozen=True):
    """One outcome in a segment: its subject and place in FACTS, when it was stored (RFC 3339), and the outcome."""

    s: str
    q: int
    t: str
    d: msgspec.Raw


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Packed])
unpack = _decoder.decode


def pack(found: list[Stored]) -> list[tuple[int, bytes]]:
    """Return segments of about a megabyte as (place of the last outcome, JSON); what is no JSON is left out (pure)."""
    segments: list[tuple[int, bytes]] = []
    rows: list[Packed] = []
    size = 0
    for stored in found:
        if not stored.data.startswith(b"{"):
            continue
        rows.append(Packed(stored.subject, stored.seq, stored.time, msgspec.Raw(stored.data)))
        size += len(stored.data)
        if size >= SEGMENT_MAX_BYTES:
            segments.append((stored.seq, _encoder.encode(rows)))
            rows, size = [], 0
    if rows:
        segments.append((rows[-1].q, _encoder.encode(rows)))
    return segments


def is_outcome(subject: str) -> bool:
    """Return whether a fact is the end of an attempt of a task (pure): what `OUTCOMES` means."""
    parts = subject.split(".")
    return len(parts) == 7 and parts[0] == "run" and parts[3:5] == ["outcome", "task"]  # noqa: PLR2004


class Archiver:
    """Packs the past of one project, when it is this node's turn."""

    def __init__(self, connection: Connection, *, owner: str) -> None:
        """Hold the lease as `owner`."""
        self._connection, self._owner = connection, owner
        self.relief = Relief(connection)
        self._packed_to = -1
        self._marks: list[tuple[float, int]] = []
        self._marked_to = 0
        self._spent: list[tuple[int, str]] = []
        self._revision = 0
        self._ended: OrderedDict[str, tuple[int, int]] = OrderedDict()

    async def run(self) -> None:
        """Pack what ended, for ever, whenever no other node does."""
        while True:
            await asyncio.sleep(EVERY_S)
            with contextlib.suppress(KnotworkError):
                bucket = await kv.open_bucket(self._connection, subjects.LEASES, allow_atomic=True)
                while True:
                    more = False
                    if await self._mine(bucket):
                        more = await self.step()
                    else:
                        self._packed_to = -1
                        await self.relief.look()  # whoever runs the server knows more of its room than who packs
                    await asyncio.sleep(0 if more else EVERY_S)

    async def step(self) -> bool:
        """Remove what was packed long enough ago, and pack what ended since the last step; True when there is more."""
        if self._packed_to < 0:
            self._packed_to = await self._last_place()
            self._spent = await self._left_behind()
        await self._remove()
        await self.relief.look()
        more = await self._pack()
        await self._remove()
        return more

    async def _pack(self) -> bool:
        """Pack what ended since the last step; True when there is more."""
        end_s, more = time.monotonic() + STEP_S, True
        while more and time.monotonic() < end_s:  # under load there is always more, but the lease must be kept
            read, found = await self._read_on(self._packed_to)
            more = bool(read)
            found = genuine(found, self._ended)
            for pattern in leftovers(found):
                await reading.purge(self._connection, subjects.TIMERS, pattern, 0)
            traces = spent(found)
            for place, segment in pack(self.relief.packed(found)):
                try:
                    await self._remember([one for one in found if self._packed_to < one.seq <= place])
                    await publisher.publish(self._connection, subjects.archived(place), segment)
                except KnotworkError as error:
                    if not self.relief.refused(error):
                        raise
                    return False  # the rest in a moment, without large inputs, when something is gone
                self._spent += [one for one in traces if self._packed_to < one[0] <= place]
                self._packed_to = place
            self._packed_to = max(self._packed_to, read[-1].seq if read else 0)
        return more

    async def _remember(self, found: list[Stored]) -> None:
        """Keep in FACTS for a day what was asked for with keys whose tasks have ended: it has to outlive the outcomes."""
        facts = keys(found)
        if not facts:
            return
        failed: list[KnotworkError] = []
        async with open_group_commit(self._connection) as writer:
            for stored in [writer.put(subject, data, publisher.ttl(KEYED_S)) for subject, data in facts.items()]:
                try:
                    await stored
                except Conflict:
                    pass  # it was dead before, or is packed once more
                except KnotworkError as error:
                    failed.append(error)
        if failed:
            raise failed[0]

    async def _read_on(self, place: int) -> tuple[list[Stored], list[Stored]]:
        """Return the next facts behind a place, and the outcomes of tasks among them.

        All of them are read: a filter costs the server more the more facts there are, eight times as much for 150,000.
        """
        read = await reading.batch(self._connection, subjects.FACTS, ">", place + 1, BATCH)
        return read, [stored for stored in read if is_outcome(stored.subject)]

    async def _left_behind(self) -> list[tuple[int, str]]:
        """Return the traces of what another node packed and did not remove any more."""
        traces: list[tuple[int, str]] = []
        after = 0
        while after < self._packed_to:
            read, found = await self._read_on(after)
            if not read:
                break
            traces += spent([stored for stored in found if stored.seq <= self._packed_to])
            after = read[-1].seq
        return traces

    async def _remove(self) -> None:
        """Remove from FACTS what was packed `KEEP_S` ago."""
        now_s = time.monotonic()
        if self._packed_to > self._marked_to:
            self._marks.append((now_s, self._packed_to))
            self._marked_to = self._packed_to
        old = [mark for mark in self._marks if now_s - mark[0] >= KEEP_S]
        if old and old[-1][1] > 0:
            await self._remove_traces(old[-1][1])
            for pattern in (OUTCOMES, *TRACES):
                await reading.purge(self._connection, subjects.FACTS, pattern, old[-1][1] + 1)
        self._marks = self._marks[len(old) :]

    async def _remove_traces(self, place: int) -> None:
        """Remove the traces of attempts that ended before a place: one by one, since others still run.

        They go before the outcomes do, so that whoever takes over finds by those what is left to be removed.
        """
        gone = [one for one in self._spent if one[0] <= place]
        failed: list[KnotworkError] = []

        async def remove(seq: int, pattern: str) -> None:
            try:
                await reading.purge(self._connection, subjects.FACTS, pattern, seq + 1)
            except KnotworkError as error:
                failed.append(error)

        for start in range(0, len(gone), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for seq, pattern in gone[start : start + AT_ONCE]:
                    group.create_task(remove(seq, pattern))
            if failed:
                raise failed[0]
        self._spent = [one for one in self._spent if one[0] > place]

    async def _last_place(self) -> int:
        """Return the place in FACTS up to which everything is packed."""
        stored = await reading.last(self._connection, subjects.ARCHIVE, patterns.SEGMENTS)
        place = digits.read(stored.subject.rpartition(".")[2]) if stored is not None else None
        newest = await reading.last_seq(self._connection, subjects.FACTS)
        return place if place is not None and place <= newest else 0  # else FACTS was made anew

    async def _mine(self, bucket: Bucket) -> bool:
        """Return whether it is this node's turn: it takes the lease, or keeps it."""
        try:
            if self._revision:
                self._revision = await bucket.update(KEY, self._owner.encode(), self._revision, ttl_s=LEASE_S)
            else:
                self._revision = await bucket.create(KEY, self._owner.encode(), ttl_s=LEASE_S)
        except Conflict:
            self._revision = 0
            return False
        except KnotworkError as error:
            if not self.relief.refused(error):
                raise
            held = await bucket.get(KEY)  # there is no room even for that: whoever had it last goes on
            return held is None or held.value in (None, self._owner.encode())
        return True


def genuine(found: list[Stored], ended: OrderedDict[str, tuple[int, int]]) -> list[Stored]:
    """Return outcomes without those behind the end of their task, which nobody of ours wrote.

    `ended` holds at which attempt tasks ended lately, and is brought up to date. Who reads passes over what gets through.
    """
    kept = []
    for stored in found:
        parts = stored.subject.split(".")
        if not (parts[5].isdecimal() and parts[6].isdecimal()):
            continue
        run, place = parts[2], (int(parts[5]), int(parts[6]))
        if place > ended.get(run, place):
            log.warning("what stands on %.200s is not packed: the task had ended before", stored.subject)
            continue
        if stored.data.startswith(CLOSED):
            ended[run] = place
            if len(ended) > ENDED_MAX:
                ended.popitem(last=False)
        kept.append(stored)
    return kept


def leftovers(found: list[Stored]) -> list[str]:
    """Return the timers that outcomes leave behind: deadlines of tasks that have ended (pure)."""
    ended = []
    for stored in found:
        if b'"deadline_ns":' in stored.data and not stored.data.startswith(
            (b'{"state":"waiting"', b'{"state":"continued"')
        ):
            _, shard, run, *_ = stored.subject.split(".")
            ended.append(subjects.timer(shard, run, "deadline"))
    return ended


class _Asked(msgspec.Struct):
    asked: str = ""


class _Keyed(msgspec.Struct):
    task: _Asked


_keyed = msgspec.json.Decoder(_Keyed)


def keys(found: list[Stored]) -> dict[str, bytes]:
    """Return what is remembered of tasks with a key that these outcomes end, by its place in FACTS (pure)."""
    facts: dict[str, bytes] = {}
    for stored in found:
        run = stored.subject.split(".")[2]
        if run.startswith(subjects.KEYED) and stored.data.startswith(FINAL):
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                facts[subjects.keyed(run)] = _encoder.encode(_keyed.decode(stored.data).task)
    return facts


class _Attempt(msgspec.Struct):
    number: int = 1


class _End(msgspec.Struct):
    task: _Attempt
    started_ns: int = 0
    ended_ns: int = 0
    delivery: int = 1


_end = msgspec.json.Decoder(_End)


def spent(found: list[Stored]) -> list[tuple[int, str]]:
    """Return what outcomes make superfluous in FACTS, as (place of the outcome, pattern) (pure).

    That an attempt was begun and handed back, when it took long or was delivered again; and that it was to come, when it
    was not the first.
    """
    traces: list[tuple[int, str]] = []
    for stored in found:
        parts = stored.subject.split(".")
        try:
            end = _end.decode(stored.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        kinds = ["started"] if end.ended_ns - end.started_ns > LONG_NS or end.delivery > 1 else []
        kinds += ["released"] if end.delivery > 1 else []
        kinds += ["next"] if end.task.number > 1 else []
        traces += [(stored.seq, f"{'.'.join(parts[:3])}.{kind}.task.>") for kind in kinds]
    return traces
