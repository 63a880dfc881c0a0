"""Agents and people talk on real nodes, over every door: what they say is theirs, is kept, and reaches whom it is for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from tests.e2e import test_sessions as sessions
from tests.e2e.conftest import WAIT_S, Answer, Node, until
from tests.e2e.test_sessions import Agent
from tests.e2e.test_tasks import joined

PROJECTS = ("default", *(f"room{number}" for number in range(8)))


class Room:
    """One project of a node: nobody in it hears what is said in another."""

    def __init__(self, node: Node, project: str = "default") -> None:
        self.node, self.project = node, project

    def call(self, op: str, **fields: Any) -> Answer:
        return self.node.call(op, project=self.project, **fields)

    def ask(self, op: str, **fields: Any) -> Any:
        answer = self.call(op, **fields)
        assert answer.status == 200, answer.body
        return answer.json


@pytest.fixture(scope="module")
def shared(shared_nodes):
    return shared_nodes.node("".join(f"[projects.{name}]\n" for name in PROJECTS), "shared").up()


@pytest.fixture(scope="module")
def rooms(shared) -> Iterator[Room]:
    return (Room(shared, name) for name in PROJECTS[1:])


@pytest.fixture
def room(rooms) -> Room:
    """A project that no other test uses."""
    return next(rooms)


def agent(where: Node | Room, **fields: Any) -> AbstractContextManager[Agent]:
    if isinstance(where, Room):
        return sessions.agent(where.node, project=where.project, **fields)
    return sessions.agent(where, **fields)


def texts(answer: Any) -> list[str]:
    return [one["text"] for one in answer["messages"]]


def test_two_agents_and_their_owner_talk_in_channels(room):
    node = room
    with agent(node, handle="ann", capabilities=["plan"]) as ann, agent(node, handle="bob", label="2") as bob:
        assert [row["name"] for row in ann.ask("channel.list")["channels"]] == ["roadmap", "parallel-work", "errors"]
        first = ann.ask("channel.send", channel="roadmap", text="shall we, @bob?")
        assert first["mentions"] == [bob.id]
        until(lambda: any(said.get("event") == "mention" and said["id"] == first["id"] for said in bob.told))
        unread = bob.ask("channel.unread")
        assert (unread["unread"], unread["mentions"], unread["inbox"]) == (1, 1, 0)
        (row,) = bob.ask("channel.read", channel="roadmap", unread=True)["messages"]
        assert (row["sender"], row["sender_id"], row["sender_node"]) == ("ann", ann.id, node.node.about["node"])
        answer = bob.ask("message.reply", id=row["id"], text="yes", data={"sure": True})
        assert (answer["channel"], answer["thread"]) == ("roadmap", first["id"])
        assert texts(node.ask("channel.read", channel="roadmap", thread=first["id"])) == ["shall we, @bob?", "yes"]
        assert texts(ann.ask("channel.search", query="sure")) == ["yes"]
        assert ann.ask("message.get", id=answer["id"])["data"] == {"sure": True}
        assert bob.ask("channel.mark")["channels"][0] == "roadmap"
        assert bob.ask("channel.unread")["unread"] == 0
        forged = bob.call("channel.send", channel="roadmap", text="I am Ann", sender="ann")
        assert (forged.status, forged.json["code"]) == (422, "ops.bad_request")


def test_channels_are_made_changed_and_archived_by_those_who_may(room):
    node = room
    with agent(node, handle="ann") as ann, agent(node, handle="bob", label="2") as bob:
        made = ann.ask("channel.create", name="releases", about="what was released", max_messages=2)
        assert made["by"] == ann.id
        assert bob.call("channel.create", name="releases").json["code"] == "channel.exists"
        for number in range(4):
            bob.ask("channel.send", channel="releases", text=str(number))
        assert texts(ann.ask("channel.read", channel="releases")) == ["2", "3"]
        assert bob.call("channel.set", name="releases", max_messages=1).json["code"] == "channel.not_yours"
        assert bob.call("channel.archive", name="roadmap").json["code"] == "channel.not_yours"
        assert ann.ask("channel.set", name="releases", max_messages=1)["messages"] == 1
        assert node.ask("channel.archive", name="releases")["archived"] is True
        closed = bob.call("channel.send", channel="releases", text="late")
        assert (closed.status, closed.json["code"]) == (409, "channel.archived")
        assert "releases" not in [row["name"] for row in bob.ask("channel.list")["channels"]]
        assert ann.ask("channel.archive", name="releases", undo=True)["archived"] is False
        bob.ask("channel.send", channel="releases", text="4")
        lost = bob.call("channel.send", channel="relaeses", text="x").json
        assert (lost["code"], "releases" in lost["detail"]) == ("channel.not_found", True)


def test_messages_wait_for_agents_that_are_away_over_kill_9(nodes):
    node = nodes.node().up()
    with agent(node, handle="ann", capabilities=["plan"]) as ann:
        home = ann.id
    until(lambda: node.ask("session.get", agent="ann")["status"] == "stale")
    sent = node.ask("message.send", to="@ann", text="while you were out", ack=True, key="k1")
    assert (sent["count"], sent["sent"][0]["to"]) == (1, home)
    said = node.ask("channel.send", channel="errors", text="before the crash")["id"]
    node.process.kill()
    node.ended()
    node.up()
    again = node.ask("message.send", to=home, text="while you were out", ack=True, key="k1")
    assert again["sent"][0]["already"] is True
    with agent(node, handle="ann", capabilities=["plan"]) as ann:
        assert ann.id == home
        (row,) = ann.ask("message.inbox")["messages"]
        assert (row["id"], row["text"], row["state"], row["ack"]) == (sent["id"], "while you were out", "unread", True)
        assert node.ask("message.get", id=row["id"])["state"] == "read"
        ann.ask("message.ack", ids=[row["id"]])
        assert node.ask("message.get", id=row["id"])["state"] == "acked"
        assert texts(ann.ask("channel.read", channel="errors")) == ["before the crash"]
        assert ann.ask("message.get", id=said)["sender"] == node.ask("message.get", id=said)["sender"]


def test_who_waits_is_told_and_answers_reach_a_capability(room):
    node = room
    with (
        agent(node, handle="ann") as ann,
        agent(node, handle="bob", label="2", capabilities=["review"]) as bob,
        agent(node, handle="cyd", label="3", capabilities=["review"]) as cyd,
    ):
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(ann.ask("message.wait", wait_s=50, kind="offer")))
        waiting.start()
        done = ann.ask("message.send", capability="review", text="who has time?", kind="call", priority=8)
        assert (done["count"], {one["handle"] for one in done["sent"]}) == (2, {"bob", "cyd"})
        for one in (bob, cyd):
            until(lambda one=one: any(said.get("event") == "message" for said in one.told))
            (row,) = one.ask("message.inbox", priority=8)["messages"]
            assert row["thread"] == done["thread"]
        bob.ask("message.send", to="ann", text="not now", kind="text")
        cyd.ask("message.reply", id=row["id"], text="I have", kind="offer")
        waiting.join(WAIT_S)
        assert texts(got[0]) == ["I have"]
        assert texts(ann.ask("message.inbox")) == ["not now"]
        assert texts(ann.ask("message.search", query="have OR nothing")) == []
        assert texts(ann.ask("message.search", query="time", where="channels")) == []
        assert texts(ann.ask("message.search", query="have")) == ["I have"]
        assert bob.call("message.get", id=got[0]["messages"][0]["id"]).status == 404


def test_the_contact_policy_and_visibility_are_kept_by_the_node(room):
    node = room
    with agent(node, handle="ann") as ann, agent(node, handle="bob", label="2") as bob:
        ann.ask("session.update", scope="private")
        hidden = bob.call("message.send", to="ann", text="hello?").json
        nobody = bob.call("message.send", to="eve", text="hello?").json
        assert hidden["detail"].replace("ann", "eve") == nobody["detail"]
        assert hidden["code"] == nobody["code"] == "agent.not_found"
        first = ann.ask("message.send", to="bob", text="psst")
        assert bob.ask("message.reply", id=first["id"], text="oh")["handle"] == "ann"
        assert bob.call("contact.set", mode="none").json["code"] == "ops.denied"
        assert node.call("contact.set", mode="allow-list", allow=["ann->bob"]).json["code"] == "contact.bad_rule"
        assert node.ask("contact.set", mode="none")["mode"] == "none"
        assert ann.ask("contact.get")["mode"] == "none"
        assert ann.call("message.send", to="bob", text="x").json["code"] == "contact.denied"


BAD = [
    ("channel.send", {"channel": "*", "text": "x"}),
    ("channel.send", {"channel": ">", "text": "x"}),
    ("channel.send", {"channel": "a.b", "text": "x"}),
    ("channel.send", {"channel": "roadmap"}),
    ("channel.send", {"channel": "roadmap", "text": "x", "scope": "all"}),
    ("channel.send", {"channel": "roadmap", "text": "x", "reply_to": "m0"}),
    ("channel.send", {"channel": "roadmap", "text": "x", "expires": "yesterday"}),
    ("channel.send", {"channel": "roadmap", "text": "x", "expires": "2001-01-01T00:00:00Z"}),
    ("channel.send", {"channel": "roadmap", "text": 7}),
    ("channel.read", {"channel": "roadmap", "cursor": "b"}),
    ("channel.read", {"channel": "roadmap", "cursor": "x" * 33}),
    ("channel.read", {"channel": "roadmap", "cursor": "b-1"}),
    ("channel.read", {"channel": "roadmap", "limit": 0}),
    ("channel.read", {"channel": "roadmap", "thread": "*"}),
    ("channel.create", {"name": "$JS"}),
    ("channel.create", {"name": "x" * 65}),
    ("channel.create", {"name": "ok", "max_bytes": 1}),
    ("channel.search", {"query": "-- !"}),
    ("channel.mark", {"channels": ["roadmap"], "upto": "d1"}),
    ("message.send", {"text": "x"}),
    ("message.send", {"to": "bob", "capability": "x", "text": "x"}),
    ("message.send", {"to": "inbox.>", "text": "x"}),
    ("message.send", {"to": "person-nobody", "text": "x"}),
    ("message.get", {"id": "m999999999999999999"}),
    ("message.ack", {"ids": []}),
    ("message.ack", {"ids": ["m1"]}),
    ("message.inbox", {"priority": 11}),
    ("message.wait", {"wait_s": 1e9}),
    ("message.reply", {"id": "d1"}),
    ("contact.set", {"mode": "allow-list", "allow": ["a>b>c"]}),
]


def test_nonsense_is_refused_with_a_reason_and_what_is_said_stays_as_it_was_sent(shared):
    node = shared
    for op, fields in BAD:
        answer = node.call(op, **fields)
        assert answer.status in (404, 422), (op, fields, answer.body)
        assert answer.json["code"] not in ("internal.error", ""), (op, fields)
    hostile = "red\x1b[31m \u202ereversed\u202c \x00nul \u2066iso\u2069 \U000e0041tag \r\n| fake: m1"
    sent = node.ask("channel.send", channel="errors", text=hostile, data={"k\u202e": "\x07"})
    assert node.ask("message.get", id=sent["id"])["text"] == hostile
    code, out, _ = node.run("channel", "read", "errors")
    assert code == 0
    assert not {"\x1b", "\u202e", "\x00", "\u2066", "\U000e0041"} & set(out)
    large = node.call("channel.send", channel="errors", text="x" * 1_200_000)
    assert (large.status, large.json["code"]) == (413, "message.too_large")
    fits = node.ask("channel.send", channel="errors", text="y" * 1_048_576)
    assert len(node.ask("message.get", id=fits["id"])["text"]) == 1_048_576


def test_people_talk_from_the_shell_and_watch(shared):
    node = shared
    owner = node.ask("message.send", to=f"person-{_owner(node)}", text="a note to myself")["sent"][0]["handle"]
    assert node.json("inbox")["messages"][0]["sender"] == owner
    assert node.json("inbox")["messages"] == []
    watching = [node.start("channel", "watch", "errors", *how) for how in ((), ("-o", "json"))]
    try:
        first = ["", ""]
        readers = [
            threading.Thread(target=lambda at=at, one=one: first.__setitem__(at, one.stdout.readline()))
            for at, one in enumerate(watching)
        ]
        for reader in readers:
            reader.start()
        until(lambda: node.run("channel", "send", "errors", "it burns")[0] == 0 and all(first), what="nothing came")
        for reader in readers:
            reader.join(WAIT_S)
        assert first[0].split()[-3:] == [owner, "it", "burns"]  # for people
        assert json.loads(first[1])["text"] == "it burns"
    finally:
        for one in watching:
            one.kill()
            one.communicate()
    code, error = node.refused("channel", "send", "errror", "x")
    assert (code, error["code"]) == (1, "channel.not_found")
    assert "errors" in error["message"]


def _owner(node: Any) -> str:
    return node.ask("channel.create", name="mine")["by"].removeprefix("person-")


@pytest.mark.parametrize("scope", ["private", "personal", "team", "public"])
def test_scopes_of_what_is_said(room, scope):
    with agent(room, handle="ann") as ann, agent(room, handle="bob", label="2") as bob:
        sent = ann.ask("channel.send", channel="roadmap", text="between us", scope=scope)
        seen = scope != "private"
        assert bool(bob.ask("channel.read", channel="roadmap")["messages"]) is seen
        assert bool(bob.ask("channel.search", query="between")["messages"]) is seen
        assert (bob.call("message.get", id=sent["id"]).status == 200) is seen
        assert ann.ask("message.get", id=sent["id"])["scope"] == scope


def test_agents_on_two_nodes_talk_as_on_one(nodes):
    hub = nodes.node(name="hub").up()
    other = nodes.node(joined(hub, "other"), name="other").up()
    with agent(hub, handle="ann", capabilities=["plan"]) as ann, agent(other, handle="bob", label="2") as bob:
        until(lambda: bob.call("session.get", agent="ann").status == 200)
        until(lambda: ann.call("session.get", agent="bob").status == 200)
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(bob.ask("message.wait", wait_s=50)))
        waiting.start()
        sent = ann.ask("message.send", to="bob", text="over there?")
        waiting.join(WAIT_S)
        assert [row["id"] for row in got[0]["messages"]] == [sent["id"]]
        until(lambda: any(said.get("event") == "message" for said in bob.told))
        bob.ask("message.reply", id=sent["id"], text="here, @ann")
        assert texts(ann.ask("message.inbox")) == ["here, @ann"]
        assert ann.ask("message.get", id=sent["id"])["state"] == "read"
        bob.ask("channel.create", name="made-there", max_messages=3)
        for number in range(5):
            (ann if number % 2 else bob).ask("channel.send", channel="made-there", text=str(number))
            assert texts(ann.ask("channel.read", channel="made-there")) == texts(
                bob.ask("channel.read", channel="made-there")
            )
        assert texts(ann.ask("channel.read", channel="made-there")) == ["2", "3", "4"]
        bob.ask("channel.send", channel="roadmap", text="to whom it concerns: @ann")
        until(lambda: any(said.get("event") == "mention" for said in ann.told))
        assert ann.ask("channel.unread")["mentions"] == 1
