"""Nobody sees what is not theirs: agents of two owners and two projects on two nodes try everything they can ask.

Each thing holds a word of its own. An answer that holds the word of a thing its asker may not see is a leak, wherever in
the answer it stands. The short version makes 1,500 tries, the long one 10,000:
`python -m pytest -n0 -m slow tests/e2e/test_leaks.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.e2e.conftest import Node, Nodes, until
from tests.e2e.test_sessions import Agent, agent

from knotwork.trust.scopes import SCOPES, may_do, may_see
from knotwork.trust.who import Who

HUB = '[node]\nname = "hub"\nowner = "ann"\n[projects.shop]\n[projects.lab]\n'
FAR = """
[node]
name = "far"
owner = "bob"
[nats]
mode = "join"
urls = ["{url}"]
[nats.commons]
nkey_seed = {{file = "{keys}/node-COMMONS.nk"}}
[projects.shop]
nkey_seed = {{file = "{keys}/node-shop.nk"}}
[projects.lab]
nkey_seed = {{file = "{keys}/node-lab.nk"}}
"""
SHARED = {"memory": {"personal", "public"}, "message": set(), "agent": {"personal", "public"}}
"""What lies in COMMONS, and is seen from every project."""
EVERYTHING = {"all": True, "peek": True, "limit": 1000}
HANDED_OUT = ("private", "personal", "team")
"""The scopes of work."""
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Thing:
    """Something of somebody: `word` stands in it and nowhere else."""

    kind: str
    word: str
    scope: str
    of: Who
    id: str
    to: str = ""

    def seen_by(self, who: Who) -> bool:
        if self.kind == "inbox":
            return who.id in (self.of.id, self.to)
        if self.kind in ("work", "crew", "run"):
            return may_do(self.scope, self.of, who)
        near = who.project == self.of.project or self.scope in SHARED[self.kind]
        return near and may_see(self.scope, self.of, who)


def made_by(one: Agent, who: Who, others: list[Who], chance: random.Random) -> list[Thing]:
    """Let an agent make things of every scope."""
    things = []
    for scope in SCOPES:
        word = f"zq{chance.getrandbits(60):x}"
        category = chance.choice(
            ["recent", "longterm"] if scope in ("private", "personal") else ["decisions", "learnings"]
        )
        kept = one.ask("memory.remember", content=f"secret {word} kept", scope=scope, category=category, tags=[word])
        things.append(Thing("memory", word, scope, who, kept["id"]))
        word = f"zq{chance.getrandbits(60):x}"
        said = one.ask("channel.send", channel="roadmap", text=f"secret {word} said", scope=scope)
        things.append(Thing("message", word, scope, who, said["id"]))
    near = [other for other in others if other.project == who.project and other.id != who.id]
    for other in near:
        word = f"zq{chance.getrandbits(60):x}"
        sent = one.call("message.send", to=other.id, text=f"secret {word} sent")
        if sent.status == 200:
            things.append(Thing("inbox", word, "private", who, sent.json["id"], other.id))
    for scope in HANDED_OUT:
        word = f"zq{chance.getrandbits(60):x}"
        given = one.ask("task.submit", capability=f"c{word}", input=f"secret {word} handed out", scope=scope)
        things.append(Thing("work", word, scope, who, given["id"]))
        word = f"zq{chance.getrandbits(60):x}"
        begun = one.ask("crew.assess", task=f"- secret {word} begun\n- tests", capability="never", scope=scope)
        things.append(Thing("crew", word, scope, who, begun["id"]))
        word = f"zq{chance.getrandbits(60):x}"
        begun = one.ask("crew.assess", task=f"- secret {word} runs\n- tests", capability="never", scope=scope)
        things.append(Thing("run", word, scope, who, one.ask("crew.spawn", id=begun["id"])["runs"][0]))
    return things


def shown_as(one: Agent, who: Who, scope: str, chance: random.Random) -> Thing:
    """Let an agent be seen as far as a scope reaches."""
    word = f"zq{chance.getrandbits(60):x}"
    one.ask("session.update", scope=scope, description=f"secret {word} told")
    return Thing("agent", word, scope, who, one.id)


def posted(agents: dict[str, tuple[Agent, Who]], things: list[Thing], chance: random.Random) -> list[Thing]:
    """Let everybody write to everybody seen in the other project, and refuse it of all others there."""
    made = []
    for one, who in agents.values():
        for thing in [thing for thing in things if thing.of.project != who.project]:
            word = f"zq{chance.getrandbits(60):x}"
            sent = one.call("message.send", to=thing.id, text=f"secret {word} posted")
            assert (sent.status == 200) is thing.seen_by(who), (who, thing, sent.body)
            if sent.status == 200:
                made.append(Thing("inbox", word, "far", who, sent.json["id"], thing.id))
                other = agents[thing.id][0]
                until(lambda other=other, word=word: word.encode() in other.call("message.inbox", **EVERYTHING).body)
    return made


def tries(thing: Thing, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Return something to ask that could show a thing."""
    memory = [
        ("memory.get", {"id": thing.id}), ("memory.history", {"id": thing.id}), ("memory.list", {"tags": [thing.word]}),
        ("memory.search", {"text": thing.word}), ("memory.recall", {"search": thing.word}), ("memory.recall", {"limit": 200}),
        ("memory.list", {"scopes": [thing.scope], "author": thing.of.id}), ("memory.revert", {"id": thing.id, "version": 1}),
        ("memory.share", {"id": thing.id, "scope": "public", "category": "learnings"}),
        ("memory.commit", {"id": thing.id, "scope": "personal"}),
    ]  # fmt: skip
    talk = [
        ("message.get", {"id": thing.id}), ("channel.read", {"channel": "roadmap", "limit": 200, "peek": True}),
        ("channel.search", {"query": thing.word}), ("message.search", {"query": thing.word}),
        ("channel.read", {"channel": "roadmap", "thread": thing.id, "peek": True}),
        ("message.inbox", {"all": True, "peek": True, "limit": 100}), ("message.reply", {"id": thing.id, "text": "got you"}),
        ("channel.read", {"channel": "roadmap", "sender": thing.of.id, "peek": True}), ("message.ack", {"ids": [thing.id]}),
    ]  # fmt: skip
    agent = [
        ("session.get", {"agent": thing.id}), ("session.list", {}), ("session.get", {"agent": f"{thing.of.name}@{thing.of.project}"}),
        ("session.list", {"from_project": thing.of.project}), ("session.list", {"scope": thing.scope}), ("agents.list", {}),
        ("agents.show", {"target": thing.of.name}), ("message.send", {"to": thing.id, "text": "who are you?"}),
    ]  # fmt: skip
    work = [
        ("task.get", {"id": thing.id, "with_input": True}), ("task.list", {"capability": f"c{thing.word}"}), ("task.list", {}),
        ("task.list", {"text": thing.word}), ("task.history", {"id": thing.id}), ("task.why", {"id": thing.id}),
        ("task.stats", {}), ("task.await", {"id": thing.id, "timeout_s": 0}), ("task.cancel", {"ids": [thing.id]}),
        ("task.cancel", {"capability": f"c{thing.word}"}), ("task.retry", {"id": thing.id}), ("view.sql", {"query": "select * from tasks"}),
        ("task.dead_show", {"id": thing.id}), ("task.redrive", {"ids": [thing.id]}),
        ("work.claim", {"worker": "me", "capabilities": [f"c{thing.word}"], "wait_s": 0}),
    ]  # fmt: skip
    crew = [
        ("crew.state", {"id": thing.id}), ("crew.plan", {"id": thing.id}), ("crew.list", {"limit": 1000}),
        ("crew.list", {"phase": ["assessment"]}), ("crew.results", {"id": thing.id}), ("crew.pause", {"id": thing.id}),
        ("crew.cancel", {"id": thing.id}), ("crew.spawn", {"id": thing.id}), ("crew.synthesize", {"id": thing.id}),
        ("crew.checkpoint", {"id": thing.id, "text": "got you"}), ("crew.assess", {"task": "- a\n- b", "parent": thing.id}),
    ]  # fmt: skip
    run = [
        ("run.get", {"id": thing.id}), ("run.list", {}), ("run.list", {"text": thing.word}), ("run.events", {"id": thing.id}),
        ("run.why", {"id": thing.id}), ("run.await", {"id": thing.id, "timeout_s": 0}), ("run.export", {"id": thing.id}),
        ("run.replay", {"id": thing.id}), ("task.list", {"capability": "never"}), ("crew.list", {"limit": 1000}),
        ("run.cancel", {"ids": [thing.id]}), ("run.signal", {"id": thing.id, "signal": "go"}), ("run.pause", {"ids": [thing.id]}),
        ("work.claim", {"worker": "me", "capabilities": ["never"], "wait_s": 0}),
    ]  # fmt: skip
    of_kind = {"run": run, "memory": memory, "message": talk, "inbox": talk, "agent": agent, "work": work, "crew": crew}
    return chance.choice(of_kind[thing.kind])


