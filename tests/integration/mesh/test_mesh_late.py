"""Answers that are ready while NATS is away, and callers that are gone, or only look like it."""

from __future__ import annotations

import asyncio

import pytest

from knotwork.bus import way
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.mesh import prompt_stream, prompts
from knotwork.sdk import Done
from knotwork.sdk.errors import KnotworkError

WAIT_S = 30.0


@pytest.fixture
def held():
    """An agent `held` that answers when it is told to, `talk` that streams then, `chat` that streams all the while."""

    class Held:
        def __init__(self) -> None:
            self.go = asyncio.Event()

        async def wait(self, attempt):
            await self.go.wait()
            return Done("kept")

        async def talk(self, attempt):
            await self.go.wait()
            for n in range(20):
                await attempt.report.stream(n)
            return Done("kept")

        async def chat(self, attempt):
            while not self.go.is_set():
                await attempt.report.stream("so")
                await asyncio.sleep(0.02)
            return Done("kept")

        def fill(self, node):
            node.agent("held", self.wait)
            node.agent("chat", self.chat)
            node.agent("talk", self.talk)

    return Held()


def late(settings=None):
    """A caller who comes back half a second after NATS, when whoever works for him is back for long."""
    return {"link": {"pause_min_s": 0.5, "pause_max_s": 0.6}, **(settings or {})}


async def pair(node, until, held, **settings):
    far = await node("far", held.fill, **settings)
    near = await node("near", lambda _node: None, **late(settings))
    await until(lambda: near.directory.candidates(agent="held"), WAIT_S)
    return near, far


async def away(server, *members):
    await server.kill()
    async with asyncio.timeout(WAIT_S):
        while any(member.connection.state == "connected" for member in members):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("agent", ["held", "talk"])
async def test_an_answer_that_is_ready_while_nats_is_away_arrives(node, server, invoke, until, held, agent):
    near, far = await pair(node, until, held)
    pieces: list[bytes] = []
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(invoke(near, agent, timeout_s=60, on_piece=lambda piece: pieces.append(piece.data)))
        await until(lambda: far.node.running.get(agent), WAIT_S)
        await away(server, near, far)
        held.go.set()
        await asyncio.sleep(0.1)  # it is ready now, and cannot be sent
        await server.start()
    assert asked.result() == "kept"
    assert pieces == ([b"%d" % n for n in range(20)] if agent == "talk" else [])
    await until(far.node.hosting.idle.is_set, WAIT_S)
    await until(lambda: len(far.connection._inbox) == 0 and len(near.connection._inbox) == 0, WAIT_S)


async def test_an_answer_that_is_ready_before_its_caller_is_back_arrives(node, server, invoke, until, held):
    near, far = await pair(node, until, held)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(invoke(near, "held", timeout_s=60))
        await until(lambda: far.node.running.get("held"), WAIT_S)
        await away(server, near, far)
        await server.start()
        await until(lambda: far.connection.state == "connected", WAIT_S)
        held.go.set()
    assert asked.result() == "kept"
    await until(lambda: len(far.connection._inbox) == 0, WAIT_S)


async def test_it_is_kept_no_longer_than_its_caller_waits(node, server, invoke, until, held):
    near, far = await pair(node, until, held)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(outcome(invoke(near, "held", timeout_s=6.0)))
        await until(lambda: far.node.running.get("held"), WAIT_S)
        await away(server, near, far)
        held.go.set()
    assert asked.result() == "call.timed_out"
    await until(far.node.hosting.idle.is_set, WAIT_S)  # NATS is still away
    assert far.connection.state != "connected"
    assert len(far.connection._inbox) == 0


async def outcome(work):
    try:
        return await work
    except KnotworkError as error:
        return error.code


async def test_nobody_is_lost_because_nats_is_away_for_long(node, server, invoke, until, held):
    near, far = await pair(node, until, held, keepalive_s=0.8)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(invoke(near, "held", timeout_s=60))
        await until(lambda: far.node.running.get("held"), WAIT_S)
        await away(server, near, far)
        await asyncio.sleep(4.5)  # far longer than three keepalives, and than a look at who is silent
        assert not asked.done()
        await server.start()
        await until(lambda: far.connection.state == near.connection.state == "connected", WAIT_S)
        await asyncio.sleep(1.5)  # longer than what a caller that is gone is given
        held.go.set()
    assert asked.result() == "kept"


