"""How does a memory plugin reach NATS? By a bucket of each project, and of what projects have in common: COMMONS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus import kv, publisher, subjects
from knotwork.bus.background import begin_in
from knotwork.bus.commit import GroupCommit
from knotwork.sdk.errors import Conflict, NotFound, Unavailable
from knotwork.sdk.ports import BucketEntry

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket as BusBucket
    from knotwork.bus.kv import Entry
    from knotwork.host.projects import Projects
    from knotwork.sdk import Bucket

GONE_KEPT_S = 3600
"""How long the server keeps in mind that something was removed: who watches hears of it within seconds."""


class MemoryBuckets:
    """The MEMORY buckets of a node (`sdk.Buckets`), made when they are first used."""

    def __init__(self, connection: Callable[[str], Connection], group: asyncio.TaskGroup) -> None:
        """Go by the connection of each project; "" is that of COMMONS. It raises `Unavailable`, `NotFound`.

        What is written at the same time shares one sync of the server's disk; the writers run in `group`.
        """
        self._connection, self._group = connection, group
        self._opened: dict[str, _Bucket] = {}

    def __call__(self, project: str) -> Bucket:
        """Return a project's bucket."""
        connection = self._connection(project)
        known = self._opened.get(project)
        if known is None or known.connection is not connection:
            if known is not None:
                known.close()
            known = self._opened[project] = _Bucket(connection, self._group)
        return known


def connections(projects: Projects, commons: Callable[[], Connection | None]) -> Callable[[str], Connection]:
    """Return what gives the connection of a project, also while its rooms are just being opened; "" is COMMONS."""

    def of(project: str) -> Connection:
        known = (one.connection for one in projects.all() if one.name == project)
        found = next(known, None) if project else commons()
        if found is None:
            raise Unavailable(f"{project or 'COMMONS'} is not connected.", code="bus.disconnected", retry_after_s=1.0)
        return found

    return of


class _Bucket:
    """One bucket, over one connection (`sdk.Bucket`)."""

    def __init__(self, connection: Connection, group: asyncio.TaskGroup) -> None:
        self.connection = connection
        self._bucket: BusBucket | None = None
        self._writer = GroupCommit(connection, returning=True)
        self._running = begin_in(group, self._writer.run())

    def close(self) -> None:
        """Write nothing more."""
        self._writer.close()
        if self._running is not None:
            self._running.cancel()

    async def get(self, key: str) -> BucketEntry | None:
        """Return the record."""
        entry = await (await self._made()).get(key)
        return None if entry is None else _told(entry)

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Store durably."""
        bucket = self._bucket or await self._made()
        pairs = [publisher.ttl(ttl_s)] if ttl_s is not None else []
        if revision is not None:
            pairs.append(publisher.expect_revision(revision))
        try:
            return (await self._writer.append(bucket.subject(key), value, *pairs)).seq
        except Conflict:
            if revision != 0:
                raise
            return await bucket.create(key, value, ttl_s=ttl_s)  # what is there may be the mark of what was removed

    async def delete(self, key: str, *, revision: int | None = None) -> int:
        """Remove the key."""
        return await (await self._made()).delete(key, revision=revision, ttl_s=GONE_KEPT_S)

    async def all(self, beginning: str = "") -> dict[str, BucketEntry]:
        """Return every record whose key begins so."""
        return {key: _told(entry) for key, entry in (await (await self._made()).all(beginning)).items()}

    async def latest(self) -> int:
        """Return the revision of the newest change."""
        return await (self._bucket or await self._made()).latest()

    async def watch(self, on_entry: Callable[[BucketEntry], None], on_current: Callable[[], None]) -> None:
        """Tell every record, then every change; raises `NotFound` when the bucket is gone: the next use makes it anew."""
        try:
            await (await self._made()).watch(lambda entry: on_entry(_told(entry)), on_current)
        except NotFound:
            self._bucket = None  # the NATS that was joined has another store now
            raise

    async def _made(self) -> BusBucket:
        if self._bucket is None:
            self._bucket = await kv.open_bucket(self.connection, subjects.MEMORY, allow_atomic=True)
        return self._bucket


def _told(entry: Entry) -> BucketEntry:
    return BucketEntry(entry.key, entry.value, entry.revision)
