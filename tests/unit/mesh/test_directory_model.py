"""The directory against a naive model of it, with a clock that is moved."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from knotwork.mesh import directory as directories
from knotwork.mesh import records
from knotwork.mesh.directory import Directory
from knotwork.mesh.records import AgentRecord, NodeRecord
from knotwork.sdk.errors import Invalid

NODES = ["here", "n1", "n2", "n3"]
WORDS = ["a", "b", "c", "d"]
AGENT = st.builds(
    AgentRecord,
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(WORDS), max_size=3).map(tuple),
    tags=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
    concurrency=st.integers(1, 4),
    running=st.integers(0, 4),
    queued=st.integers(0, 4),
)
AGENTS = st.lists(AGENT, max_size=4, unique_by=lambda agent: agent.name).map(tuple)


def record(node: str, agents=(), **settings) -> NodeRecord:
    made = {"heartbeat_s": 10.0, **settings}
    return NodeRecord(node, f"uid-{node}", "i", 0, made.pop("heartbeat_s"), agents=tuple(agents), **made)


class Naive:
    """What the directory should say, without any index."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[NodeRecord, float]] = {}
        self.gone: set[str] = set()

    def state(self, node: str, now_s: float) -> str:
        if node not in self.known or node in self.gone:
            return "offline"
        one, heard_s = self.known[node]
        if node == "here":
            return one.state
        beats = (now_s - heard_s) / one.heartbeat_s
        return "offline" if beats >= one.offline_beats else "stale" if beats >= one.stale_beats else one.state

    def places(self):
        return [(node, agent) for node, (one, _) in self.known.items() if node not in self.gone for agent in one.agents]


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.directory = Directory(lambda: self.now_s, "here")
        self.naive = Naive()
        self.told: list[str] = []
        self.told_naive: list[str] = []
        self.directory.on_gone(self.told.append)

    @rule(
        node=st.sampled_from(NODES),
        agents=AGENTS,
        state=st.sampled_from(["online", "draining"]),
        label=st.sampled_from(["", "gpu"]),
    )
    def heard(self, node, agents, state, label) -> None:
        one = record(node, agents, state=state, labels={"kind": label} if label else {})
        self.directory.heard(node, records.encode(one))
        self.naive.known[node] = (one, self.now_s)
        self.naive.gone.discard(node)

    @rule(node=st.sampled_from(NODES), data=st.binary(max_size=40))
    def hostile(self, node, data) -> None:
        self.directory.heard(node, data)

    @rule(node=st.sampled_from(NODES))
    def left(self, node) -> None:
        self.directory.left(node)
        self._gone(node)

    def _gone(self, node: str) -> None:
        if node != "here" and node in self.naive.known and node not in self.naive.gone:
            self.naive.gone.add(node)
            self.told_naive.append(node)

    @rule(seconds=st.sampled_from([1.0, 9.9, 10.0, 20.0, 31.0, 4000.0]))
    def wait(self, seconds) -> None:
        self.now_s += seconds

    @rule()
    def sweep(self) -> None:
        self.directory.sweep()
        for node, (_, heard_s) in list(self.naive.known.items()):
            if node not in self.naive.gone and self.naive.state(node, self.now_s) == "offline":
                self._gone(node)
            elif node in self.naive.gone and self.now_s - heard_s > directories.FORGET_S:
                del self.naive.known[node]
                self.naive.gone.discard(node)

    @precondition(lambda self: self.naive.places())
    @rule(data=st.data(), more=st.sampled_from([1, -1]))
    def ours(self, data, more) -> None:
        node, agent = data.draw(st.sampled_from(self.naive.places()))
        place = self.directory.place(node, agent.name)
        place.ours.now = max(0, place.ours.now + more)

    @invariant()
    def says_the_same(self) -> None:
        directory, naive = self.directory, self.naive
        assert sorted(self.told) == sorted(self.told_naive)
        for node in NODES:
            assert directory.state(node) == naive.state(node, self.now_s), node
        places = naive.places()
        assert {one.node: state for one, state, _ in directory.nodes()} == {
            node: naive.state(node, self.now_s) for node in naive.known
        }
        assert directory.agent_names() == sorted({agent.name for _, agent in places})
        assert directory.capabilities() == sorted({word for _, agent in places for word in agent.capabilities})
        for word in WORDS:
            self._same(directory.candidates(agent=word), [(n, a) for n, a in places if a.name == word])
            self._same(directory.candidates(capability=word), [(n, a) for n, a in places if word in a.capabilities])
            for node in NODES:
                wanted = [(n, a) for n, a in places if n == node]
                self._same(directory.candidates(agent=word, node=node), [one for one in wanted if one[1].name == word])
                self._same(
                    directory.candidates(capability=word, node=node),
                    [one for one in wanted if word in one[1].capabilities],
                )

    def _same(self, candidates, wanted) -> None:
        assert {one.name for one in candidates} == {f"{node}/{agent.name}" for node, agent in wanted}
        assert len(candidates) == len(wanted)
        for one in candidates:
            known, _ = self.naive.known[one.node]
            agent = next(agent for agent in known.agents if agent.name == one.agent)
            assert one.state == self.naive.state(one.node, self.now_s)
            assert one.capabilities == frozenset(agent.capabilities)
            assert one.tags == frozenset(agent.tags) | {f"{key}={value}" for key, value in known.labels.items()}
            ours = self.directory.place(one.node, one.agent).ours.now
            assert one.load == max(agent.running + agent.queued, ours) / agent.concurrency


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDirectory = Machine.TestCase


