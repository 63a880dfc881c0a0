"""What must every memory plugin do? Keep what it acknowledged, refuse what comes too late, let things expire, and tell."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from knotwork.sdk.errors import Conflict
from knotwork.sdk.memory import MEMORY_VALUE_MAX_BYTES, Embedder, MemoryChange, MemoryStore, Place
from knotwork.sdk.testing.buckets import DictBuckets, SystemClock
from knotwork.sdk.testing.contract import PluginContract
from knotwork.sdk.testing.one import host

PATIENCE_S = 30.0
LOOK_S = 0.02
WRITERS = 20


def place(id: str, *, project: str = "p1", scope: Any = "private", owner: str = "ann") -> Place:  # noqa: A002  the word for it
    """Return a place for a test."""
    return Place(project, scope, owner, id)


def value(content: str = "it is so") -> bytes:
    """Return a record for a test."""
    return json.dumps({"content": content}).encode()


class MemoryContract(PluginContract):
    """The suite of plugins that store: set `factory` and `config`, and `context` for what it needs of the node."""

    def context(self) -> Mapping[str, Any]:
        """Return parts of the context of one test: buckets in memory and the real time, unless you say otherwise."""
        return {"buckets": DictBuckets(), "clock": SystemClock()}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[MemoryStore]:
        """Open the plugin for one test."""
        async with host(self.factory, self.config, **self.context()) as store:
            yield store

    def test_it_is_a_store(self) -> None:
        """It has every method that is asked for."""

        async def steps() -> None:
            async with self.opened() as store:
                assert isinstance(store, MemoryStore)

        self.run(steps())

    def test_keeps_and_gives_back(self) -> None:
        """What was stored is there, whole, also the largest; what was not is not."""

        async def steps() -> None:
            async with self.opened() as store:
                assert await store.get(place("none")) is None
                for number, content in enumerate((b"{}", value("\x00 ünï\n" * 10), b'"' + b"x" * 400_000 + b'"')):
                    assert len(content) <= MEMORY_VALUE_MAX_BYTES
                    revision = await store.store(place(f"a{number}"), content)
                    kept = await store.get(place(f"a{number}"))
                    assert kept is not None
                    assert (kept.value, kept.revision, kept.place) == (content, revision, place(f"a{number}"))

        self.run(steps())

    def test_places_do_not_mix(self) -> None:
        """The same id in another project, scope or with another owner is another thing."""

        async def steps() -> None:
            places = [
                place("same"),
                place("same", project="p2"),
                place("same", project=""),
                place("same", scope="team"),
                place("same", owner="bob"),
            ]
            async with self.opened() as store:
                for number, one in enumerate(places):
                    await store.store(one, value(str(number)))
                for number, one in enumerate(places):
                    kept = await store.get(one)
                    assert kept is not None
                    assert kept.value == value(str(number))
                assert {kept.place for kept in await store.list("p1")} == {places[0], places[3], places[4]}
                assert [kept.place for kept in await store.list("p1", "team")] == [places[3]]
                assert [kept.place for kept in await store.list("p1", "private", "bob")] == [places[4]]
                assert [kept.place for kept in await store.list("")] == [places[2]]
                assert not list(await store.list("p1", "public"))

        self.run(steps())

    def test_refuses_what_comes_too_late(self) -> None:
        """A write or a removal that assumes another revision is refused, and changes nothing."""

        async def steps() -> None:
            async with self.opened() as store:
                first = await store.store(place("a"), value("1"), revision=0)
                second = await store.store(place("a"), value("2"), revision=first)
                assert second > first
                for late in (0, first):
                    await _refused(store.store(place("a"), value("late"), revision=late))
                await _refused(store.delete(place("a"), revision=first))
                kept = await store.get(place("a"))
                assert kept is not None
                assert kept.value == value("2")
                await store.delete(place("a"), revision=second)
                await store.store(place("a"), value("again"), revision=0)

        self.run(steps())

    def test_one_of_many_writers_wins(self) -> None:
        """Of many who write where nothing is, one does."""

        async def steps() -> None:
            async def write(number: int) -> bool:
                try:
                    await store.store(place("one"), value(str(number)), revision=0)
                except Conflict:
                    return False
                return True

            async with self.opened() as store:
                async with asyncio.TaskGroup() as group:
                    tries = [group.create_task(write(number)) for number in range(WRITERS)]
                assert sum(one.result() for one in tries) == 1

        self.run(steps())

    def test_removes(self) -> None:
        """What was removed is gone; to remove it again is no error."""

        async def steps() -> None:
            async with self.opened() as store:
                stored = await store.store(place("a"), value())
                assert await store.delete(place("a")) > stored
                assert await store.get(place("a")) is None
                assert not list(await store.list("p1"))
                await store.delete(place("a"))

        self.run(steps())

    def test_lets_things_expire(self) -> None:
        """What has a time goes by itself, what has none stays, and a watcher is told."""

        async def steps() -> None:
            async with self.opened() as store, _watching(store, "p1") as told:
                await store.store(place("stays"), value())
                await store.store(place("goes"), value(), ttl_s=1)
                await store.store(place("renewed"), value(), ttl_s=1)
                await store.store(place("renewed"), value("for ever"))
                async with asyncio.timeout(PATIENCE_S):
                    while await store.get(place("goes")) is not None or told.get(place("goes")) is not None:  # noqa: ASYNC110  it goes by itself
                        await asyncio.sleep(LOOK_S)
                assert {kept.place.id for kept in await store.list("p1")} == {"stays", "renewed"}
                await store.store(place("goes"), value("back"), revision=0)

        self.run(steps())

    def test_tells_who_watches(self) -> None:
        """A watcher is told what is there, then every change, and how far it is."""

        async def steps() -> None:
            async with self.opened() as store:
                await store.store(place("before"), value("1"))
                async with _watching(store, "p1") as told:
                    assert told[place("before")] == value("1")
                    await store.store(place("other", project="p2"), value())
                    await store.store(place("before"), value("2"))
                    await store.store(place("after"), value("3"))
                    await store.delete(place("after"))
                    last = await store.store(place("last"), value("4"))
                    assert await store.latest("p1") == last
                    async with asyncio.timeout(PATIENCE_S):
                        while told.get(place("last")) is None:  # noqa: ASYNC110  the watcher is told by another task
                            await asyncio.sleep(LOOK_S)
                    assert told == {
                        place("before"): value("2"), place("after"): None, place("last"): value("4")
                    }  # fmt: skip

        self.run(steps())


class EmbedderContract(PluginContract):
    """The suite of plugins that make vectors."""

    def test_makes_vectors_of_one_length(self) -> None:
        """One vector for each text, in order, finite, the same for the same text; none for none."""

        async def steps() -> None:
            async with host(self.factory, self.config) as plugin:
                assert isinstance(plugin, Embedder)
                assert plugin.model
                assert not list(await plugin.embed([]))
                texts = ["a cat", "a dog", "", "ünï\x00", "a cat", "x" * 8000]
                vectors = [list(one) for one in await plugin.embed(texts)]
                assert len(vectors) == len(texts)
                assert len({len(one) for one in vectors}) == 1
                assert vectors[0] == vectors[4]
                assert all(math.isfinite(number) for one in vectors for number in one)

        self.run(steps())


async def _refused(write: Any) -> None:
    try:
        await write
    except Conflict as error:
        assert error.code == "memory.changed", error.code  # noqa: PT017  plugin authors need no pytest to run this
        return
    raise AssertionError("a write that came too late was not refused")


@asynccontextmanager
async def _watching(store: MemoryStore, project: str) -> AsyncIterator[dict[Place, bytes | None]]:
    """Watch a project inside the block; gives what was told last of each place."""
    told: dict[Place, bytes | None] = {}
    newest: dict[Place, int] = {}
    current = asyncio.Event()

    def on_change(change: MemoryChange) -> None:
        assert change.revision > newest.get(change.place, 0), "told out of order"
        newest[change.place], told[change.place] = change.revision, change.value

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(store.watch(project, on_change, current.set))
        async with asyncio.timeout(PATIENCE_S):
            await current.wait()
        yield told
        watching.cancel()
