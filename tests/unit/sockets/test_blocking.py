"""A plugin that blocks the loop is interrupted where it stands, named with its line, and tried no more by itself."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from contextlib import asynccontextmanager

import pytest

from knotwork.sdk import Factory, PluginConfig
from knotwork.sdk.testing import make_context
from knotwork.sockets.blocking import Blocking
from knotwork.sockets.catalog import Entry
from knotwork.sockets.slot import Instance, Slot
from knotwork.sockets.sources import Source


class _Settings(PluginConfig):
    pass


def _slot(open_it, watch, folder, name="slow"):
    factory = Factory(name, _Settings, open_it, "Blocks.")
    entry = Entry("executors", name, factory, Source("file", name, "/own.py"))
    instance = Instance("executors", name, entry, _Settings(), start_timeout_s=0.2, stop_timeout_s=0.2)
    return Slot(instance, factory, make_context(id=name, folder=folder), watch.changed)


def _sleeps():
    time.sleep(600)


def _computes():
    while True:
        pass


def _waits_for_a_lock():
    threading.Event().wait(600)


@pytest.mark.parametrize("block", [_sleeps, _computes, _waits_for_a_lock])
async def test_a_plugin_that_blocks_while_it_opens_is_interrupted(tmp_path, block):
    @asynccontextmanager
    async def open_it(_config, _context):
        block()
        yield object()

    @asynccontextmanager
    async def open_well(_config, _context):
        yield object()

    stuck = []
    watch = Blocking(lambda slot, why: stuck.append((slot.id, why)))
    watch.begin()
    try:
        slot, other = _slot(open_it, watch, tmp_path), _slot(open_well, watch, tmp_path, "well")
        async with asyncio.TaskGroup() as group:
            slot.start(group)
            other.start(group)
            assert await slot.settled(60) == "quarantined"
            assert await other.settled(60) == "running"
            assert slot.failure is not None
            assert slot.failure.code == "plugin.blocks"
            assert re.search(rf"test_blocking\.py:\d+ in {block.__name__}", slot.why)
            assert await slot.stop()
            assert await other.stop()
    finally:
        watch.end()
    assert not stuck


async def test_one_that_waits_with_await_is_left_to_its_time_out(tmp_path):
    @asynccontextmanager
    async def open_it(_config, _context):
        await asyncio.sleep(600)
        yield object()

    watch = Blocking(lambda *_: None)
    watch.begin()
    try:
        slot = _slot(open_it, watch, tmp_path)
        async with asyncio.TaskGroup() as group:
            slot.start(group)
            assert await slot.settled(60) == "waiting"
            assert slot.failure is not None
            assert slot.failure.code == "plugin.start_timeout"
            await slot.stop()
    finally:
        watch.end()


async def test_one_that_cannot_be_interrupted_is_told_of_once(tmp_path, monkeypatch):
    monkeypatch.setattr("knotwork.sockets.blocking.PATIENCE_S", 0.2)
    told = threading.Event()

    @asynccontextmanager
    async def open_it(_config, _context):
        while not told.is_set():
            try:
                time.sleep(600)
            except Exception:
                told.wait(60)
        yield object()

    stuck = []

    def tell(slot, why):
        stuck.append((slot.id, why))
        told.set()

    watch = Blocking(tell)
    watch.begin()
    try:
        slot = _slot(open_it, watch, tmp_path)
        async with asyncio.TaskGroup() as group:
            slot.start(group)
            assert await slot.settled(60) == "running"
            await slot.stop()
    finally:
        watch.end()
    assert [name for name, _ in stuck] == ["slow"]
    assert "test_blocking.py" in stuck[0][1]
