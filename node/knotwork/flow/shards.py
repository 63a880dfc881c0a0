"""Which node looks after which runs? Each shard belongs to one of the nodes that are alive, by rendezvous hashing.

Every node says every second that it is there, under a key that expires; who vanishes is noticed within `LEASE_S`. Two
nodes may think for a moment that a shard is theirs: they repeat each other's effects, which does no harm.
(Rendezvous hashing: Thaler and Ravishankar, 1998.)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import kv, subjects
from knotwork.flow.facts import SHARDS
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Entry

SHAPE = {"storage": "memory"}
"""Who is there now need not be known after a restart of the server."""
LEASE_S = 3
EVERY_S = 1.0
_offers = msgspec.json.Decoder(dict[str, bool])


class Shards:
    """The shards that are this node's."""

    def __init__(self, connection: Connection, node: str, changed: Callable[[frozenset[str]], None]) -> None:
        """Tell `changed` which are ours, whenever that is different."""
        self._connection, self._node, self._changed = connection, subjects.token(node, "node"), changed
        self._alive: set[str] = {node}
        self._current = False
        self._seen = asyncio.Event()
        self._renewed_s = 0.0
        self.mine: frozenset[str] = frozenset()
        self.offers: Callable[[], Mapping[str, bool]] = dict
        """What else this node has that not every node has, and whether it works: the others are told."""
        self._offered: dict[str, Mapping[str, bool]] = {}

    @property
    def sure(self) -> bool:
        """Return whether nobody else can have taken over: what is done now need not be looked up first."""
        return time.monotonic() - self._renewed_s < LEASE_S - 1

    @property
    def there(self) -> frozenset[str]:
        """Return the nodes of the project that are there now."""
        return frozenset({*self._alive, self._node})

    def having(self, offer: str) -> dict[str, bool]:
        """Return which nodes have something, and whether it works there."""
        found = {**self._offered, self._node: self.offers()}
        return {node: offers[offer] for node, offers in found.items() if offer in offers}

    async def settled(self) -> None:
        """Return when it was seen who is there, and so which shards are ours."""
        await self._seen.wait()

    async def run(self) -> None:
        """Say that we are here and see who else is, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="engines")
            while True:
                with contextlib.suppress(KnotworkError):  # NATS is away, or its memory is: again in a moment
                    bucket = await kv.open_bucket(self._connection, subjects.ENGINES, **SHAPE)
                    while True:
                        began_s = time.monotonic()
                        await bucket.put(self._node, msgspec.json.encode(self.offers()), ttl_s=LEASE_S)
                        self._renewed_s = began_s
                        await asyncio.sleep(EVERY_S)
                await asyncio.sleep(EVERY_S / 2)

    async def leave(self) -> None:
        """Say that we are gone, so that others take over at once."""
        with contextlib.suppress(KnotworkError):
            await kv.Bucket(self._connection, subjects.ENGINES).delete(self._node)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(KnotworkError):
                bucket = await kv.open_bucket(self._connection, subjects.ENGINES, **SHAPE)
                # whoever was there before is not told of as gone: a server that was killed forgot its memory
                self._alive, self._current = {self._node}, False
                self._offered = {}
                await bucket.watch(self._entry, self._is_current)
            await asyncio.sleep(EVERY_S / 2)

    def _entry(self, entry: Entry) -> None:
        if entry.value is None:
            self._alive.discard(entry.key)
            self._offered.pop(entry.key, None)
        else:
            self._alive.add(entry.key)
            self._offered[entry.key] = _read(entry.value)
        if self._current:
            self._look()

    def _is_current(self) -> None:
        self._current = True
        self._look()
        self._seen.set()

    def _look(self) -> None:
        mine = frozenset(owned({*self._alive, self._node}, self._node))
        if mine != self.mine:
            self.mine = mine
            self._changed(mine)


def _read(value: bytes) -> dict[str, bool]:
    try:
        return _offers.decode(value)
    except msgspec.DecodeError:  # of a newer version
        return {}


def owner(nodes: Iterable[str], name: str) -> str:
    """Return which of these nodes a thing of this name is with; an empty text without nodes (pure)."""
    return max(sorted(nodes), key=lambda one: hashlib.sha256(f"{one}/{name}".encode()).digest(), default="")


def owned(alive: Iterable[str], node: str) -> list[str]:
    """Return the shards of a node among those that are alive (pure)."""
    nodes = sorted(alive)
    return [shard for shard in SHARDS if owner(nodes, shard) == node]
