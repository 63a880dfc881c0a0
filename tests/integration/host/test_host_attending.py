"""What the node does when sessions of agents begin and end: they are shown, and what they held goes to others."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from tests.integration.bus import raw_server

from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.host import attending
from knotwork.mesh.directory import Directory
from knotwork.mesh.session_records import AgentSession
from knotwork.mesh.sessions import open_sessions
from knotwork.sdk.errors import Conflict
from knotwork.work.attached import Attached

WAIT_S = 30.0


class Keeper:
    """Keeps nothing, and remembers whose claims were taken back."""

    def __init__(self) -> None:
        self.abandoned: list[str] = []

    def on_lost(self, _told) -> None:
        """Never lose anything."""

    def held(self, *_worker, **_more) -> int:
        return 0

    def abandon(self, *names: str, **_more) -> None:
        self.abandoned += names


@pytest.fixture
async def sessions(tmp_path):
    async with (
        raw_server.running(tmp_path / "nats") as server,
        open_connection(Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1)) as connection,
        open_sessions(connection, Directory(time.monotonic, "n1"), project="default", node="n1", instance="i1") as made,
    ):
        yield made


def newcomer(label: str) -> AgentSession:
    return AgentSession(
        f"00000000-0000-4000-8000-00000000000{label}",
        "agent",
        "default",
        "ann",
        "",
        "",
        "agent",
        label=label,
        registered=True,
    )


async def until(condition) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_who_was_never_let_in_costs_nobody_anything(sessions, monkeypatch):
    monkeypatch.setattr(attending, "AGAIN_S", 0.0)
    keeper = Keeper()
    work = SimpleNamespace(attached=Attached(keeper, frozenset), claims=SimpleNamespace(keeper=keeper))
    async with background() as group:  # an error of one of its tasks would end the whole project
        attending.Attending(sessions, work, group)
        async with sessions.open(newcomer("1"), handle="ann"):
            with pytest.raises(Conflict):
                async with sessions.open(newcomer("2"), handle="ann"):
                    pass
            await until(lambda: not abandoning())
            assert [one.name for one in work.attached.records()] == ["ann"]
            assert keeper.abandoned == []
        await until(lambda: keeper.abandoned == ["ann"])


def abandoning() -> list[str]:
    return [name for task in asyncio.all_tasks() if "_abandon" in (name := repr(task.get_coro()))]