CHANGES = frozenset({
    "memory.share", "memory.commit", "memory.revert", "message.reply", "message.ack", "message.send",
    "task.cancel", "task.retry", "task.redrive", "work.claim", "crew.pause", "crew.cancel", "crew.spawn", "crew.synthesize",
    "crew.checkpoint", "crew.assess", "run.cancel", "run.signal", "run.pause",
})  # fmt: skip
"""What is tried by those alone who may not: it would change who may see a thing."""


def shown(said: bytes, asked: dict[str, Any], things: list[Thing]) -> list[Thing]:
    """Return the things that an answer holds; the words that stood in the question do not count."""
    told = " ".join(str(value) for value in asked.values())
    return [thing for thing in things if thing.word.encode() in said and thing.word not in told]


@pytest.fixture(scope="module")
def both(shared_nodes: Nodes) -> tuple[Node, Node]:
    hub, far = shared_nodes.node(HUB, "hub").up(), shared_nodes.node(name="far")
    far.write(FAR.format(url=hub.about["url"], keys=hub.data / "keys"))
    far.up()
    return hub, far


@contextlib.contextmanager
def everybody(hub: Node, far: Node) -> Iterator[dict[str, tuple[Agent, Who]]]:
    """Let agents of two owners come in to two projects; each knows of those of its project."""
    with contextlib.ExitStack() as stack:
        agents = {}
        for node, project, label in itertools.product((hub, far), ("shop", "lab"), ("1", "2")):
            owner = "ann" if node is hub else "bob"
            one = stack.enter_context(agent(node, project=project, label=label, capabilities=["look"]))
            agents[one.id] = (one, Who(one.id, one.handle, project, owner))
        for (one, who), (_, other) in itertools.product(agents.values(), agents.values()):
            if other.project == who.project:
                until(lambda one=one, other=other: one.call("session.get", agent=other.id).status == 200)
        yield agents


