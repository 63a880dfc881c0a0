"""What stands for NATS when a memory plugin is tested alone? Buckets in memory that let things expire, and the real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from knotwork.sdk.errors import Conflict, Unavailable
from knotwork.sdk.ports import Bucket, BucketEntry

LOOK_S = 0.01


class SystemClock:
    """The real time: what expires does so by it."""

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()


@dataclass
class DictBucket:
    """A `Bucket` in memory: revisions, expiry and watching as in NATS; set `away` to see what a plugin does then."""

    entries: dict[str, tuple[bytes, int, float]] = field(default_factory=dict)
    revision: int = 0
    log: list[BucketEntry] = field(default_factory=list)
    away: bool = False

    async def get(self, key: str) -> BucketEntry | None:
        """Return the record."""
        self._look()
        found = self.entries.get(key)
        return None if found is None else BucketEntry(key, found[0], found[1])

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Store the record where `revision` is."""
        self._admit(key, revision)
        self.revision += 1
        until_s = time.monotonic() + ttl_s if ttl_s is not None else float("inf")
        self.entries[key] = (value, self.revision, until_s)
        self.log.append(BucketEntry(key, value, self.revision))
        return self.revision

    async def delete(self, key: str, *, revision: int | None = None) -> int:
        """Remove the key."""
        self._admit(key, revision)
        self.entries.pop(key, None)
        self.revision += 1
        self.log.append(BucketEntry(key, None, self.revision))
        return self.revision

    async def all(self, beginning: str = "") -> dict[str, BucketEntry]:
        """Return every record whose key begins so."""
        self._look()
        return {
            key: BucketEntry(key, value, revision)
            for key, (value, revision, _) in self.entries.items()
            if not beginning or key.startswith(f"{beginning}.")
        }

    async def latest(self) -> int:
        """Return the revision of the newest change."""
        self._look()
        return self.revision

    async def watch(self, on_entry: Callable[[BucketEntry], None], on_current: Callable[[], None]) -> None:
        """Tell what is there, then what changes."""
        self._look()
        told = len(self.log)
        for key, (value, revision, _) in sorted(self.entries.items(), key=lambda one: one[1][1]):
            on_entry(BucketEntry(key, value, revision))
        on_current()
        while True:
            self._look()
            for entry in self.log[told:]:
                on_entry(entry)
            told = len(self.log)
            await asyncio.sleep(LOOK_S)

    def _admit(self, key: str, revision: int | None) -> None:
        self._look()
        found = self.entries.get(key)
        if revision is not None and revision != (found[1] if found is not None else 0):
            raise Conflict("Somebody else changed it first.", code="bus.wrong_revision")

    def _look(self) -> None:
        """Let go of what is over; raises `Unavailable` while it is away."""
        if self.away:
            raise Unavailable("the bus is away", code="bus.disconnected")
        now_s = time.monotonic()
        for key in [key for key, (_, _, until_s) in self.entries.items() if until_s <= now_s]:
            del self.entries[key]
            self.revision += 1
            self.log.append(BucketEntry(key, None, self.revision))


@dataclass
class DictBuckets:
    """`Buckets` in memory, one for each project."""

    known: dict[str, DictBucket] = field(default_factory=dict)

    def __call__(self, project: str) -> Bucket:
        """Return a project's bucket."""
        return self.known.setdefault(project, DictBucket())
