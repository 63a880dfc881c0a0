"""What is a place to remember things? Something that keeps small records by scope and owner, lets them expire, and tells.

The rules of memory (who may see what, categories, versions, search) are the node's. A plugin keeps bytes under a place
and is asked for four things: to keep what it acknowledged, to refuse a write that assumes something else than is
there, to let a record vanish when its time is over, and to tell whoever watches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

MemoryScope = Literal["private", "personal", "team", "public"]
MEMORY_VALUE_MAX_BYTES = 512 * 1024
"""The largest value a plugin is given."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one memory is. All parts are tokens (`[a-z0-9][a-z0-9_-]{0,63}`).

    `project` is the project it belongs to, "" for what projects have in common. `owner` is whose it is: an agent's id
    (private), a person (personal), a project (team), `all` (public).
    """

    project: str
    scope: MemoryScope
    owner: str
    id: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One record. `value` is a JSON object with at least `content`; `revision` grows with every change of its project."""

    place: Place
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """What a watcher is told: `value` is None when the record is gone (deleted or expired)."""

    place: Place
    value: bytes | None
    revision: int


@runtime_checkable
class MemoryStore(Protocol):
    """The contract of a memory plugin that keeps things; many calls run at once.

    Raises `Unavailable` and what derives from it when the same call may succeed later. What `store` returned from
    survives a crash of everything. Values are at most `MEMORY_VALUE_MAX_BYTES` bytes.
    """

    async def store(self, place: Place, value: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Keep `value` durably and return its revision; it vanishes by itself after `ttl_s` whole seconds.

        `revision` is what must be there now: 0 for nothing, None for whatever; raises `Conflict` (`memory.changed`).
        """
        ...

    async def get(self, place: Place) -> Kept | None:
        """Return what is there now, None when nothing is, or its time is over."""
        ...

    async def list(self, project: str, scope: MemoryScope | None = None, owner: str | None = None) -> Sequence[Kept]:
        """Return every record of a project, of one scope, of one owner."""
        ...

    async def delete(self, place: Place, *, revision: int | None = None) -> int:
        """Remove the record and return the revision of that; no error when there is none.

        Raises `Conflict` (`memory.changed`) when `revision` is given and not what is there.
        """
        ...

    async def latest(self, project: str) -> int:
        """Return the revision of the newest change: whoever has been told of it has been told of all."""
        ...

    async def watch(
        self, project: str, on_change: Callable[[MemoryChange], None], on_current: Callable[[], None]
    ) -> None:
        """Tell every record, then every change in order, for ever; `on_current` whenever the picture is complete.

        Both are quick and are called in the loop. Raises when it cannot go on; it is then called again.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """The contract of a memory plugin that turns text into vectors, so that memories are found by what they mean."""

    @property
    def model(self) -> str:
        """Return the name of what makes the vectors: those of two models are never compared."""
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one vector for each text, all of the same length.

        Raises `Unavailable` when the same call may succeed later.
        """
        ...
