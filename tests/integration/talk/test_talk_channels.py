"""Channels on a real server: what is said is there, in order, for those who may see it, as long as it is kept."""

from __future__ import annotations

import pytest
from tests.integration.talk.conftest import ANN, BOB, CYD

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import Conflict, Invalid, NotFound
from knotwork.talk.index_rows import Wish, cursor
from knotwork.talk.message import Draft


def texts(page) -> list[str]:
    return [one.envelope.text for one in page.messages]


async def say(talk, *words: str, channel: str = "roadmap", who=ANN, **fields) -> list[str]:
    return [(await talk.sending.to_channel(who, channel, Draft(text=text, **fields))).id for text in words]


async def test_what_is_said_is_read_in_order_with_an_envelope_of_the_node(talk):
    ids = await say(talk, "one", "two", "three")
    page = await talk.history.page(BOB, Wish(channel="roadmap"))
    assert texts(page) == ["one", "two", "three"]
    assert [one.id for one in page.messages] == ids
    first = page.messages[0]
    assert (first.envelope.who, first.to, first.envelope.scope) == (ANN, "roadmap", "team")
    assert first.at_ns > 1_600_000_000_000_000_000
    assert page.older == ""


async def test_the_newest_come_first_and_cursors_do_not_drift_while_others_talk(talk):
    await say(talk, *map(str, range(30)))
    newest = await talk.history.page(BOB, Wish(channel="roadmap", limit=10))
    assert texts(newest) == [str(number) for number in range(20, 30)]
    await say(talk, "30", "31", channel="roadmap", who=CYD)
    await say(talk, "elsewhere", channel="errors")
    older = await talk.history.page(BOB, Wish(channel="roadmap", limit=10, before=cursor(newest.older, "roadmap")[1]))
    assert texts(older) == [str(number) for number in range(10, 20)]
    oldest = await talk.history.page(BOB, Wish(channel="roadmap", limit=10, before=cursor(older.older, "roadmap")[1]))
    assert texts(oldest) == [str(number) for number in range(10)]
    assert oldest.older == ""
    after = await talk.history.page(BOB, Wish(channel="roadmap", after=cursor(newest.newer, "roadmap")[0]))
    assert texts(after) == ["30", "31"]


async def test_scopes_hide_messages_and_their_number(talk):
    await say(talk, "for me", scope="private")
    await say(talk, "for olga's", scope="personal")
    await say(talk, "for all of us", scope="team")
    await say(talk, "for everybody", scope="public")
    seen = {
        who.name: texts(await talk.history.page(who, Wish(channel="roadmap"), mark=False)) for who in (ANN, BOB, CYD)
    }
    assert seen == {
        "ann": ["for me", "for olga's", "for all of us", "for everybody"],
        "bob": ["for olga's", "for all of us", "for everybody"],
        "cyd": ["for all of us", "for everybody"],
    }
    counts = {who.name: (await talk.history.unread(who))[0].count for who in (ANN, BOB, CYD)}
    assert counts == {"ann": 0, "bob": 3, "cyd": 2}
    seen = {who.name: (await talk.history.counts(who))["roadmap"] for who in (ANN, BOB, CYD)}
    assert {name: count for name, (count, _) in seen.items()} == {"ann": 4, "bob": 3, "cyd": 2}
    assert seen["cyd"][1] < seen["bob"][1] < seen["ann"][1], "bytes tell of what is hidden, too"


async def test_unread_counts_move_by_reading_and_by_marking(talk):
    ids = await say(talk, "one", "two for @bob", "three")
    roadmap = (await talk.history.unread(BOB))[0]
    assert (roadmap.channel, roadmap.count, roadmap.mentions, roadmap.newest) == ("roadmap", 3, 1, ids[2])
    page = await talk.history.page(BOB, Wish(channel="roadmap", limit=2), unread=True)
    assert texts(page) == ["one", "two for @bob"]
    assert page.unread == 1
    assert (await talk.history.unread(BOB))[0].count == 1
    await say(talk, "four", "five")
    page = await talk.history.page(BOB, Wish(channel="roadmap", limit=1))
    assert (texts(page), page.skipped, page.unread) == (["five"], 2, 0)
    assert (await talk.history.unread(BOB))[0].count == 0
    for again in (Wish(channel="roadmap", before=cursor(page.older, "roadmap")[1]), Wish(channel="roadmap", limit=1)):
        looked = await talk.history.page(BOB, again, mark=False)
        assert looked.unread == 0  # what was read stays so
    await say(talk, "six")
    await talk.history.mark(BOB, ["roadmap"], "m999999")
    await say(talk, "seven")
    assert (await talk.history.unread(BOB))[0].count == 1
    await talk.history.mark(BOB, ["roadmap"])
    assert (await talk.history.unread(BOB))[0].count == 0
    assert (await talk.history.unread(CYD))[0].count == 7


async def test_threads_hang_together_and_stay_in_their_channel(talk):
    (root,) = await say(talk, "shall we?")
    (answer,) = await say(talk, "yes", who=BOB, reply_to=root)
    await say(talk, "no", who=CYD, reply_to=answer)
    await say(talk, "something else")
    thread = await talk.history.page(ANN, Wish(channel="roadmap", thread=root))
    assert texts(thread) == ["shall we?", "yes", "no"]
    with pytest.raises(Invalid, match="roadmap") as caught:
        await say(talk, "hm", channel="errors", reply_to=root)
    assert caught.value.code == "message.other_channel"
    (secret,) = await say(talk, "mine", scope="private")
    with pytest.raises(NotFound) as caught:
        await say(talk, "ha", who=BOB, reply_to=secret)
    assert caught.value.code == "message.not_found"


async def test_a_mention_is_told_to_whom_it_means_and_may_see_it(talk, nodes):
    await say(talk, "@bob, @cyd and @nobody: look", scope="personal")
    assert [who for who, _ in nodes.book.told] == [BOB.id]
    assert nodes.book.told[0][1]["event"] == "mention"


async def test_an_unknown_channel_names_those_there_are(talk):
    with pytest.raises(NotFound) as caught:
        await say(talk, "hello", channel="roadmpa")
    assert "Did you mean roadmap?" in str(caught.value)
    assert "parallel-work" in caught.value.hint


async def test_a_key_is_good_for_one_message(talk):
    first = await talk.sending.to_channel(ANN, "errors", Draft(text="once", key="k1"))
    again = await talk.sending.to_channel(ANN, "errors", Draft(text="once", key="k1"))
    assert (again.id, again.already, first.already) == (first.id, True, False)
    with pytest.raises(Conflict) as caught:
        await talk.sending.to_channel(ANN, "errors", Draft(text="other", key="k1"))
    assert caught.value.code == "message.key_reused"
    other = await talk.sending.to_channel(BOB, "errors", Draft(text="once", key="k1"))
    assert not other.already
    assert len((await talk.history.page(ANN, Wish(channel="errors"))).messages) == 2


async def test_a_channel_that_cannot_be_read_here_is_not_found(nodes, talk):
    """One of a newer version, or written by hand: to read it failed inside."""
    bucket = kv.Bucket(await nodes.connection(), subjects.CHANNELS)
    await bucket.put("channel.newer", b'{"name":"newer","max_messages":0}')
    for ask in (talk.history.page(BOB, Wish(channel="newer")), talk.channels.change("newer", lambda one: one)):
        with pytest.raises(NotFound) as caught:
            await ask
        assert caught.value.code == "channel.not_found"
