"""The ops on a real server: whatever they are asked, the answer is one that helps, and nobody sees what is not his."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
import pytest_asyncio
from tests.integration.talk.conftest import ANN, BOB, CYD
from tests.integration.work.conftest import until

from knotwork.bus import publisher
from knotwork.bus.blobs import Blobs
from knotwork.desk.talk import TalkDesk
from knotwork.mcp import message_values, wording
from knotwork.ops import serve, table
from knotwork.ops.op import Caller
from knotwork.trust.scopes import SCOPES, may_see
from knotwork.trust.who import Who

TALK = [op for op in table.TABLE.values() if op.room in ("channel", "message", "contact")]
STRINGS = [
    "", "roadmap", "errors", "m1", "d1", "m999", "b1", "a0", "a5", "*", ">", "channel.>", "ann", "@bob", BOB.id,
    "person-olga", "text", "team", "all", "inbox", "\x00", "\u202ex", "x" * 5000, "1h", "0", "2000-01-01", "-1", '"', "a>b",
    "sha256-" + "0" * 64, "\ud800", "none", "open", "'; DROP TABLE messages", "(", "m1\n", "ℵ", "b" + "0" * 16, "key",
]  # fmt: skip
VALUES = [
    *STRINGS,
    0,
    1,
    -1,
    10,
    1000,
    10**18,
    0.5,
    float("nan"),
    1e400,
    True,
    False,
    None,
    [],
    ["m1"],
    ["roadmap", "x"],
    {},
    {"a": 1},
]


class Door:
    """A node that has nothing but talk, asked as the NATS door does."""

    def __init__(self, talk, blobs) -> None:
        self._desk = TalkDesk(talk, blobs)

    def talk(self, _project: str) -> TalkDesk:
        return self._desk

    async def ask(self, who: Who, op: str, *, may: str = "write", lost: bool = False, **fields):
        caller = Caller(who.name, "default", "nats", may, who=who)
        raw = json.dumps(fields).encode()
        found = [frame async for frame in serve.dispatch(op, raw, caller, self)]
        if lost:
            caller.take_back()
        return found[-1].kind, json.loads(found[-1].data)

    async def must(self, who: Who, op: str, **fields):
        kind, answer = await self.ask(who, op, **fields)
        assert kind == "result", answer
        return answer


@pytest_asyncio.fixture
async def blobs(nodes):
    kept = Blobs(await nodes.connection())
    await kept.open()
    return kept


@pytest.fixture
def door(talk, blobs):
    return Door(talk, blobs)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_asked_the_answer_helps(door, seed):
    chance = random.Random(seed)
    for _ in range(5):
        await door.must(ANN, "channel.send", channel="roadmap", text="hello @bob")
        await door.must(ANN, "message.send", to="bob", text="hello")
    ops = [op for op in TALK if not op.live]
    results = 0
    for _ in range(600):
        op = chance.choice(ops)
        example = dict(chance.choice(op.examples).request)
        names = [*op.request.model_fields, "sender_id", "from"]
        for name in chance.sample(names, chance.randint(0, min(3, len(names)))):
            example[name] = chance.choice(VALUES)
        if op.name == "message.wait":
            example["wait_s"] = chance.choice([0, 0.01, -1, "x"])
        kind, answer = await door.ask(chance.choice([ANN, BOB, CYD]), op.name, **example)
        if kind == "error":
            assert answer["kind"] != "internal", (op.name, example, answer)
            assert answer["message"]
        else:
            results += 1
    assert results > 50
    await door.must(ANN, "channel.list")


async def test_a_cursor_is_of_its_channel_and_of_what_was_said(door):
    for number in range(5):
        await door.must(ANN, "channel.send", channel="roadmap", text=f"r{number}")
        await door.must(ANN, "message.send", to="bob", text=f"d{number}")
    page = await door.must(BOB, "channel.read", channel="roadmap", limit=2)
    inbox = (await door.must(BOB, "message.inbox", limit=2))["newer"]
    before = await door.must(BOB, "channel.read", channel="roadmap", cursor=page["older"])
    assert [one["text"] for one in before["messages"]] == ["r0", "r1", "r2"]
    assert (await door.must(BOB, "channel.read", channel="roadmap", cursor=page["newer"]))["messages"] == []
    wrong = [("errors", page["older"]), ("errors", page["newer"]), ("roadmap", inbox)]
    for channel, cursor in wrong:
        kind, answer = await door.ask(BOB, "channel.read", channel=channel, cursor=cursor)
        assert (kind, answer.get("code")) == ("error", "message.other_cursor"), cursor
    kind, answer = await door.ask(BOB, "message.inbox", cursor=page["newer"])
    assert (kind, answer.get("code")) == ("error", "message.other_cursor")
    for cursor in ("a99999999", "b99999999"):
        for op in ("channel.read", "channel.watch"):
            if (op, cursor[0]) != ("channel.watch", "b"):
                kind, answer = await door.ask(BOB, op, channel="roadmap", cursor=cursor)
                assert (kind, answer.get("code")) == ("error", "message.bad_cursor"), (op, cursor)


async def test_no_message_tells_of_a_blob_that_is_not_there(door, blobs):
    digest = f"sha256-{hashlib.sha256(b'large').hexdigest()}"
    before = await door.must(ANN, "message.send", to="bob", text="before")
    wanted = {
        "message.send": {"to": "bob"}, "channel.send": {"channel": "roadmap"}, "message.reply": {"id": before["id"]},
    }  # fmt: skip
    for op, more in wanted.items():
        kind, answer = await door.ask(BOB if op == "message.reply" else ANN, op, text="see", blob=digest, **more)
        assert (kind, answer.get("code")) == ("error", "blob.not_found"), op
    assert [one["text"] for one in (await door.must(BOB, "message.inbox"))["messages"]] == ["before"]
    assert (await door.must(BOB, "channel.read", channel="roadmap"))["messages"] == []
    assert await blobs.put(b"large") == digest
    for op, more in wanted.items():
        await door.must(BOB if op == "message.reply" else ANN, op, text="see", blob=digest, **more)
    assert [one["blob"] for one in (await door.must(BOB, "message.inbox"))["messages"]] == [digest]


async def test_nothing_is_seen_over_a_scope_by_any_op(door):
    """Everybody's messages in every scope, by everybody, through every op that shows messages."""
    everybody = [ANN, BOB, CYD, Who("d-1", "dan", "default", "", node="there"), Who("e-1", "eve", "other", "olga")]
    said = {}
    for of in everybody:
        for scope in SCOPES:
            text = f"secret of {of.name} for {scope}"
            said[text] = (of, scope, await door.must(of, "channel.send", channel="roadmap", text=text, scope=scope))
    looks = 0
    for by in everybody:
        pages = [
            await door.must(by, "channel.read", channel="roadmap", limit=1000, peek=True),
            await door.must(by, "channel.read", channel="roadmap", cursor="a0", limit=1000, peek=True),
            await door.must(by, "channel.read", channel="roadmap", unread=True, limit=1000, peek=True),
            await door.must(by, "channel.search", query="secret", limit=200),
            await door.must(by, "message.search", query="secret", limit=200),
        ]
        allowed = {text for text, (of, scope, _) in said.items() if may_see(scope, of, by)}
        for page in pages:
            assert {row["text"] for row in page["messages"]} == allowed
            looks += len(said)
        unread = (await door.must(by, "channel.unread"))["channels"][0]["unread"]
        assert unread == len([text for text in allowed if said[text][0].id != by.id])
        for text, (of, scope, sent) in said.items():
            for op, fields in (
                ("message.get", {"id": sent["id"]}),
                ("channel.read", {"channel": "roadmap", "thread": sent["id"], "peek": True, "sender": of.id}),
                ("channel.search", {"query": f'"{text}"'}),
            ):
                kind, answer = await door.ask(by, op, **fields)
                shown = kind == "result" and bool(answer.get("messages", [1]))
                assert shown is may_see(scope, of, by), (op, text, by, answer)
                looks += 1
    assert looks >= 800


