"""Whatever a router does, the next one is asked, and the caller is not harmed."""

from __future__ import annotations

import asyncio
import itertools
import time
from types import SimpleNamespace

import pytest

from knotwork.mesh import routing
from knotwork.mesh.directory import Directory
from knotwork.mesh.records import AgentRecord, NodeRecord, encode
from knotwork.sdk.errors import NotFound, PluginFailed, Unavailable, Unreachable
from knotwork.sdk.router import Ask, Candidate, Route

ASK = Ask(capability="a")


def router(name, behave):
    async def route(ask, candidates):
        return await behave(candidates)

    return SimpleNamespace(id=name, plugin=SimpleNamespace(route=route))


@pytest.fixture
def directory():
    made = Directory(time.monotonic, "n1")
    made.heard("n1", encode(NodeRecord("n1", "u", "i", 0, 10.0, agents=(AgentRecord("a", ("a",)),))))
    return made


def raising(error):
    async def behave(candidates):
        raise error

    return behave


def answering(value):
    async def behave(candidates):
        return value

    return behave


async def hang(candidates):
    await asyncio.sleep(60)


async def good(candidates):
    return Route(candidates)


@pytest.mark.parametrize(
    "behave",
    [
        raising(SystemExit(3)),
        raising(asyncio.CancelledError()),
        raising(KeyboardInterrupt()),
        raising(GeneratorExit()),
        raising(ValueError("odd")),
        answering("text"),
        answering(Route(5)),
        answering(Route([1])),
        answering(Route([Candidate("elsewhere", "a", frozenset())])),
        answering(Route(itertools.repeat(Candidate("n1", "a", frozenset())))),
        answering(Route([], refused=7)),
        hang,
    ],
)
async def test_a_broken_router_gives_way_to_the_next(directory, behave, monkeypatch):
    monkeypatch.setattr(routing, "PATIENCE_S", 0.3)
    found = await routing.choose([router("bad", behave), router("good", good)], ASK, directory)
    assert [one.name for one in found] == ["n1/a"]
    with pytest.raises(PluginFailed, match="bad: "):
        await routing.choose([router("bad", behave)], ASK, directory)
    assert not asyncio.current_task().cancelling()


async def test_a_cancel_of_the_caller_is_not_the_routers(directory):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await routing.choose([router("bad", hang), router("good", good)], ASK, directory)


async def test_a_router_that_refuses_all_without_a_reason_is_told_of(directory):
    with pytest.raises(Unavailable, match="The router gives no reason"):
        await routing.choose([router("mute", answering(Route([])))], ASK, directory)


async def test_a_router_may_take_its_time(directory):
    async def slow(candidates):
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # a router that is not done at once
        return await good(candidates)

    assert await routing.choose([router("slow", slow)], ASK, directory)


@pytest.mark.parametrize("asked", [{"agent": "hq"}, {"agent": "hq", "node": "hub"}])
async def test_an_agent_of_a_node_that_is_offline_is_away_and_not_unknown(directory, asked):
    directory.heard("hub", encode(NodeRecord("hub", "u", "i", 0, 10.0, agents=(AgentRecord("hq", ("hq",)),))))
    directory.left("hub")
    with pytest.raises(Unreachable) as away:
        await routing.choose([router("r", good)], Ask(**asked), directory)
    assert (away.value.code, away.value.retriable) == ("agent.away", True)
    assert "hub" in away.value.message
    with pytest.raises(NotFound) as unknown:
        await routing.choose([router("r", good)], Ask(**{**asked, "agent": "hk"}), directory)
    assert unknown.value.code == "agent.not_found"


async def test_a_node_that_nobody_has_seen_is_not_known(directory):
    with pytest.raises(NotFound) as unknown:
        await routing.choose([router("r", good)], Ask(agent="a", node="n2"), directory)
    assert unknown.value.code == "node.not_found"
