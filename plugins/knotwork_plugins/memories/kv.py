"""How is something remembered on every node of a project? In a bucket of its NATS account, where the server ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from knotwork.sdk import (
    BucketEntry,
    Buckets,
    Conflict,
    Context,
    Factory,
    Kept,
    MemoryChange,
    MemoryScope,
    MemoryStore,
    Place,
    PluginConfig,
)

SCOPES = ("private", "personal", "team", "public")
_PARTS = 3


class KvConfig(PluginConfig):
    """The bucket MEMORY of each project, and of what projects have in common; nothing to be set."""


class Kv:
    """Keys are `scope.owner.id`; expiry is the server's, and so is the refusal of a write that comes too late."""

    def __init__(self, buckets: Buckets) -> None:
        """Use the node's connections, as they come and go."""
        self._buckets = buckets

    async def store(self, place: Place, value: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Keep it; returns when the server has it on disk."""
        try:
            return await self._buckets(place.project).put(_key(place), value, revision=revision, ttl_s=ttl_s)
        except Conflict as error:
            raise _changed(place) from error

    async def get(self, place: Place) -> Kept | None:
        """Return what the server has now."""
        entry = await self._buckets(place.project).get(_key(place))
        return None if entry is None or entry.value is None else Kept(place, entry.value, entry.revision)

    async def list(self, project: str, scope: MemoryScope | None = None, owner: str | None = None) -> Sequence[Kept]:
        """Return all of it; asked for a scope, or a scope and an owner, the server sends only that."""
        beginning = ".".join(part for part in (scope, owner if scope else None) if part)
        entries = await self._buckets(project).all(beginning)
        found = []
        for key, entry in entries.items():
            place = _place(project, key)
            if place is not None and entry.value is not None and owner in (None, place.owner):
                found.append(Kept(place, entry.value, entry.revision))
        return found

    async def delete(self, place: Place, *, revision: int | None = None) -> int:
        """Remove it."""
        try:
            return await self._buckets(place.project).delete(_key(place), revision=revision)
        except Conflict as error:
            raise _changed(place) from error

    async def latest(self, project: str) -> int:
        """Return the revision of the newest change."""
        return await self._buckets(project).latest()

    async def watch(
        self, project: str, on_change: Callable[[MemoryChange], None], on_current: Callable[[], None]
    ) -> None:
        """Follow the bucket."""

        def arrived(entry: BucketEntry) -> None:
            place = _place(project, entry.key)
            if place is not None:
                on_change(MemoryChange(place, entry.value, entry.revision))

        await self._buckets(project).watch(arrived, on_current)


def _key(place: Place) -> str:
    return f"{place.scope}.{place.owner}.{place.id}"


def _place(project: str, key: str) -> Place | None:
    """Return the place of a key, None for one that is none of ours."""
    parts = key.split(".")
    if len(parts) != _PARTS or parts[0] not in SCOPES:
        return None
    return Place(project, cast("MemoryScope", parts[0]), parts[1], parts[2])


def _changed(place: Place) -> Conflict:
    return Conflict(f"Somebody else changed {place.id} first.", code="memory.changed", hint="Read it again.")


@asynccontextmanager
async def open_kv(_config: KvConfig, context: Context) -> AsyncIterator[MemoryStore]:
    """Open nothing: the node's connections are used."""
    yield Kv(context.buckets)


FACTORY: Factory[MemoryStore] = Factory(
    name="kv",
    config=KvConfig,
    open=open_kv,
    summary="Remembers in NATS, on every node of the project; the server lets things expire.",
    abilities=("stores",),
)