async def test_an_inbox_answer_that_is_lost_leaves_its_messages_unread(door):
    sent = await door.must(ANN, "message.send", to="bob", text="hear me")
    kind, answer = await door.ask(BOB, "message.inbox", lost=True)
    assert (kind, [row["id"] for row in answer["messages"]]) == ("result", [sent["id"]])

    async def back() -> bool:
        return bool((await door.must(BOB, "message.inbox"))["messages"])

    await until(back)


async def test_an_answer_is_seen_by_those_who_see_what_it_answers(door):
    sent = await door.must(ANN, "channel.send", channel="roadmap", text="among olga's", scope="personal")
    answer = await door.must(BOB, "message.reply", id=sent["id"], text="yes")
    assert (await door.must(ANN, "message.get", id=answer["id"]))["scope"] == "personal"
    assert (await door.ask(CYD, "message.get", id=answer["id"]))[1]["code"] == "message.not_found"
    assert (await door.ask(CYD, "message.reply", id=sent["id"], text="me too"))[1]["code"] == "message.not_found"


async def test_peeking_and_paging_an_inbox(door):
    for number in range(7):
        await door.must(ANN, "message.send", to="bob", text=str(number))
    first = await door.must(BOB, "message.inbox", peek=True, limit=3)
    assert (first["more"], first["unread"]) == (True, 7)
    second = await door.must(BOB, "message.inbox", peek=True, limit=3, cursor=first["newer"])
    assert [row["text"] for row in second["messages"]] == ["3", "4", "5"]
    await door.must(BOB, "message.inbox")
    listed = await door.must(BOB, "message.inbox", all=True, limit=5)
    assert [row["text"] for row in listed["messages"]] == ["0", "1", "2", "3", "4"]
    rest = await door.must(BOB, "message.inbox", all=True, cursor=listed["newer"])
    assert [(row["text"], row["state"]) for row in rest["messages"]] == [("5", "read"), ("6", "read")]
    assert rest["more"] is False


