"""Records with a life time, and watchers whose picture is right again soon after anything."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from knotwork.bus import kv
from knotwork.bus.background import background
from knotwork.sdk.errors import Conflict, Invalid, NotFound


class Picture:
    """What a watcher has been told."""

    def __init__(self) -> None:
        self.now: dict[str, bytes] = {}
        self.current = 0
        self.gone: list[str] = []

    def on_entry(self, entry: kv.Entry) -> None:
        if entry.value is None:
            self.gone.append(entry.key)
            self.now.pop(entry.key, None)
        else:
            self.now[entry.key] = entry.value

    def on_current(self) -> None:
        self.current += 1


@contextlib.asynccontextmanager
async def watching(bucket):
    picture = Picture()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bucket.watch(picture.on_entry, picture.on_current))
        try:
            yield picture
        finally:
            task.cancel()


@pytest.fixture
async def bucket(server, connect):
    return await kv.open_bucket(await connect(server.url), "B")


async def test_put_get_update_delete(bucket):
    assert await bucket.get("a") is None
    first = await bucket.put("a", b"1")
    assert await bucket.get("a") == kv.Entry("a", b"1", first)
    with pytest.raises(Conflict):
        await bucket.create("a", b"2")
    with pytest.raises(Conflict) as caught:
        await bucket.update("a", b"2", first + 5)
    assert caught.value.code == "bus.wrong_revision"
    second = await bucket.update("a", b"2", first)
    assert second > first
    await bucket.delete("a")
    assert await bucket.get("a") is None
    third = await bucket.create("a", b"3")  # over the marker that the deletion left
    assert (await bucket.get("a")).revision == third
    assert {key: entry.value for key, entry in (await bucket.all()).items()} == {"a": b"3"}
    assert (await bucket.get("a")).value == b"3"
    await bucket.put("empty", b"")
    assert (await bucket.get("empty")).value == b""


async def test_only_one_of_many_creates(bucket):
    async def attempt(n: int) -> bool:
        try:
            await bucket.create("prize", b"%d" % n)
        except Conflict:
            return False
        return True

    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(n)) for n in range(30)]
        assert sum(task.result() for task in tasks) == 1
        await bucket.delete("prize")


@pytest.mark.parametrize(
    "key", ["", ".", "a.", ".a", "a..b", "*", "a.>", "a b", "a\r\nPUB x 0", "é", "x" * 65, "a." * 20 + "a", "a\x00"]
)
async def test_hostile_keys_never_reach_the_wire(bucket, key):
    for work in (
        bucket.get(key),
        bucket.put(key, b""),
        bucket.create(key, b""),
        bucket.delete(key),
        bucket.update(key, b"", 1),
    ):
        with pytest.raises(Invalid) as caught:
            await work
        assert caught.value.code == "bus.bad_key"


async def test_a_watcher_is_told_what_is_there_and_what_changes(bucket, until):
    for n in range(50):
        await bucket.put(f"k{n}", b"%d" % n)
    await bucket.put("k0", b"changed")
    await bucket.delete("k1")
    async with watching(bucket) as picture:
        await until(lambda: picture.current)
        expected = {f"k{n}": b"%d" % n for n in range(2, 50)} | {"k0": b"changed"}
        assert picture.now == expected
        await bucket.put("new", b"!")
        await bucket.delete("k5")
        await until(lambda: "new" in picture.now and "k5" not in picture.now)
        assert "k5" in picture.gone


async def test_an_empty_bucket_is_a_full_picture_too(bucket, until):
    async with watching(bucket) as picture:
        await until(lambda: picture.current == 1)
        assert picture.now == {}
    assert await bucket.all() == {}


async def test_two_watchers_of_a_bucket_that_changes_meanwhile(bucket, until):
    async def change(part: int) -> None:
        for n in range(150):
            await bucket.put(f"k{part}-{n % 40}", b"%d" % n)
            if n % 10 == 9:
                await bucket.delete(f"k{part}-{n % 40}")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(change(part)) for part in range(4)]
        async with watching(bucket) as one:
            await asyncio.sleep(0)
            async with watching(bucket) as two:
                for task in tasks:
                    await task
                truth = {key: entry.value for key, entry in (await bucket.all()).items()}
                await until(lambda: one.now == truth and two.now == truth)
                assert one.current == two.current == 1
    assert len(truth) > 100


async def test_what_expires_is_told(bucket, until):
    async with watching(bucket) as picture:
        start_s = time.monotonic()
        await bucket.put("short", b"", ttl_s=1)
        await bucket.put("long", b"", ttl_s=60)
        await until(lambda: "short" in picture.gone)
        assert time.monotonic() - start_s > 0.9
        assert list(picture.now) == ["long"]
    assert await bucket.get("short") is None
    await bucket.create("short", b"again")


async def test_a_watch_survives_the_death_of_the_server(server, connect, bucket, until):
    other_connection = await connect(server.url)
    other = kv.Bucket(other_connection, "B")
    await bucket.put("stays", b"1")
    await bucket.put("goes", b"1")
    async with watching(bucket) as picture:
        await until(lambda: picture.current == 1)
        for round_ in range(2, 5):
            await server.kill()
            await server.start()
            await until(lambda: other_connection.state == "connected")
            await other.put("stays", b"%d" % round_)
            await until(lambda round_=round_: picture.now.get("stays") == b"%d" % round_)
        assert set(picture.now) == {"stays", "goes"}


async def test_what_vanished_during_a_gap_is_told(make_server, connect, until, proxy, server):
    near = await connect(proxy.url)
    far = await connect(server.url)
    bucket, other = await kv.open_bucket(near, "B"), kv.Bucket(far, "B")
    for key in ("stays", "deleted", "purged"):
        await other.put(key, b"1")
    async with watching(bucket) as picture:
        await until(lambda: picture.current == 1)
        proxy.dead = True
        proxy.cut()
        await until(lambda: near.state == "reconnecting")
        await other.delete("deleted")
        await far.request("$JS.API.STREAM.PURGE.KV_B", b'{"filter":"$KV.B.purged"}')  # leaves no marker
        await other.put("new", b"1")
        proxy.dead = False
        await until(lambda: picture.current >= 2)
        assert set(picture.now) == {"stays", "new"}
        assert {"deleted", "purged"} <= set(picture.gone)


async def test_a_link_that_falls_silent_does_not_stop_a_watch(proxy, server, connect, until):
    near = await connect(proxy.url, ping_s=0.5)
    bucket = await kv.open_bucket(near, "B")
    other = kv.Bucket(await connect(server.url), "B")
    async with watching(bucket) as picture:
        await until(lambda: picture.current == 1)
        proxy.stall()
        await other.put("x", b"1")
        await until(lambda: picture.now == {"x": b"1"})


async def test_a_bucket_that_does_not_exist_is_told(server, connect):
    bucket = kv.Bucket(await connect(server.url), "NONE")
    with pytest.raises(NotFound):
        await bucket.watch(lambda entry: None, lambda: None)
    with pytest.raises(NotFound):
        await bucket.all()


async def test_consumers_are_not_left_behind(server, connect, bucket, until):
    from knotwork.bus import streams

    connection = bucket._connection
    for _ in range(5):
        async with watching(bucket) as picture:
            await until(lambda picture=picture: picture.current == 1)
    await connection.round_trip()
    async with asyncio.timeout(30):
        while (await streams.api(connection, "CONSUMER.NAMES.KV_B"))["total"]:
            await asyncio.sleep(0.01)


async def test_a_large_picture_is_complete(bucket, until):
    from knotwork.bus import publisher

    messages = [(f"$KV.B.k{n}", bytes(200), b"") for n in range(5000)]
    await publisher.publish_many(bucket._connection, messages)
    assert len(await bucket.all()) == 5000


async def test_no_room_for_a_goodbye_does_not_replace_a_cancel(bucket, monkeypatch):
    from knotwork.bus import wire

    current = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bucket.watch(lambda _entry: None, current.set))
        await current.wait()
        monkeypatch.setattr(wire, "BUFFER_MAX_BYTES", -1)
        task.cancel()
    assert task.cancelled()


async def test_who_cannot_deal_with_one_record_is_told_of_the_others(bucket, caplog):
    await bucket.put("a", b"1")
    await bucket.put("odd", b"2")
    told, current = [], asyncio.Event()

    def on_entry(entry: kv.Entry) -> None:
        if entry.key == "odd":
            raise ValueError
        told.append(entry.key)
        changed.set()

    changed = asyncio.Event()
    async with asyncio.timeout(30), background() as group:
        group.create_task(bucket.watch(on_entry, current.set))
        await current.wait()
        changed.clear()
        await bucket.put("odd", b"3")
        await bucket.put("b", b"4")
        await changed.wait()
    assert told == ["a", "b"]
    assert "odd cannot be dealt with" in caplog.text


async def test_who_swaps_in_what_somebody_else_changed_meanwhile_reads_again(bucket):
    assert await bucket.swap("a", None, b"1")
    read = await bucket.get("a")
    assert not await bucket.swap("a", None, b"2")
    assert await bucket.swap("a", read, b"2")
    assert not await bucket.swap("a", read, b"3")
    assert (await bucket.get("a")).value == b"2"
