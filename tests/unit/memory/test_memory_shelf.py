"""What this node has just written is in its index, whenever the stores tell of it. The store here tells when it is told to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from knotwork.memory import shelf as memory_shelf
from knotwork.memory.model import Author, Record
from knotwork.memory.settings import Settings
from knotwork.memory.shelf import open_shelf
from knotwork.sdk.errors import Unavailable
from knotwork.sdk.memory import MemoryChange, Place

PLACE = Place("p", "private", "a", "m1")
OLD = Place("p", "private", "a", "m0")


class Slow:
    """A store that tells of what it has when it is let."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.followed = asyncio.Event()
        self.current = asyncio.Event()

    async def latest(self, _realm):
        return 0

    async def watch(self, _realm, on_change, on_current):
        self.followed.set()
        on_change(MemoryChange(OLD, None, 1))
        await self.current.wait()
        on_current()
        self.told.set()
        await asyncio.Event().wait()


def record(memory: str) -> Record:
    return Record(
        id=memory, scope="private", owner="a", category="recent", author=Author("a", "a", "agent"), created_ns=1,
        updated_ns=1, content="all at once",
    )  # fmt: skip


async def test_what_was_written_before_the_store_told_everything_is_found():
    store = Slow()
    around = SimpleNamespace(settings=Settings, slot=lambda _instance: SimpleNamespace(plugin=store))
    async with asyncio.timeout(60), open_shelf("p", around, None, common=False) as shelf:
        await store.followed.wait()
        shelf.put(PLACE, record("m1"), 2)  # written by us; the store tells of it later
        store.current.set()
        await store.told.wait()
        assert [row.record.id for row in await shelf.ask(lambda index: index.find("m1"))] == ["m1"]
        assert await shelf.ask(lambda index: index.find("m0")) == []


class Panic(BaseException):
    """What an extension in Rust raises when it panics."""


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), Panic("no")])
async def test_a_store_that_fails_while_it_is_watched_is_watched_again(error, monkeypatch):
    monkeypatch.setattr(memory_shelf, "AGAIN_S", 0.01)
    store, watch = Slow(), Slow.watch
    tries = []

    async def failing(*asked):
        tries.append(asked)
        if len(tries) == 1:
            raise error
        await watch(store, *asked)

    monkeypatch.setattr(store, "watch", failing)
    around = SimpleNamespace(settings=Settings, slot=lambda _instance: SimpleNamespace(plugin=store))
    async with asyncio.timeout(60), open_shelf("p", around, None, common=False):
        await store.followed.wait()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), Panic("no"), Unavailable("away")])
async def test_a_store_that_does_not_say_how_far_it_is_is_not_waited_for(error, monkeypatch):
    store = Slow()
    store.current.set()

    async def failing(_realm):
        raise error

    monkeypatch.setattr(store, "latest", failing)
    around = SimpleNamespace(settings=Settings, slot=lambda _instance: SimpleNamespace(plugin=store))
    async with asyncio.timeout(60), open_shelf("p", around, None, common=False) as shelf:
        await store.told.wait()
        assert await shelf.caught_up() is False
