"""Serving a project: what passes is tried again, what stays wrong ends the start, and nothing stays behind."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from knotwork.bus import child, server
from knotwork.bus.background import background
from knotwork.bus.endpoint import Endpoint
from knotwork.config.model import Config
from knotwork.host import projects as projects_room
from knotwork.host.boot import bring_up
from knotwork.host.control import Control
from knotwork.host.layout import Layout
from knotwork.host.projects import Projects
from knotwork.sdk.errors import ConfigInvalid, Conflict, NotFound, Unavailable
from knotwork.trust import keys

LOADED = SimpleNamespace(config=Config())
AWAY = Endpoint(("nats://127.0.0.1:9",), name="test")


@pytest.fixture
async def nats(tmp_path):
    layout = Layout(tmp_path)
    layout.make()
    async with child.guard(), bring_up(Config(), layout, "here", lambda *_: None) as running:
        yield running


@pytest.fixture
async def group():
    async with background() as tasks:
        yield tasks


def served(group, endpoint, member):
    return Projects(group, endpoint, member, lambda *_: None)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_passes_is_tried_again_before_and_after_it_is_ready(nats, group, monkeypatch):
    monkeypatch.setattr(projects_room, "AGAIN_MIN_S", 0.02)
    tries, broken = [], asyncio.Event()

    async def breaks():
        await broken.wait()
        raise Unavailable("lost", code="test.lost")

    @asynccontextmanager
    async def member(_project, _connection):
        tries.append(1)
        if len(tries) < 3:
            raise ExceptionGroup("both", [ExceptionGroup("one", [Unavailable("not yet")])])
        async with asyncio.TaskGroup() as inner:
            task = inner.create_task(breaks() if len(tries) == 3 else asyncio.sleep(60))
            yield len(tries)
            task.cancel()

    found = served(group, lambda loaded, name: nats.endpoint(loaded, name, "here"), member)
    await found.start(["default"], LOADED, wait_s=30)
    assert found.get("default") == 3
    broken.set()
    await until(lambda: found.memberships() == [4])
    await found.stop(["default"])
    with pytest.raises(NotFound):
        found.get("default")


async def test_health_tells_why_a_project_is_tried_again(nats, group):
    broken = asyncio.Event()

    async def breaks():
        await broken.wait()
        raise Unavailable("the printer is on fire", code="test.lost")

    @asynccontextmanager
    async def member(_project, _connection):
        if broken.is_set():
            raise Unavailable("the printer is on fire", code="test.lost")
        async with asyncio.TaskGroup() as inner:
            inner.create_task(breaks())
            yield SimpleNamespace(presence=SimpleNamespace(twin=""))

    found = served(group, lambda loaded, name: nats.endpoint(loaded, name, "here"), member)
    await found.start(["default"], LOADED, wait_s=30)
    nobody, awake = SimpleNamespace(server=None), SimpleNamespace(state="running")
    control = Control(None, None, None, found, nobody, None, awake, None, safe_mode=False, stop_node=None)
    check = (await control.health()).checks[0]
    assert (check.ok, check.why) == (True, "")
    broken.set()
    await until(lambda: found.all()[0].trouble)
    for _ in range(20):  # also while it is being tried
        health = await control.health()
        assert health.live and not health.ready
        assert "the printer is on fire" in health.checks[0].why
        await asyncio.sleep(0.02)
    await found.stop(["default"])


async def test_a_name_that_is_taken_ends_the_start(nats, group):
    @asynccontextmanager
    async def member(_project, _connection):
        raise ExceptionGroup("in a group", [Conflict("taken", code="mesh.name_taken")])
        yield

    found = served(group, lambda loaded, name: nats.endpoint(loaded, name, "here"), member)
    with pytest.raises(Conflict, match="taken"):
        await found.start(["default"], LOADED, wait_s=None)
    assert found.all() == []


async def test_a_creds_file_that_is_not_there_ends_the_start(group, tmp_path):
    missing = Endpoint(("nats://127.0.0.1:9",), name="test", creds=str(tmp_path / "missing.creds"))
    found = served(group, lambda *_: missing, None)
    with pytest.raises(ConfigInvalid, match=r"missing\.creds"):
        async with asyncio.timeout(30):
            await found.start(["default"], LOADED, wait_s=None)
    assert found.all() == []


async def test_whoever_stops_waiting_leaves_nothing_behind(group):
    found = served(group, lambda *_: AWAY, None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await found.start(["one", "two"], LOADED, wait_s=None)
    assert found.all() == []
    with pytest.raises(Unavailable) as refused:
        await found.start(["one"], LOADED, wait_s=0.3)
    assert refused.value.code == "bus.unreachable"
    assert found.all() == []


@pytest.mark.parametrize("key", ["same", "other"])
async def test_what_gets_another_name_is_the_project_that_goes(tmp_path, group, key):
    """By its key, or by its account when the key is another: it is left before it is joined anew, and others are not."""
    pairs = {name: keys.generate() for name in ("old", "other", "kept")}
    users = {name: server.User(pair.public) for name, pair in pairs.items()}
    accounts = (server.Account("A", (users["old"], users["other"])), server.Account("B", (users["kept"],)))
    seeds = {**{name: pair.seed for name, pair in pairs.items()}, "new": pairs["old" if key == "same" else key].seed}

    @asynccontextmanager
    async def member(project, _connection):
        yield project

    settings = server.ServerSettings(store_dir=tmp_path / "store", accounts=accounts)
    async with child.guard(), server.run_server(settings) as running:
        found = served(group, lambda _, name: Endpoint((running.url,), name="here", seed=seeds[name]), member)
        await found.start(["old", "kept"], LOADED, wait_s=30)
        assert await found.renamed(["old"], ["new"], LOADED, wait_s=30) == ["old"]
        assert await found.renamed(["kept"], ["new"], LOADED, wait_s=30) == []
        assert await found.renamed([], ["new"], LOADED, wait_s=30) == []
        await found.stop(["old"])
        await found.start(["new"], LOADED, wait_s=30)
        assert sorted(found.memberships()) == ["kept", "new"]
        await found.stop(["new", "kept"])


async def test_two_projects_of_one_account_are_refused(nats, group):
    """Whatever key each has: what is sent in one would be done in the other."""

    @asynccontextmanager
    async def member(project, _connection):
        yield project

    found = served(group, lambda loaded, _name: nats.endpoint(loaded, "default", "here"), member)
    await found.start(["default"], LOADED, wait_s=30)
    with pytest.raises(ConfigInvalid, match="one account") as refused:
        await found.start(["side"], LOADED, wait_s=30)
    assert refused.value.code == "config.same_account"
    assert found.memberships() == ["default"]
    with pytest.raises(ConfigInvalid, match="one account"):
        both = served(group, lambda loaded, _name: nats.endpoint(loaded, "default", "here"), member)
        await both.start(["one", "two"], LOADED, wait_s=30)
    assert both.all() == []
    await found.stop(["default"])