async def test_a_caller_killed_while_nats_is_away_is_noticed_in_the_end(node, process, server, until, monkeypatch):
    monkeypatch.setattr(way, "PATIENT_S", 3.0)
    far = await node("far")
    near = await process("near", "sleep")
    await until(lambda: far.node.running.get("sleep"), WAIT_S)
    await away(server, far)
    near.kill()
    await server.start()
    await until(lambda: not far.node.running["sleep"], WAIT_S)
    await until(lambda: not far.node.hosting.running(), WAIT_S)
    await until(lambda: len(far.connection._inbox) == 0, WAIT_S)


async def test_a_killed_caller_is_noticed_whatever_the_keepalive(node, process, until):
    far = await node("far", keepalive_s=60.0)
    near = await process("near", "sleep")
    await until(lambda: far.node.running.get("sleep"), WAIT_S)
    near.kill()
    await until(lambda: not far.node.running["sleep"], WAIT_S)
    await until(lambda: not far.node.hosting.running(), WAIT_S)
    assert len(far.connection._inbox) == 0


async def test_a_caller_whose_link_was_cut_for_a_moment_keeps_his_work(
    node, server, proxy, invoke, until, held, monkeypatch
):
    monkeypatch.setattr(way, "GONE_AFTER_S", 4.0)  # on a slow machine he needs more than a second to come back
    far = await node("far", held.fill)
    near = await node("near", lambda _node: None, url=proxy.url, link={"pause_min_s": 0.02, "pause_max_s": 0.2})
    await until(lambda: near.directory.candidates(agent="held"), WAIT_S)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(invoke(near, "held", timeout_s=60))
        await until(lambda: far.node.running.get("held"), WAIT_S)
        proxy.cut()
        await until(lambda: near.connection.reconnects == 1, WAIT_S)
        await asyncio.sleep(6.0)  # longer than a caller that is gone is given
        assert far.node.running["held"] == 1
        held.go.set()
    assert asked.result() == "kept"


async def test_a_caller_who_has_waited_long_may_be_away_longer(node, server, proxy, invoke, until, held, monkeypatch):
    monkeypatch.setattr(way, "SHARE", 1000.0)  # a moment counts as minutes
    far = await node("far", held.fill)
    near = await node("near", lambda _node: None, url=proxy.url, link={"pause_min_s": 0.02, "pause_max_s": 0.2})
    await until(lambda: near.directory.candidates(agent="held"), WAIT_S)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(invoke(near, "held", timeout_s=60))
        await until(lambda: far.node.running.get("held"), WAIT_S)
        proxy.dead = True
        proxy.cut()
        await asyncio.sleep(4.5)  # longer than a caller who has just asked is given
        assert far.node.running["held"] == 1
        proxy.dead = False
        await until(lambda: near.connection.reconnects == 1, WAIT_S)
        held.go.set()
    assert asked.result() == "kept"


@pytest.mark.parametrize("agent", ["held", "chat"])
async def test_the_work_of_a_prompt_ends_when_its_sender_is_gone(node, server, until, held, agent, monkeypatch):
    monkeypatch.setattr(prompt_stream, "ACK_S", 0.3)
    far = await node("far", held.fill)
    heard: list[bytes] = []
    async with open_connection(Endpoint((server.url,))) as client:
        client.send(
            f"agents.prompt.test.far.{agent}", b"hello", client.open_reply(lambda message: heard.append(message.data))
        )
        await until(lambda: far.node.running.get(agent), WAIT_S)
        await until(lambda: heard.count(prompts.ACK) > 3, WAIT_S)  # a sender that is there goes on
        assert far.node.running[agent] == 1
    await until(lambda: not far.node.running[agent], WAIT_S)
    await until(lambda: len(far.connection._inbox) == 0, WAIT_S)


async def test_an_answer_that_is_ready_while_its_caller_is_away_waits_for_him(
    node, proxy, invoke, until, held, monkeypatch
):
    """His link alone is lost: whoever works for him never lost his own, and hears only that nobody listens."""
    monkeypatch.setattr(way, "SHARE", 1000.0)  # a moment counts as minutes
    unheard, missed = way.Way._unheard, asyncio.Event()

    def told(self, message, *given):
        unheard(self, message, *given)
        if self._since_s:
            missed.set()

    monkeypatch.setattr(way.Way, "_unheard", told)
    far = await node("far", held.fill)
    near = await node("near", lambda _node: None, url=proxy.url, link={"pause_min_s": 0.02, "pause_max_s": 0.2})
    await until(lambda: near.directory.candidates(agent="held"), WAIT_S)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        asked = group.create_task(invoke(near, "held", timeout_s=60))
        await until(lambda: far.node.running.get("held"), WAIT_S)
        proxy.dead = True
        proxy.cut()
        await missed.wait()
        held.go.set()
        await until(lambda: not far.node.running["held"], WAIT_S)
        proxy.dead = False
    assert asked.result() == "kept"
