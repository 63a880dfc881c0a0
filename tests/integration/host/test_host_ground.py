"""The streams of a project are there at once, over whichever connection, in the shape that the rooms give them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from knotwork.bus import blobs, child, kv, streams
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.config.model import Config
from knotwork.host import ground
from knotwork.host.boot import bring_up
from knotwork.host.layout import Layout
from knotwork.talk import stores as talk_stores
from knotwork.work import stores as work_stores

LOADED = SimpleNamespace(config=Config())


@pytest.fixture
async def nats(tmp_path):
    layout = Layout(tmp_path)
    layout.make()
    async with child.guard(), bring_up(Config(), layout, "here", lambda *_: None) as running:
        yield running


@pytest.mark.parametrize("ahead", [True, False])
async def test_all_of_a_project_is_there_and_rooms_find_it_in_shape(nats, monkeypatch, ahead):
    asked = []
    plain = streams.api

    async def api(connection, verb, body=None, **options):
        asked.append(verb)
        return await plain(connection, verb, body, **options)

    async with (
        asyncio.timeout(60),
        background() as group,
        open_connection(nats.endpoint(LOADED, "default", "test")) as connection,
    ):
        laid = ground.Ground()
        if ahead:
            laid.begin(group, nats, LOADED, "here")
        await laid.lay("default", connection, LOADED.config)
        names = (await streams.api(connection, "STREAM.NAMES"))["streams"]
        assert sorted(names) == sorted(spec.name for spec in ground.of(LOADED.config))
        monkeypatch.setattr(streams, "api", api)
        await work_stores.open_stores(connection)
        await talk_stores.open_stores(connection)
        await blobs.Blobs(connection).open()
        await kv.open_bucket(connection, "DEFS")
        await laid.lay("default", connection, LOADED.config)  # and again: nothing is changed by that
        assert asked
        assert not [verb for verb in asked if "UPDATE" in verb]


async def test_what_is_refused_is_left_to_its_room(nats, monkeypatch):
    wrong = streams.StreamSpec("WRONG", ("wrong.>",), {"storage": "nowhere"})
    good = streams.StreamSpec("GOOD", ("good.>",))
    monkeypatch.setattr(ground, "of", lambda _: (wrong, good))
    endpoint = nats.endpoint(LOADED, "default", "test")
    async with asyncio.timeout(60), open_connection(endpoint) as connection:
        await ground.Ground().lay("default", connection, LOADED.config)
        assert (await streams.api(connection, "STREAM.NAMES"))["streams"] == ["GOOD"]
