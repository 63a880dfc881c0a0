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
from tests.e2e.conftest import Node, until
from tests.e2e.test_sessions import Agent, agent

from knotwork.trust.scopes import SCOPES, may_see
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
SHARED = {"memory": {"personal", "public"}, "message": set(), "agent": set(), "inbox": set()}
"""What lies in COMMONS, and is seen from every project."""
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
    return things


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
    return chance.choice(memory if thing.kind == "memory" else talk)


CHANGES = frozenset({"memory.share", "memory.commit", "memory.revert", "message.reply", "message.ack"})
"""What is tried by those alone who may not: it would change who may see a thing."""


def shown(said: bytes, asked: dict[str, Any], things: list[Thing]) -> list[Thing]:
    """Return the things that an answer holds; the words that stood in the question do not count."""
    told = " ".join(str(value) for value in asked.values())
    return [thing for thing in things if thing.word.encode() in said and thing.word not in told]


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


@pytest.mark.parametrize("count", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nobody_sees_what_is_not_theirs(nodes, count):
    chance = random.Random(count)
    hub, far = nodes.node(HUB, "hub").up(), nodes.node(name="far")
    far.write(FAR.format(url=hub.about["url"], keys=hub.data / "keys"))
    far.up()
    leaks, seen, refused = [], Counter(), 0
    with everybody(hub, far) as agents:
        known = [who for _, who in agents.values()]
        things = [thing for one, who in agents.values() for thing in made_by(one, who, known, chance)]
        for _ in range(count):
            thing = chance.choice(things)
            one, who = agents[chance.choice(list(agents))]
            op, fields = tries(thing, chance)
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
    wanted = {("memory", scope) for scope in SCOPES} | {("message", scope) for scope in SCOPES} | {("inbox", "private")}
    assert wanted <= set(seen), wanted - set(seen)