def settled(agents: dict[str, tuple[Agent, Who]], seen_as: list[Thing]) -> None:
    """Wait until everybody knows of everybody what may be known."""
    for one, who in agents.values():
        for thing in seen_as:
            status = 200 if thing.seen_by(who) else 404
            until(lambda one=one, at=thing.id, status=status: one.call("session.get", agent=at).status == status)


@pytest.mark.parametrize("count", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nobody_sees_what_is_not_theirs(both, count):
    chance = random.Random(count)
    hub, far = both
    leaks, seen, refused = [], Counter(), 0
    with everybody(hub, far) as agents:
        known = [who for _, who in agents.values()]
        things = [thing for one, who in agents.values() for thing in made_by(one, who, known, chance)]
        seen_as = [shown_as(one, who, SCOPES[at % 4], chance) for at, (one, who) in enumerate(agents.values())]
        settled(agents, seen_as)
        things += [*seen_as, *posted(agents, seen_as, chance)]
        for _ in range(count):
            thing = chance.choice(things)
            one, who = agents[chance.choice(list(agents))]
            op, fields = tries(thing, chance)
            fields |= {"worker": one.handle} if op == "work.claim" else {}
            if op in CHANGES and thing.seen_by(who):
                continue
            answer = one.call(op, **fields)
            refused += answer.status >= 400
            assert answer.status < 500, (op, fields, answer.body)
            found = shown(answer.body, fields, things)
            leaks += [(op, fields, other, who) for other in found if not other.seen_by(who)]
            seen.update((other.kind, other.scope) for other in found if other.seen_by(who))
    assert not leaks, leaks[:3]
    assert refused > count / 20
    kinds = ("memory", "message", "agent")
    wanted = {(kind, scope) for kind in kinds for scope in SCOPES} | {("inbox", "private"), ("inbox", "far")}
    wanted |= {(kind, scope) for kind in ("work", "crew", "run") for scope in HANDED_OUT} - {("agent", "private")}
    assert wanted <= set(seen), wanted - set(seen)


def test_agents_of_two_projects_talk_and_what_is_not_let_in_comes_back(both):
    hub, far = both
    with (
        agent(hub, project="shop", label="talks", type="seller") as one,
        agent(far, project="lab", label="talks", type="chemist", capabilities=["mix"]) as other,
    ):
        assert one.call("message.send", to="chemist@lab", text="x").json["code"] == "agent.not_found"
        other.ask("session.update", scope="public")
        row = until(lambda: next((row for row in one.ask("session.list")["agents"] if row["id"] == other.id), None))
        assert (row["handle"], row["project"], row["path"]) == ("chemist@lab", "lab", "")
        until(lambda: one.ask("session.get", agent="chemist@lab")["status"] == "online")
        sent = one.ask("message.send", to="chemist@lab", text="hello", key="once", ack=True)
        again = one.ask("message.send", to=other.id, text="hello", key="once", ack=True)
        assert (again["id"], again["sent"][0]["already"]) == (sent["id"], True)
        (got,) = until(lambda: other.ask("message.inbox")["messages"])
        assert (got["sender"], got["text"], got["thread"], got["ack"]) == ("seller@shop", "hello", sent["id"], True)
        other.ask("message.ack", ids=[got["id"]])
        back = other.ask("message.reply", id=got["id"], text="hi")  # though nobody there sees the seller
        (answer,) = one.ask("message.wait", thread=sent["thread"], wait_s=30)["messages"]
        assert (answer["sender"], answer["reply_to"], answer["text"]) == ("chemist@lab", sent["id"], "hi")
        assert other.ask("message.get", id=back["id"])["text"] == "hi"
        assert one.call("message.send", capability="mix", text="x").json["code"] == "message.nobody"
        wide = one.ask("message.send", capability="mix", scope="public", text="who mixes?", key="wide")
        assert (wide["count"], [row["handle"] for row in wide["sent"]]) == (1, ["chemist@lab"])
        assert one.ask("message.send", capability="mix", scope="public", text="who mixes?", key="wide")["sent"][0][
            "already"
        ]
        (asked,) = until(lambda: other.ask("message.inbox")["messages"])
        assert (asked["text"], asked["thread"]) == ("who mixes?", wide["thread"])
        other.ask("message.reply", id=asked["id"], text="I do")
        (mixes,) = one.ask("message.wait", thread=wide["thread"], wait_s=30)["messages"]
        assert (mixes["sender"], mixes["text"]) == ("chemist@lab", "I do")
        assert far.call("contact.set", mode="team", project="lab").status == 200
        until(lambda: all(node.call("contact.get", project="lab").json["mode"] == "team" for node in both))
        told = one.ask("message.reply", id=answer["id"], text="more")
        (refused,) = one.ask("message.wait", thread=told["thread"], wait_s=30)["messages"]
        assert (refused["kind"], refused["data"]) == ("refused", {"code": "contact.denied", "id": told["id"]})
        assert far.call("contact.set", mode="open", project="lab").status == 200


def test_a_message_waits_for_a_project_whose_nodes_are_away(both):
    hub, far = both
    with agent(hub, project="shop", label="waits", type="poster") as one:
        with agent(far, project="lab", label="sleeps", type="sleeper", capabilities=["mix"]) as other:
            other.ask("session.update", scope="public")
            until(lambda: one.call("session.get", agent="sleeper@lab").status == 200)
            name = other.id
        sent = one.ask("message.send", to=name, text="good morning")
        until(lambda: one.ask("session.get", agent=name)["status"] in ("stale", "offline"))
        with agent(far, project="lab", label="sleeps", type="sleeper") as again:
            assert again.id == name
            (got,) = until(lambda: again.ask("message.inbox")["messages"])
            assert (got["text"], got["thread"]) == ("good morning", sent["id"])
