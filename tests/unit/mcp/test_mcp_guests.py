"""Agents behind HTTP: who they are, and what is told while their session cannot be opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from knotwork.bus import codec
from knotwork.bus.background import background
from knotwork.mcp import guests
from knotwork.mcp.held import Held
from knotwork.mesh import session_records
from knotwork.ops.serve import Frame
from knotwork.sdk.errors import Busy, Unavailable
from knotwork.trust.who import Who, person


class SilentNode:
    """A node that knows who asks, and never answers."""

    def who(self, project: str, _session: str) -> Any:
        return person("ann", project)


async def never(*_: Any) -> AsyncGenerator[Frame, None]:
    await asyncio.Event().wait()
    yield Frame("result", b"{}")


async def test_a_session_that_does_not_open_in_time_is_told_as_that(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guests.serve, "dispatch", never)
    monkeypatch.setattr(guests, "OPEN_S", 0.05)
    async with background() as group:
        made = guests.Guests(SilentNode(), Held(), group)
        guest = made.of(guests.Door("default", "tester", "k1"))
        with pytest.raises(Unavailable) as refused:
            await made.caller_of(guest)
    assert refused.value.code == "mcp.no_session"


class NamedNode:
    """A node of a name, whose agents are called as `names` says by their secrets."""

    def __init__(self, name: str, names: dict[str, str]) -> None:
        self.name, self.names, self.opened = name, names, []

    def who(self, project: str, session: str) -> Who:
        if not session:
            return person("ann", project, self.name)
        return Who("a1", self.names[session], project, "ann", node=self.name)


async def opening(_op: str, body: bytes, _caller: Any, node: NamedNode) -> AsyncGenerator[Frame, None]:
    """Open a session as a node does, and hold it."""
    node.opened.append(codec.decode(body))
    yield Frame("chunk", codec.encode({"data": {"event": "opened", "session": "s1"}}))
    await asyncio.Event().wait()


def known_by(node: NamedNode) -> list[str]:
    return [
        session_records.identity("default", "ann", one["host"], one["path"], one["label"], "") for one in node.opened
    ]


@pytest.mark.parametrize("label", ["", "reviewer"])
async def test_who_names_no_session_is_an_agent_of_this_node_alone(monkeypatch: pytest.MonkeyPatch, label: str):
    monkeypatch.setattr(guests.serve, "dispatch", opening)
    alpha, beta = NamedNode("alpha", {"s1": "httper"}), NamedNode("beta", {"s1": "httper"})
    for node in (alpha, beta):
        async with background() as group:
            made = guests.Guests(node, Held(), group)
            for key in ("k1", "k2"):
                await made.caller_of(made.of(guests.Door("default", "httper", key, label)))
    assert (known_by(alpha) == known_by(beta)) is bool(label)
    assert len({*known_by(alpha), *known_by(beta)}) == (1 if label else 4)


async def test_who_is_an_agent_of_a_project_does_not_depend_on_who_is_in_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guests.serve, "dispatch", opening)
    alone, beside = NamedNode("alpha", {"s1": "httper"}), NamedNode("alpha", {"s1": "httper"})
    for node, projects in ((alone, ("lab",)), (beside, ("default", "lab"))):
        async with background() as group:
            made = guests.Guests(node, Held(), group)
            for project in projects:
                await made.caller_of(made.of(guests.Door(project, "httper", f"k {project}")))
    assert alone.opened == beside.opened[1:]


async def test_only_those_who_are_here_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guests, "GUESTS_MAX", 2)
    monkeypatch.setattr(guests.serve, "dispatch", opening)
    node = NamedNode("alpha", {"s1": "httper"})
    async with background() as group:
        made = guests.Guests(node, Held(), group)

        def door(number: int) -> guests.Door:
            return guests.Door("default", "httper", f"k{number}", session=f"k{number}")

        for number in range(9):
            made.of(door(number))  # and asks for nothing
        for number in range(2):
            guest = made.of(door(number))
            await made.caller_of(guest)
        with pytest.raises(Busy):
            made.of(door(3))
        with monkeypatch.context() as later:
            later.setattr(guests, "KEEP_S", -1.0)
            made.known(door(0)).inside = 1  # it is being answered
            await made.caller_of(made.of(door(1)))
            await made.caller_of(made.of(door(4)))
            assert [made.known(door(number)) is None for number in (0, 1, 4)] == [False, True, False]
            made.known(door(0)).inside = 0
            await made.caller_of(made.of(door(1)))  # who was silent for longest goes
            assert [made.known(door(number)) is None for number in (0, 1, 4)] == [True, False, False]
        await made.caller_of(made.of(door(1)))
        made.left("k4")
        await made.caller_of(made.of(door(0)))
        assert [made.known(door(number)) is None for number in range(3)] == [False, False, True]
        made.left("k0")
        assert made.of(door(3)) is made.known(door(3))
        assert made.known(door(0)) is None


@pytest.mark.parametrize("last", ["m1", "m2", ""])
async def test_one_of_several_clients_that_are_one_agent_leaves_alone(monkeypatch: pytest.MonkeyPatch, last: str):
    monkeypatch.setattr(guests.serve, "dispatch", opening)
    monkeypatch.setattr(guests, "SESSIONS_MAX", 3)
    async with background() as group:
        made = guests.Guests(NamedNode("alpha", {"s1": "httper"}), Held(), group)
        doors = [guests.Door("default", "httper", "k", "reviewer", session) for session in ("gone", "m1", "m2", "")]
        for door in doors:  # the one that has no MCP session of its own cannot say that it leaves
            await made.caller_of(made.of(door))
        left = [door.session for door in doors if door.session not in ("gone", last)]
        for session in left:
            made.left(session)
            made.left("somebody-elses")
            assert made.known(doors[0]) is not None
        made.left(last)
        assert made.known(doors[0]) is None


async def test_an_agent_that_calls_itself_otherwise_asks_by_its_new_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guests.serve, "dispatch", opening)
    node = NamedNode("alpha", {"s1": "httper"})
    async with background() as group:
        made = guests.Guests(node, Held(), group)
        guest = made.of(guests.Door("default", "httper", "k1"))
        assert (await made.caller_of(guest)).who.name == "httper"
        node.names["s1"] = "critic"
        assert (await made.caller_of(guest)).who.name == "critic"
