"""The files of the configuration are watched: what the system does not tell of is late, never lost, and told once."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import watchfiles

from knotwork.bus.background import background
from knotwork.config import load
from knotwork.config.loaded import Sources
from knotwork.host import watch
from knotwork.host.layout import Layout
from knotwork.host.reload import Reloader


@pytest.fixture
async def watched(tmp_path):
    """Yield a function that watches the files of `sources`, and returns what was asked for and whose files they are."""
    async with background() as group:

        async def begin(sources):
            world = SimpleNamespace(loaded=load.read(sources), code={})
            asked = []
            reloader = Reloader(world, None, None, Layout(tmp_path), group)
            reloader.ask = asked.append
            return SimpleNamespace(asked=asked, world=world, task=group.create_task(reloader.run()))

        yield begin


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def looks(monkeypatch):
    """Count the looks, and let them follow each other quickly."""
    seen = []
    look = watch._look
    monkeypatch.setattr(watch, "_look", lambda paths: (seen.append(paths), look(paths))[1])
    monkeypatch.setattr(watch, "LOOK_S", 0.02)
    return seen


async def more(looks, count=5):
    before = len(looks)
    await until(lambda: len(looks) >= before + count)


def folder_of_files(tmp_path):
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "10-node.toml").write_text("[node]\ndrain_s = 1.0\n")
    return folder, Sources((), folder, {}, ())


async def test_a_folder_that_goes_away_just_before_it_is_watched_is_noticed(tmp_path, watched, monkeypatch):
    folder, sources = folder_of_files(tmp_path)
    real, away = watchfiles.awatch, tmp_path / "away"
    renames = iter([lambda: folder.rename(away)])

    def late(*folders, **options):
        for rename in renames:
            rename()
        return real(*folders, **options)

    monkeypatch.setattr(watchfiles, "awatch", late)
    monkeypatch.setattr(watch, "HINTS_AGAIN_S", 3600.0)  # nothing rests on the system's help
    found = await watched(sources)
    await until(lambda: found.asked == ["file"])
    away.rename(folder)
    await until(lambda: found.asked == ["file", "file"])


async def test_without_the_systems_help_a_change_is_noticed_and_told_once(tmp_path, watched, monkeypatch, looks):
    folder, sources = folder_of_files(tmp_path)

    async def refused(*_folders, **_options):
        raise OSError(28, "inotify watch limit reached")
        yield

    monkeypatch.setattr(watchfiles, "awatch", refused)
    monkeypatch.setattr(watch, "HINTS_AGAIN_S", 0.1)  # it is asked for again and again
    found = await watched(sources)
    await more(looks)
    assert not found.asked
    (folder / "20-more.toml").write_text("[web]\nenabled = false\n")  # and nobody loads it
    await until(lambda: found.asked)
    await more(looks, 20)
    assert len(found.asked) <= 2  # it may have been caught half written


async def test_a_change_that_keeps_time_and_size_is_noticed(tmp_path, watched):
    """Two saves within a tick of the clock look like that."""
    file = tmp_path / "knotwork.toml"
    file.write_text("[node]\ndrain_s = 1.0\n")
    found = await watched(Sources((file,), None, {}, ()))
    file.write_text("[node]\ndrain_s = 2.0\n")
    await until(lambda: found.asked)
    at_ns = file.stat().st_mtime_ns
    found.asked.clear()
    with file.open("r+") as opened:
        opened.write("[node]\ndrain_s = 3.0\n")
    os.utime(file, ns=(at_ns, at_ns))
    await until(lambda: found.asked)


async def test_a_path_that_cannot_be_looked_at_ends_nothing(tmp_path, watched, looks):
    version, link = tmp_path / "version", tmp_path / "data"
    version.mkdir()
    (version / "knotwork.toml").write_text("# nothing\n")
    link.symlink_to(version)
    found = await watched(Sources((link / "knotwork.toml",), None, {}, ()))
    await more(looks)
    link.unlink()
    link.symlink_to("n" * 300)  # File name too long: neither there nor not there
    await until(lambda: found.asked)
    found.asked.clear()
    await more(looks)
    link.unlink()
    link.symlink_to(version)
    await until(lambda: found.asked)
    assert not found.task.done()


async def test_other_files_are_watched_once_the_configuration_comes_from_them(tmp_path, watched, looks):
    """`knotwork.toml` in the working folder goes before that of the user, once it is there and a reload was asked for."""
    first, second = tmp_path / "one.toml", tmp_path / "two" / "two.toml"
    second.parent.mkdir()
    first.write_text("# nothing\n")
    second.write_text("# nothing\n")
    found = await watched(Sources((first,), None, {}, ()))
    await more(looks)
    found.world.loaded = load.read(replace(found.world.loaded.sources, files=(second,)))
    await more(looks)
    assert not found.asked
    second.write_text("[node]\ndrain_s = 3.0\n")
    await until(lambda: found.asked)


async def test_a_folder_exchanged_for_another_is_watched_like_the_first(tmp_path, watched):
    folder, sources = folder_of_files(tmp_path)
    found = await watched(sources)
    other = tmp_path / "other"
    other.mkdir()
    folder.rename(tmp_path / "away")
    other.rename(folder)
    await until(lambda: found.asked)
    found.asked.clear()
    (folder / "30-more.toml").write_text("[node]\ndrain_s = 4.0\n")
    await until(lambda: found.asked)


async def test_nothing_is_told_when_nothing_changes(tmp_path, watched, looks):
    folder, sources = folder_of_files(tmp_path)
    found = await watched(sources)
    await more(looks)
    (folder / "not-ours.txt").write_text("x")
    await more(looks, 20)
    assert not found.asked
