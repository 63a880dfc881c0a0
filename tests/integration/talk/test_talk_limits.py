"""What channels keep: so many messages, so many bytes, so long; exactly so for readers, nearly so in the stream."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time

import msgspec
import pytest
from tests.integration.talk.conftest import ANN, BOB
from tests.integration.talk.test_talk_channels import say, texts
from tests.integration.work.conftest import PATIENCE_S, until

from knotwork.bus import publisher, reading, streams, subjects
from knotwork.sdk.errors import Conflict, Invalid, NotFound
from knotwork.talk import channel as settings
from knotwork.talk import following
from knotwork.talk.channel import Channel
from knotwork.talk.index_rows import Wish, cursor
from knotwork.talk.message import Draft


async def seen(talk, channel: str, who=BOB) -> list[str]:
    return texts(await talk.history.page(who, Wish(channel=channel, limit=1000), mark=False))


async def stored(talk, channel: str) -> int:
    return await reading.count_from(talk.inboxes._connection, subjects.TALK, subjects.channel(channel), 1)


async def test_the_oldest_go_when_there_are_too_many(talk):
    await talk.channels.create(Channel("few", max_messages=10))
    await say(talk, *map(str, range(35)), channel="few")
    assert await seen(talk, "few") == [str(number) for number in range(25, 35)]
    await talk.following.trim()
    assert await stored(talk, "few") == 10
    await say(talk, "not touched", channel="errors")
    await talk.channels.change("few", lambda one: msgspec.structs.replace(one, max_messages=3))
    assert await seen(talk, "few") == ["32", "33", "34"]

    async def gone() -> bool:
        return await stored(talk, "few") == 3

    await until(gone)
    assert await seen(talk, "errors") == ["not touched"]


async def test_the_oldest_go_when_they_are_too_large(talk):
    await talk.channels.create(Channel("small", max_bytes=settings.BYTES_MIN))
    large = "x" * 600_000
    await say(talk, *(f"{number}{large}" for number in range(5)), channel="small")
    assert [text[0] for text in await seen(talk, "small")] == ["2", "3", "4"]
    talk.following.changed()

    async def gone() -> bool:
        return await stored(talk, "small") == 3

    await until(gone)


async def test_what_is_too_old_is_not_seen(talk):
    await talk.channels.create(Channel("brief", max_age_s=3600))
    await say(talk, "one", "two", channel="brief")
    assert await seen(talk, "brief") == ["one", "two"]
    await talk.channels.change("brief", lambda one: msgspec.structs.replace(one, max_age_s=1.0))

    async def over() -> bool:
        return await seen(talk, "brief") == []

    await until(over)
    await say(talk, "three", channel="brief")
    assert await seen(talk, "brief") == ["three"]


async def test_limits_hold_on_every_node_and_over_restarts(nodes):
    async with nodes.open("one") as one, nodes.open("two") as two:
        await one.channels.create(Channel("few", max_messages=5))
        await say(one, *map(str, range(8)), channel="few")
        await say(two, "8", "9", channel="few")
        assert await seen(one, "few") == await seen(two, "few") == ["5", "6", "7", "8", "9"]
        with pytest.raises(Conflict):
            await two.channels.create(Channel("few"))
    async with nodes.open("one") as one:
        assert await seen(one, "few") == ["5", "6", "7", "8", "9"]
        assert (await one.channels.get("few")).max_messages == 5


async def test_an_archived_channel_can_be_read_and_takes_nothing(talk):
    await say(talk, "before")
    await talk.channels.change("roadmap", lambda one: msgspec.structs.replace(one, archived_ns=1))
    with pytest.raises(Conflict) as caught:
        await say(talk, "after")
    assert caught.value.code == "channel.archived"
    assert await seen(talk, "roadmap") == ["before"]
    assert "roadmap" not in [one.channel for one in await talk.history.unread(BOB)]
    await talk.channels.change("roadmap", lambda one: msgspec.structs.replace(one, archived_ns=0))
    await say(talk, "after")
    assert await seen(talk, "roadmap") == ["before", "after"]


async def test_two_who_make_the_same_channel_make_one(nodes):
    one, two = await nodes.here("one"), await nodes.here("two")

    async def make(talk) -> bool:
        try:
            await talk.channels.create(Channel("same"))
        except Conflict as error:
            assert error.code == "channel.exists"
            return False
        return True

    async with asyncio.TaskGroup() as group:
        made = [group.create_task(make(talk)) for talk in (one, two)]
    assert sorted(task.result() for task in made) == [False, True]


@pytest.mark.parametrize("damage", ["garbage", "gone", "other version"])
async def test_a_damaged_index_is_read_again_from_the_stream(nodes, damage):
    file = nodes.folder / "here" / "default.db"
    async with nodes.open() as talk:
        await say(talk, "one", "two words")
        assert await seen(talk, "roadmap") == ["one", "two words"]
    if damage == "garbage":
        file.write_bytes(b"\x00garbage" * 1000)
    elif damage == "gone":
        file.unlink()
    else:
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 999")
        db.close()
    async with nodes.open() as talk:
        assert await seen(talk, "roadmap") == ["one", "two words"]
        (found,) = await talk.history.search(BOB, "words", Wish())
        assert found.envelope.text == "two words"


async def test_an_index_that_breaks_under_us_is_read_again(talk, nodes):
    await say(talk, "one")
    assert await seen(talk, "roadmap") == ["one"]
    db = talk.following._index._db
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all of it is in the file, and nothing in memory
    (nodes.folder / "here" / "default.db").write_bytes(b"\xff" * 65536)
    db.execute("PRAGMA shrink_memory")
    await say(talk, "two")
    assert await seen(talk, "roadmap") == ["one", "two"]
    assert talk.following._index.made == 1


async def test_an_index_of_another_stream_is_forgotten(nodes, tmp_path):
    async with nodes.open() as talk:
        await say(talk, "one", "two")
        assert len(await seen(talk, "roadmap")) == 2
    connection = await nodes.connection()
    await streams.api(connection, f"STREAM.DELETE.{subjects.TALK}")
    async with nodes.open() as talk:
        await say(talk, "new")
        assert await seen(talk, "roadmap") == ["new"]


async def test_what_others_put_into_the_streams_harms_nobody(talk):
    connection = talk.inboxes._connection
    for garbage in (b"", b"not json", b'{"sender": 7}', b"[" * 10_000, b'{"sender":"x"}'):
        await publisher.publish(connection, "channel.roadmap", garbage)
        await publisher.publish(connection, subjects.inbox(BOB.id), garbage)
    await publisher.publish(connection, "channel.Not-A-Token", b"{}")
    await say(talk, "still here")
    assert await seen(talk, "roadmap") == ["still here"]
    assert (await talk.history.unread(BOB))[0].count == 1
    assert await talk.history.search(BOB, "still", Wish())


async def test_searching_finds_words_phrases_and_beginnings_and_hides_what_is_hidden(talk):
    await say(talk, "The parser fails on Ärger", "another message", 'say "hello there" now')
    await say(talk, "a secret parser", scope="private")
    await say(talk, "with data", data={"path": "src/parser.py"})

    async def found(query: str, who=BOB, **wish) -> list[str]:
        return [one.envelope.text for one in await talk.history.search(who, query, Wish(**wish))]

    assert await found("parser") == ["with data", "The parser fails on Ärger"]
    assert "a secret parser" in await found("parser", ANN)
    assert await found("arger FAILS") == ["The parser fails on Ärger"]
    assert await found('"hello there"') == ['say "hello there" now']
    assert await found("anoth*") == ["another message"]
    assert await found("nothing of that") == []
    assert await found("parser", channel="errors") == []
    assert await found("ann") != []
    for hostile in ('"', "* AND (", "NEAR(a b)", 'text:x"', "a" * 1024, "-x", "^x", "\x00a", "a OR b*c"):
        try:
            await found(hostile)
        except Invalid as error:
            assert error.code == "message.bad_query"
    with pytest.raises(NotFound):
        await found("x", channel="nowhere")


async def test_words_of_what_is_gone_are_found_no_more(talk):
    await talk.channels.create(Channel("few", max_messages=2))
    await say(talk, "walnut", "hazelnut", channel="few")
    assert len(await talk.history.search(BOB, "walnut", Wish())) == 1
    await say(talk, "one", "two", channel="few")
    assert await talk.history.search(BOB, "walnut", Wish()) == []
    left = talk.following._index._db.execute("SELECT count(*) FROM words WHERE words MATCH 'walnut'").fetchone()
    assert left == (0,)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("数据库周五搬家", ("数据", "周五", "搬*", '"数据库周五"')),
        ("データベースは金曜に移す", ("ベース", "金曜", "デ*")),
        ("ฐานข้อมูลย้ายวันศุกร์", ("ข้อมูล", "วันศุกร์")),
        ("the v2数据库 moves", ("v2数据", "数据库 moves", "数据")),
    ],
)
async def test_parts_of_what_is_written_without_spaces_are_found(talk, text, parts):
    await talk.sending.to_channel(ANN, "roadmap", Draft(text=text))
    await talk.sending.to_agent(ANN, BOB.id, Draft(text=text))
    for part in parts:
        for found in (await talk.history.search(BOB, part, Wish()), await talk.history.search_inbox(BOB, part)):
            assert [one.envelope.text for one in found] == [text], part
    backwards = text[::-1]
    assert await talk.history.search(BOB, backwards, Wish()) == await talk.history.search_inbox(BOB, backwards) == []


async def test_an_inbox_is_searched_without_reading_it(talk):
    for text in ("the plan is ready", "lunch?"):
        await talk.sending.to_agent(ANN, "bob", Draft(text=text))
    found = await talk.history.search_inbox(BOB, "plan")
    assert [one.envelope.text for one in found] == ["the plan is ready"]
    assert await talk.history.search_inbox(ANN, "plan") == []
    assert await talk.inboxes.unread(BOB.id) == 2


async def test_who_watches_hears_what_he_may_and_misses_nothing(talk):
    got: list[str] = []
    page = await talk.history.page(BOB, Wish(channel="roadmap"))
    await say(talk, "before he came")

    async def listen() -> None:
        async with contextlib.aclosing(talk.history.watch(BOB, "roadmap", cursor(page.newer, "roadmap")[0])) as said:
            async for one in said:
                got.append(one.envelope.text)
                if len(got) == 4:
                    return

    await say(talk, "0")
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(listen())
        await say(talk, "hidden", scope="private")
        await say(talk, "1")
        await say(talk, "2")
    assert got == ["before he came", "0", "1", "2"]


async def test_much_is_said_and_the_stream_stays_near_its_limit(talk, monkeypatch):
    monkeypatch.setattr(following, "TRIM_S", 0.05)
    await talk.channels.create(Channel("busy", max_messages=100))
    for round_ in range(6):
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(say(talk, f"{round_}-{number}", channel="busy"))

    async def near() -> bool:
        return await stored(talk, "busy") <= 105

    await until(near)
    assert len(await seen(talk, "busy")) == 100


async def test_what_is_over_by_itself_takes_no_room_from_others(talk):
    await talk.channels.create(Channel("few", max_messages=3))
    await say(talk, "kept", channel="few")
    soon_ns = time.time_ns() + 1_200_000_000
    await say(talk, "soon gone", "soon gone, too", channel="few", expires_ns=soon_ns)
    found = await seen(talk, "few"), len(await talk.history.search(BOB, "gone", Wish()))
    assert found == (["kept", "soon gone", "soon gone, too"], 2) or time.time_ns() > soon_ns  # a slow machine

    async def gone() -> bool:
        return await seen(talk, "few") == ["kept"]

    await until(gone)
    await say(talk, "one", "two", channel="few")
    assert await seen(talk, "few") == ["kept", "one", "two"]
    assert await talk.history.search(BOB, "gone", Wish()) == []
    assert (await talk.history.counts(ANN))["few"][0] == 3
