"""How do others learn that we are here? One record, written at every beat, at every change, and removed on goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus import kv, subjects
from knotwork.bus.waits import set_within
from knotwork.mesh import records, twins
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket, Entry
    from knotwork.mesh.directory import Directory
    from knotwork.mesh.records import NodeRecord

log = logging.getLogger(__name__)
SETTLE_S = 0.05
"""Changes that come this close together are told at once."""
AGAIN_S = 0.5
"""After a beat that could not be written."""
SHAPE = {"max_bytes": 256 * 1024 * 1024}
"""Of the bucket of nodes: what differs from others."""


class Presence:
    """Our record in one project, and our view of everybody's. `record` makes the record of this moment."""

    def __init__(self, connection: Connection, directory: Directory, record: Callable[[], NodeRecord]) -> None:
        """Say nothing yet; `open` checks the name, `run` beats."""
        self._connection = connection
        self._directory = directory
        self._record = record
        self._changed = asyncio.Event()
        self._complete = asyncio.Event()
        self._bucket: Bucket | None = None
        self.beats = 0
        self._twin, self._twin_why, self._twin_s = ("", ""), "", float("-inf")
        connection.on_up(self.changed)

    def changed(self) -> None:
        """Tell others soon: something about us is different."""
        self._changed.set()

    async def open(self) -> None:
        """Make the bucket and claim our name.

        Raises `Conflict` (`mesh.name_taken`) when another node has it, and (`mesh.same_identity`) when another process
        with our identity is alive.
        """
        self._bucket = await kv.open_bucket(self._connection, subjects.NODES, **SHAPE)
        record = self._record()
        try:
            await self._claim(self._bucket, record)
        except Conflict as error:
            if error.code != "bus.wrong_revision":
                raise
            await self._claim(self._bucket, record)  # somebody wrote it meanwhile: look again

    async def _claim(self, bucket: Bucket, record: NodeRecord) -> None:
        """Write our record unless another node's is there, in one step: of two who begin at once, one gets it."""
        entry = await bucket.get(record.node)
        other = twins.record_in(entry)
        if entry is not None and other is not None and other.uid != record.uid:
            raise twins.taken(entry, other)
        if entry is not None and other is not None and other.instance != record.instance:
            await twins.refuse_living(self._connection, bucket, entry, other)
        data = records.encode(record)
        if entry is None:
            await bucket.create(record.node, data, ttl_s=record.ttl_s)
        else:
            await bucket.update(record.node, data, entry.revision, ttl_s=record.ttl_s)

    async def ready(self, timeout_s: float) -> None:
        """Return when the first full picture of the others is there, or after `timeout_s`."""
        await set_within(self._complete, timeout_s)

    async def run(self) -> None:
        """Beat and listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="presence watch")
            group.create_task(self._beat(), name="presence beat")

    async def goodbye(self, timeout_s: float = 1.0) -> None:
        """Take our record out, so that nobody has to wait for silence; does its best."""
        if self._bucket is None:
            return
        with contextlib.suppress(KnotworkError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                record = self._record()
                there = twins.record_in(await self._bucket.get(record.node))
                if there is None or there.instance == record.instance:  # that of somebody alive is his
                    await self._bucket.delete(record.node)

    async def say(self) -> None:
        """Write our record now; raises what `Bucket.put` raises."""
        assert self._bucket is not None
        record = self._record()
        await self._bucket.put(record.node, records.encode(record), ttl_s=record.ttl_s)
        self.beats += 1

    async def _beat(self) -> None:
        while True:
            self._changed.clear()
            pause_s = self._record().heartbeat_s
            try:
                await self._connection.wait_connected()
                await self.say()
            except KnotworkError as error:
                log.warning("could not tell others that we are here: %s", error)
                await self._remake()
                pause_s = min(pause_s, AGAIN_S)
            if await set_within(self._changed, pause_s):
                await asyncio.sleep(SETTLE_S)

    async def _remake(self) -> None:
        """Make the bucket again: a server that lost its store must not lose us too."""
        with contextlib.suppress(KnotworkError):
            self._bucket = await kv.open_bucket(self._connection, subjects.NODES, **SHAPE)

    async def _watch(self) -> None:
        def on_entry(entry: Entry) -> None:
            if self._is_another(entry):
                return
            if entry.value is None:
                self._directory.left(entry.key)
            else:
                self._directory.heard(entry.key, entry.value)

        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep(), name="presence sweep")
            while True:
                assert self._bucket is not None
                try:
                    await self._bucket.watch(on_entry, self._complete.set)
                except NotFound:
                    await asyncio.sleep(0.5)
                    await self._remake()

    def _is_another(self, entry: Entry) -> bool:
        """Take note of who else writes our record, or takes it away: then it is written again."""
        mine = self._record()
        if entry.key != mine.node:
            return False
        if entry.value is None:
            self.changed()
            return True
        other = twins.record_in(entry)
        if other is None or other.instance == mine.instance:
            return False
        if self._twin != (other.uid, other.instance):
            self._twin = other.uid, other.instance
            log.error("%s", twins.beside(other, mine.uid))
        self._twin_why, self._twin_s = twins.beside(other, mine.uid), time.monotonic()
        return True

    @property
    def twin(self) -> str:
        """Return who else writes our record, in words, "" when nobody did within the last beats."""
        record = self._record()
        recent = time.monotonic() - self._twin_s < record.heartbeat_s * record.offline_beats
        return self._twin_why if recent else ""

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._record().heartbeat_s))
            self._directory.sweep()
