"""The bridge and its node: one that was killed is started again at once, one that was stopped when it is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from knotwork.bus.background import background
from knotwork.mcp import link as links
from knotwork.mcp.link import STOPPED, Link, Newcomer
from knotwork.sdk.errors import KnotworkError, Unreachable

WAIT_S = 30.0


@dataclass
class Piece:
    kind: str
    data: bytes


class Node:
    """A stand-in for a node that can be stopped and killed: real ones do so in tests/e2e/test_mcp.py."""

    def __init__(self) -> None:
        self.state, self.starts, self.left_alone = "up", 0, 0
        self.ended = asyncio.Event()
        self.looked = asyncio.Event()

    def end(self, how: str) -> None:
        self.state = how
        self.ended.set()

    def find(self, asked: bool) -> Any:
        if self.state == "stopped" and not asked:
            self.left_alone += 1
            raise Unreachable("The node was stopped.", code=STOPPED)
        if self.state != "up":
            self.state, self.starts, self.ended = "up", self.starts + 1, asyncio.Event()
        return self.way

    @contextlib.asynccontextmanager
    async def way(self) -> AsyncIterator[Any]:
        yield self.ask

    async def ask(self, op: str, request: bytes, **_: Any) -> AsyncGenerator[Piece, None]:
        ended = self.ended
        if op == "session.open":
            said = {"data": {"event": "opened", "session": "s", "handle": "me", "node": "n"}}
            yield Piece("chunk", json.dumps(said).encode())
        if op in ("session.open", "waits"):
            await ended.wait()
            if self.state == "taken over":
                yield Piece("chunk", json.dumps({"data": {"event": "closed", "why": "taken over"}}).encode())
            raise Unreachable("It went away.", code="bus.lost")
        yield Piece("result", json.dumps({"op": op}).encode())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PAUSE_MIN_S", 0.001)
    monkeypatch.setattr(links, "PAUSE_MAX_S", 0.01)


@contextlib.asynccontextmanager
async def linked(node: Node) -> AsyncIterator[Link]:
    link = Link(node.find, lambda: Newcomer("host", "/path", "label"))
    async with asyncio.timeout(WAIT_S), background() as group:
        group.create_task(link.run())
        assert await link.ask("agent.list", {}, timeout_s=WAIT_S) == {"op": "agent.list"}
        yield link


async def until_left_alone(node: Node) -> None:
    """Wait until the idle link has looked again and again."""
    before = node.left_alone
    while node.left_alone < before + 5:
        await asyncio.sleep(0.001)


@pytest.mark.usefixtures("quick")
async def test_an_idle_bridge_leaves_a_node_alone_that_was_stopped():
    node = Node()
    async with linked(node) as link:
        node.end("stopped")
        await until_left_alone(node)
        with pytest.raises(KnotworkError) as refused:  # a lease that we keep for the agent is no call of it
            await link.ask("work.extend", {}, timeout_s=WAIT_S, patience_s=0.05, wakes=False)
        assert (refused.value.code, node.starts) == (STOPPED, 0)
        assert await link.ask("memory.recall", {}, timeout_s=WAIT_S) == {"op": "memory.recall"}
        assert node.starts == 1


@pytest.mark.usefixtures("quick")
async def test_a_node_that_was_killed_is_started_at_once():
    node = Node()
    async with linked(node):
        node.end("killed")
        while not node.starts:
            await asyncio.sleep(0.001)
        assert node.left_alone == 0


@pytest.mark.usefixtures("quick")
async def test_a_call_that_only_waits_starts_no_node_but_goes_on_in_it():
    node = Node()
    async with linked(node) as link, background() as group:
        waiting = group.create_task(link.ask("waits", {}, timeout_s=WAIT_S, waits_s=WAIT_S))
        await asyncio.sleep(0)
        node.end("stopped")
        await until_left_alone(node)
        assert (node.starts, waiting.done()) == (0, False)
        assert await link.ask("agent.list", {}, timeout_s=WAIT_S) == {"op": "agent.list"}
        assert (node.starts, waiting.done()) == (1, False)
        waiting.cancel()


async def test_whose_session_is_taken_by_a_living_twin_is_told_how_to_be_another_agent(
    capsys: pytest.CaptureFixture[str],
):
    node = Node()
    async with linked(node) as link:
        node.end("taken over")
        with pytest.raises(KnotworkError) as refused:
            while True:
                await link.ask("waits", {}, timeout_s=WAIT_S, patience_s=0.05)
        assert (refused.value.code, "--session" in refused.value.hint) == ("mcp.session_closed", True)
    assert "--session" in capsys.readouterr().err