def test_a_silent_node_becomes_stale_then_offline_then_forgotten():
    now_s = 0.0
    directory = Directory(lambda: now_s, "here")
    gone: list[str] = []
    directory.on_gone(gone.append)
    directory.heard("n1", records.encode(record("n1", [AgentRecord("a", ("c",))], stale_beats=2, offline_beats=3)))
    for seconds, state in [(0, "online"), (19.9, "online"), (20, "stale"), (29.9, "stale"), (30, "offline")]:
        now_s = seconds
        assert directory.state("n1") == state
        assert [one.state for one in directory.candidates(capability="c")] == [state]
    directory.sweep()
    assert gone == ["n1"]
    assert directory.candidates(capability="c") == []
    assert [state for _, state, _ in directory.nodes()] == ["offline"]
    now_s += 3600
    directory.sweep()
    assert list(directory.nodes()) == []
    assert gone == ["n1"]


def test_calls_of_ours_are_counted_over_a_new_record():
    directory = Directory(lambda: 0.0, "here")
    agent = AgentRecord("a", ("c",), concurrency=2)
    directory.heard("n1", records.encode(record("n1", [agent])))
    place = directory.place("n1", "a")
    place.ours.now += 1
    directory.heard("n1", records.encode(record("n1", [msgspec.structs.replace(agent, running=1)])))
    assert directory.candidates(agent="a")[0].load == 0.5
    place.ours.now -= 1  # the call ends, and was begun before the new record
    assert directory.candidates(agent="a")[0].load == 0.5  # what its node said
    directory.heard("n1", records.encode(record("n1", [agent])))
    assert directory.candidates(agent="a")[0].load == 0.0


GOOD = json.loads(records.encode(record("n1", [AgentRecord("a", ("c",))])))


def change(**changes) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def agent_with(**changes) -> bytes:
    return change(agents=[{**GOOD["agents"][0], **changes}])


HOSTILE = {
    "no json": b"{",
    "not utf-8": b'{"node":"\xff"}',
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "another's name": change(node="n2"),
    "no beat": change(heartbeat_s=0),
    "negative beat": change(heartbeat_s=-1),
    "endless beat": change(heartbeat_s=1e300),
    "no beats": change(offline_beats=0),
    "endless beats": change(offline_beats=10**400),
    "stale at once": change(stale_beats=-5),
    "started when": change(started_ns=10**30),
    "started before": change(started_ns=-1),
    "text for a number": change(heartbeat_s="10"),
    "agents as text": change(agents="a"),
    "an agent twice": change(agents=[GOOD["agents"][0]] * 2),
    "wildcard": agent_with(capabilities=[">"]),
    "two parts": agent_with(capabilities=["a.b"]),
    "name with a space": agent_with(name="a b"),
    "name that is empty": agent_with(name=""),
    "bad boundary": agent_with(boundaries=["*"]),
    "no places": agent_with(concurrency=0),
    "endless places": agent_with(concurrency=10**400),
    "endless load": agent_with(running=10**400),
    "negative load": agent_with(running=-1),
    "long text": agent_with(description="x" * 100_000),
    "long host": change(host="x" * 1000),
    "keepalive": change(keepalive_s=0),
    "deep": b'{"labels":' + b'{"a":' * 50_000,
    "deep schema": agent_with(input_schema={}).replace(
        b'"input_schema": {}', b'"input_schema": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_refused_and_changes_nothing(name):
    with pytest.raises(Invalid) as caught:
        records.decode("n1", HOSTILE[name])
    assert caught.value.code == "mesh.bad_record"
    directory = Directory(lambda: 0.0, "here")
    directory.heard("n1", change())
    directory.heard("n1", HOSTILE[name])
    directory.sweep()
    assert [one.name for one in directory.candidates(capability="c")] == ["n1/a"]


@given(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.floats(),
        lambda i: (
            st.lists(i, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, *GOOD["agents"][0]]), i, max_size=4)
        ),
        max_leaves=8,
    ),
)
def test_any_record_is_taken_or_refused(key, value):
    data = json.dumps({**GOOD, **value} if isinstance(value, dict) else value).encode()
    directory = Directory(lambda: 0.0, "here")
    for name in ("n1", key):
        directory.heard(name, data)
    directory.sweep()
    list(directory.agents())
    directory.candidates(capability="c")


def test_a_record_survives_the_way():
    one = record(
        "n1",
        [AgentRecord("a", ("c",), "words", ("t",), ("open-source",), input_schema={"type": "object"})],
        labels={"os": "linux"},
    )
    assert records.decode("n1", records.encode(one)) == one
    assert one.ttl_s == 30
    assert record("n1", heartbeat_s=0.2).ttl_s == 1
