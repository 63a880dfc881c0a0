"""Inboxes on a real server: durable, read once, never eaten by a filter, acknowledged, bounded."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.integration.talk.conftest import ANN, BOB, CYD, OLGA
from tests.integration.work.conftest import PATIENCE_S, until

from knotwork.bus import reading, subjects
from knotwork.sdk.errors import Conflict, Denied, Invalid, NotFound, TooLarge, Unavailable
from knotwork.talk import contact, inbox_state, message
from knotwork.talk.inbox_state import Wish
from knotwork.talk.message import Draft
from knotwork.talk.stores import INBOX_MAX


async def write(talk, *words: str, to=BOB, who=ANN, **fields) -> list[str]:
    return [(await talk.sending.to_agent(who, to.id, Draft(text=text, **fields))).id for text in words]


async def read(talk, who=BOB, *, mark: bool = True, **wish) -> list[str]:
    return [one.envelope.text for one in (await talk.inboxes.read(who.id, Wish(**wish), mark=mark)).messages]


async def test_messages_wait_for_their_reader_and_are_shown_once(nodes):
    async with nodes.open("one") as talk:
        await write(talk, "one", "two")
    async with nodes.open("two") as talk:
        await write(talk, "three", who=CYD)
        assert await read(talk, mark=False) == ["one", "two", "three"]
        assert await read(talk, limit=2) == ["one", "two"]
        assert await talk.inboxes.unread(BOB.id) == 1
        assert await read(talk) == ["three"]
        assert await read(talk) == []
        assert await read(talk, all=True) == ["one", "two", "three"]
    assert [agent for agent, _ in nodes.book.told] == [BOB.id] * 3


async def test_filters_do_not_eat_what_they_pass_over(talk):
    await write(talk, "a1", "a2", kind="question")
    await write(talk, "c1", who=CYD, priority=9)
    (root,) = await write(talk, "a3")
    await write(talk, "c2", who=CYD, reply_to="", kind="question")
    assert await read(talk, sender=CYD.id) == ["c1", "c2"]
    assert await read(talk, kind="question") == ["a1", "a2"]
    assert await read(talk, thread=root) == ["a3"]
    assert await read(talk, priority=9, all=True) == ["c1"]
    assert await read(talk) == []
    assert await talk.inboxes.unread(BOB.id) == 0


async def test_what_was_read_out_of_order_stays_read_when_the_rest_follows(talk):
    for number in range(20):
        await write(talk, str(number), kind="odd" if number % 2 else "even")
    assert await read(talk, kind="odd") == [str(number) for number in range(1, 20, 2)]
    assert await read(talk, limit=3) == ["0", "2", "4"]
    assert await read(talk) == [str(number) for number in range(6, 20, 2)]
    assert await read(talk) == []
    state = await talk.inboxes.state(BOB.id)
    assert state.done == () or len(state.done) <= 20
    await write(talk, "20")
    assert await read(talk) == ["20"]
    await read(talk)
    assert (await talk.inboxes.state(BOB.id)).is_done(20)


async def test_the_most_urgent_come_first_when_asked(talk):
    for number, priority in enumerate((3, 9, 5, 9, 1)):
        await write(talk, str(number), priority=priority)
    assert await read(talk, urgent=True, limit=3) == ["1", "3", "2"]
    assert await read(talk) == ["0", "4"]


async def test_what_asks_for_it_is_shown_again_until_acknowledged(talk, monkeypatch):
    (wanted,) = await write(talk, "be sure", ack=True)
    await write(talk, "by the way")
    assert await read(talk) == ["be sure", "by the way"]
    shown = await talk.inboxes.read(BOB.id, inbox_state.Wish())
    assert (shown.messages, shown.unread, await talk.inboxes.unread(BOB.id)) == ([], 0, 0)  # nothing to be shown now
    monkeypatch.setattr(inbox_state, "AGAIN_S", 0.0)
    assert await talk.inboxes.unread(BOB.id) == 1
    assert await read(talk) == ["be sure"]
    assert await talk.inboxes.unread(BOB.id) == 1
    state = await talk.inboxes.state(BOB.id)
    one = await talk.inboxes.get(message.place_of(wanted)[1], ANN)
    assert state.status(one) == "read"
    await talk.inboxes.ack(BOB, [one.place])
    await talk.inboxes.ack(BOB, [one.place])
    assert await read(talk) == []
    assert (await talk.inboxes.state(BOB.id)).status(one) == "acked"
    assert await talk.inboxes.unread(BOB.id) == 0


async def test_nobody_gets_at_the_messages_of_others(talk):
    (sent,) = await write(talk, "between us")
    place = message.place_of(sent)[1]
    assert (await talk.inboxes.get(place, ANN)).envelope.text == "between us"
    assert (await talk.inboxes.get(place, BOB)).envelope.text == "between us"
    for ask in (talk.inboxes.get(place, CYD), talk.inboxes.ack(CYD, [place]), talk.inboxes.ack(ANN, [place])):
        with pytest.raises(NotFound) as caught:
            await ask
        assert caught.value.code == "message.not_found"
    with pytest.raises(NotFound):
        await talk.sending.reply(CYD, Draft(text="me too", reply_to=sent))
    assert await read(talk, CYD) == []


async def test_of_two_readers_each_message_reaches_one(nodes):
    one, two = await nodes.here("one"), await nodes.here("two")
    for number in range(60):
        await write(one, str(number))
    got: list[str] = []

    async def take(talk) -> None:
        while found := await read(talk, limit=4):
            got.extend(found)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for talk in (one, two, one, two):
            group.create_task(take(talk))
    assert sorted(got, key=int) == [str(number) for number in range(60)]


async def test_an_answer_nobody_got_is_unread_again(talk):
    await write(talk, "one", "two")
    shown = await talk.inboxes.read(BOB.id, Wish())
    assert len(shown.messages) == 2
    talk.inboxes.take_back_soon(BOB.id, shown.messages)
    assert await until(lambda: read(talk)) == ["one", "two"]


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_what_was_written_down_and_not_answered_is_unread_again(talk, monkeypatch, how):
    counting = asyncio.Event()

    async def count(*_: object) -> int:  # what follows the writing, and has no part in it
        counting.set()
        if how == "failed":
            raise Unavailable("NATS was away.", code="bus.lost", retry_after_s=1.0)
        return await asyncio.Event().wait()

    async def look() -> None:
        with pytest.raises(Unavailable):
            await talk.inboxes.read(BOB.id, Wish())

    await write(talk, "one", "two")
    with monkeypatch.context() as patched:
        patched.setattr(talk.inboxes, "_unread", count)
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(look())
            await counting.wait()
            looking.cancel()
    assert await until(lambda: read(talk)) == ["one", "two"]


async def test_what_is_on_its_way_when_a_reader_is_cancelled_comes_too_late(talk, monkeypatch):
    save, late = talk.inboxes._reads.save, []

    async def hold_up(*state: object) -> None:
        if late:
            return await save(*state)
        late.append(state)
        return await asyncio.Event().wait()

    await write(talk, "one")
    monkeypatch.setattr(talk.inboxes._reads, "save", hold_up)
    _, revision = await talk.inboxes._reads.inbox(BOB.id)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(talk.inboxes.read(BOB.id, Wish()))
        await until(lambda: asyncio.sleep(0, late))
        looking.cancel()

    async def forestalled() -> bool:
        return (await talk.inboxes._reads.inbox(BOB.id))[1] != revision

    await until(forestalled)
    with pytest.raises(Conflict):
        await save(*late[0])
    assert await read(talk) == ["one"]


async def test_an_answer_nobody_got_is_unread_again_whatever_was_read_since(talk):
    await write(talk, "one", "two", "three")
    lost = await talk.inboxes.read(BOB.id, Wish(limit=1))
    assert [await read(talk, limit=1) for _ in range(3)] == [["two"], ["three"], []]
    talk.inboxes.take_back_soon(BOB.id, lost.messages)
    assert await until(lambda: read(talk)) == ["one"]


async def test_who_asks_again_with_a_key_waits_for_what_is_being_made_unread(talk, monkeypatch):
    save, change, failed = talk.inboxes._reads.save, talk.inboxes._reads.change, []
    going, again = asyncio.Event(), asyncio.Event()

    async def written_and_not_told(*state: object) -> None:
        await save(*state)
        if not failed:
            failed.append(state)
            raise Unavailable("The connection was lost.", code="bus.lost", retry_after_s=1.0)

    async def late(*args: object) -> object:
        going.set()
        await again.wait()
        return await change(*args)

    await write(talk, "one")
    with monkeypatch.context() as patched:
        patched.setattr(talk.inboxes._reads, "save", written_and_not_told)
        patched.setattr(talk.inboxes._reads, "change", late)
        with pytest.raises(Unavailable):
            await read(talk, key="k")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(read(talk, key="k"))
            await going.wait()
            for _ in range(20):  # more often than a reader who does not wait has to ask
                await talk.inboxes.state(BOB.id)
            again.set()
    assert asking.result() == ["one"]
    assert await until(lambda: settled(talk))
    assert await read(talk) == []


async def settled(talk) -> bool:
    return not talk.inboxes._backs


async def test_those_that_are_named_alone_are_shown(talk):
    first, second, third = (message.place_of(one)[1] for one in await write(talk, "one", "two", "three"))
    assert await read(talk, places=frozenset((third, first))) == ["one", "three"]
    assert await read(talk, places=frozenset((first,))) == []
    assert await read(talk) == ["two"]
    assert await read(talk, places=frozenset((second,)), all=True) == ["two"]


async def test_who_asks_again_with_the_same_key_is_shown_the_same(nodes):
    async with nodes.open("one") as talk:
        await write(talk, "one", "two", "three")
        assert await read(talk, key="k1", limit=2) == ["one", "two"]
    async with nodes.open("two") as talk:
        await write(talk, "four")
        assert await read(talk, key="k1", limit=2) == ["one", "two"]
        assert await read(talk, key="k1", mark=False) == ["one", "two"]
        assert [one.envelope.text for one in (await talk.inboxes.wait(BOB.id, Wish(key="k1"), PATIENCE_S)).messages] == [
            "one", "two",
        ]  # fmt: skip
        assert await read(talk, key="k2", limit=1) == ["three"]
        assert await read(talk, key="k1") == ["one", "two"]  # whoever else read meanwhile
        assert await read(talk) == ["four"]
        assert await read(talk, CYD, key="k1") == []
        await write(talk, "five")
        shown = await talk.inboxes.read(BOB.id, Wish(key="k3"))
        talk.inboxes.take_back_soon(BOB.id, shown.messages)
        assert await until(lambda: read(talk, mark=False)) == ["five"]
        assert await read(talk, key="k3") == ["five"]
        for number in range(inbox_state.KEYS_MAX):
            await write(talk, str(number))
            assert await read(talk, key=f"later{number}") == [str(number)]
        assert await read(talk, key="k1") == []  # the last few readings are remembered


async def test_who_waits_is_woken_at_once_and_by_what_he_waits_for(talk):
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(talk.inboxes.wait(BOB.id, Wish(sender=CYD.id), PATIENCE_S))
        await asyncio.sleep(0)
        await write(talk, "not this one")
        sent_s = time.monotonic()
        await write(talk, "this one", who=CYD)
        shown = await waiting
    assert [one.envelope.text for one in shown.messages] == ["this one"]
    assert time.monotonic() - sent_s < PATIENCE_S / 2
    assert await read(talk) == ["not this one"]
    assert (await talk.inboxes.wait(BOB.id, Wish(), 0.05)).messages == []


async def test_answers_hang_together(talk):
    (sent,) = await write(talk, "how many?")
    answer = await talk.sending.reply(BOB, Draft(text="three", reply_to=sent))
    assert (answer.to, answer.thread) == (ANN, sent)
    again = await talk.sending.reply(ANN, Draft(text="thanks", reply_to=answer.id))
    assert (again.to, again.thread) == (BOB, sent)
    assert await read(talk, ANN, thread=sent) == ["three"]
    assert await read(talk, BOB, thread=sent) == ["how many?", "thanks"]


async def test_a_capability_is_written_to_once_for_each(talk, nodes):
    nodes.book.capabilities["review"] = [ANN, BOB, CYD, OLGA]
    done = await talk.sending.to_capability(ANN, "review", Draft(text="who has time?"))
    assert sorted(one.to.name for one in done.sent) == ["bob", "cyd", "olga"]
    assert len({one.id for one in done.sent}) == 3
    for who in (BOB, CYD, OLGA):
        (one,) = (await talk.inboxes.read(who.id, Wish())).messages
        answer = await talk.sending.reply(who, Draft(text=who.name, reply_to=one.id))
        assert answer.thread == done.thread
    assert sorted(await read(talk, ANN, thread=done.thread)) == ["bob", "cyd", "olga"]
    with pytest.raises(NotFound) as caught:
        await talk.sending.to_capability(ANN, "nothing", Draft(text="x"))
    assert caught.value.code == "message.nobody"


async def test_a_message_that_is_over_is_seen_by_nobody(talk):
    soon_ns = time.time_ns() + 1_500_000_000
    await write(talk, "soon gone", expires_ns=soon_ns)
    await write(talk, "stays")
    found = await read(talk, mark=False)
    assert found == ["soon gone", "stays"] or time.time_ns() > soon_ns  # on a slow machine it may be gone already

    async def gone() -> bool:
        return await read(talk, mark=False) == ["stays"]

    await until(gone)

    async def forgotten() -> bool:
        stored = await reading.batch(talk.inboxes._connection, subjects.INBOXES, subjects.inbox(BOB.id), 1, 10)
        return len(stored) == 1

    await until(forgotten)  # the server itself removes it
    with pytest.raises(Invalid) as caught:
        await write(talk, "too late", expires_ns=time.time_ns() - 1)
    assert caught.value.code == "message.expired"


async def test_a_full_inbox_takes_nothing_more_and_loses_nothing(talk):
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(INBOX_MAX):
            group.create_task(write(talk, str(number)))
    with pytest.raises(Unavailable) as caught:
        await write(talk, "one too many")
    assert caught.value.code == "message.inbox_full"
    await write(talk, "others get theirs", to=CYD)
    shown = await read(talk, limit=10)
    await write(talk, "now there is room")
    left = await read(talk, limit=1000)
    assert len(shown) == 10
    assert left[-1] == "now there is room"
    assert len(left) == INBOX_MAX - 10 + 1
    assert {*shown, *left} == {*map(str, range(INBOX_MAX)), "now there is room"}


async def test_large_messages_are_whole_and_larger_ones_refused(talk):
    text = "x" * (1024 * 1024)
    await write(talk, *[text] * 6)
    shown = await talk.inboxes.read(BOB.id, Wish())
    assert [one.envelope.text == text for one in shown.messages] == [True] * 3
    assert shown.more
    assert (await read(talk)) == [text] * 3
    with pytest.raises(TooLarge) as caught:
        await write(talk, text + "y" * 20_000)
    assert (caught.value.code, "blob put" in caught.value.hint) == ("message.too_large", True)


async def test_the_contact_policy_is_kept(talk):
    await talk.channels.set_policy(contact.checked("allow-list", ["ann>*", "*>owner=carl"]))
    (sent,) = await write(talk, "hello")
    await write(talk, "hello", who=BOB, to=CYD)
    with pytest.raises(Denied) as caught:
        await write(talk, "psst", who=CYD, to=BOB)
    assert caught.value.code == "contact.denied"
    await talk.sending.reply(BOB, Draft(text="an answer is allowed", reply_to=sent))
    with pytest.raises(Denied):
        await write(talk, "but this is none", who=BOB, to=ANN)
    await talk.channels.set_policy(contact.checked("none", []))
    with pytest.raises(Denied):
        await write(talk, "hello")
    with pytest.raises(Denied):
        await talk.sending.reply(BOB, Draft(text="hm", reply_to=sent))


async def test_a_policy_reaches_other_nodes(nodes):
    one, two = await nodes.here("one"), await nodes.here("two")
    await one.channels.set_policy(contact.checked("none", []))
    await until(lambda: two.channels.policy.mode == "none")


async def test_a_key_is_good_for_one_message_to_each(talk):
    first = await talk.sending.to_agent(ANN, "bob", Draft(text="pay", key="invoice-17"))
    again = await talk.sending.to_agent(ANN, "bob", Draft(text="pay", key="invoice-17"))
    assert (again.id, again.already) == (first.id, True)
    assert not (await talk.sending.to_agent(ANN, "cyd", Draft(text="pay", key="invoice-17"))).already
    with pytest.raises(Conflict) as caught:
        await talk.sending.to_agent(ANN, "bob", Draft(text="pay twice", key="invoice-17"))
    assert caught.value.code == "message.key_reused"
    assert await read(talk) == ["pay"]


async def test_what_is_not_there_has_one_error(talk):
    for bad in ("d99999", "m99999"):
        with pytest.raises(NotFound) as caught:
            await talk.get(bad, ANN)
        assert caught.value.code == "message.not_found"
    with pytest.raises(NotFound) as caught:
        await talk.sending.to_agent(ANN, "nobody", Draft(text="x"))
    assert caught.value.code == "agent.not_found"
    with pytest.raises(Invalid) as caught:
        await talk.sending.to_agent(ANN, "bob", Draft())
    assert caught.value.code == "message.empty"


async def test_many_who_find_an_inbox_full_of_read_messages_all_get_in(talk):
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(INBOX_MAX):
            group.create_task(write(talk, str(number)))
    assert len(await read(talk, limit=1000)) == INBOX_MAX
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(write(talk, f"more {number}"))
    assert len(await read(talk, limit=1000)) == 300


async def test_one_message_that_is_never_read_lets_the_others_come_and_go(talk):
    await write(talk, "never read", kind="other")
    total = 0
    while total < 3 * INBOX_MAX:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(write(talk, str(number)))
        while found := await read(talk, kind="text", limit=100):
            total += len(found)
    state = await talk.inboxes.state(BOB.id)
    assert len(state.done) <= INBOX_MAX
    assert await read(talk, kind="text") == []
    assert await talk.inboxes.unread(BOB.id) == 1
    assert await read(talk) == ["never read"]