async def test_data_that_could_not_be_told_is_refused_and_such_from_elsewhere_passed_over(door, talk):
    nested: list = []
    for _ in range(64):
        nested = [nested]
    kind, answer = await door.ask(ANN, "channel.send", channel="errors", data=nested)
    assert (kind, answer["code"]) == ("error", "message.too_deep")
    fine = await door.must(ANN, "channel.send", channel="errors", data=nested[0], text="walnut")
    raw = (
        b'{"sender":"x","handle":"x","project":"default","owner":"x","text":"walnut","data":'
        + b"[" * 300
        + b"]" * 300
        + b"}"
    )
    await publisher.publish(talk.inboxes._connection, "channel.errors", raw)
    await publisher.publish(talk.inboxes._connection, f"inbox.{BOB.id}", raw)
    await door.must(ANN, "message.send", to="bob", data={"big": 10**40, "small": -(10**40), "f": 1e300})
    page = await door.must(BOB, "channel.read", channel="errors")
    assert [row["id"] for row in page["messages"]] == [fine["id"]]
    assert (await door.must(BOB, "channel.search", query="walnut"))["messages"][0]["data"] == nested[0]
    (row,) = (await door.must(BOB, "message.inbox"))["messages"]
    assert row["data"]["big"] == 10**40


async def test_what_arrives_while_a_page_is_made_for_an_agent_waits_for_the_next_one(door):
    """A tool looks first how much fits: a second large message that came then was read, and shown to nobody."""
    large = "x" * (wording.RESULT_MAX_CHARS // 2)

    class Session:
        def __init__(self) -> None:
            self.key: dict[str, str] = {}

        async def ask(self, op: str, **fields):
            answer = await door.must(BOB, op, **fields)
            if fields.get("peek") and arriving:
                await door.must(ANN, "message.send", to="bob", text=arriving.pop())
            return answer

    for op, more in (("message.inbox", {}), ("message.wait", {"wait_s": 5})):
        await door.must(ANN, "message.send", to="bob", text=f"first {large}")
        arriving = [f"second {large}"]
        shown = [await message_values.read(Session(), op, {"limit": 10, **more}) for _ in range(2)]
        texts = [[one["text"].partition(" ")[0] for one in page["messages"]] for page in shown]
        assert texts == [["first"], ["second"]], op
        assert not [one for page in shown for one in page["messages"] if "cut" in one]
