"""Accepted configurations are kept and can be gone back to."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from knotwork.config import load, revisions
from knotwork.sdk import Conflict, Internal, NotFound


def accepted(
    file: Path, text: str, folder: Path, config_dir: Path | None = None, at_s: float = 1.5
) -> revisions.Revision:
    file.write_text(text)
    return revisions.save(folder, load.read(load.Sources((file,), config_dir, {})), at_s)


def test_the_last_twenty_are_kept(tmp_path):
    folder = tmp_path / "kept"
    assert revisions.listed(folder) == []
    for port in range(1, 26):
        revision = accepted(tmp_path / "k.toml", f"[web]\nport = {port}\n", folder)
        assert revision.number == port
    numbers = [revision.number for revision in revisions.listed(folder)]
    assert numbers == list(range(25, 5, -1))
    assert revisions.load(folder, 25) == revision
    assert revisions.load(folder, 6).texts[0].text == "[web]\nport = 6\n"
    with pytest.raises(NotFound, match=r"no revision 5\. Kept: 6, 7"):
        revisions.load(folder, 5)


def test_the_same_again_is_no_new_revision(tmp_path):
    one = accepted(tmp_path / "k.toml", "[web]\n", tmp_path / "kept", at_s=1)
    two = accepted(tmp_path / "k.toml", "[web]\n", tmp_path / "kept", at_s=2)
    assert one == two


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_only_the_owner_may_read_them(tmp_path):
    accepted(tmp_path / "k.toml", "[web]\n", tmp_path / "kept")
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "kept" / "000001.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "{}", '{"number": 1}', "\x00", json.dumps({"files": 3}), "[" * 50_000]
)
def test_a_damaged_revision_is_passed_over(tmp_path, damage):
    accepted(tmp_path / "k.toml", "[web]\n", tmp_path / "kept")
    accepted(tmp_path / "k.toml", "[node]\n", tmp_path / "kept")
    (tmp_path / "kept" / "000002.json").write_text(damage)
    (tmp_path / "kept" / "notes.json").write_text("not ours")
    assert [revision.number for revision in revisions.listed(tmp_path / "kept")] == [1]
    assert accepted(tmp_path / "k.toml", "[mesh]\n", tmp_path / "kept").number == 3


def test_going_back_writes_the_files_again(tmp_path):
    file, folder, extra = tmp_path / "k.toml", tmp_path / "kept", tmp_path / "conf.d"
    extra.mkdir()
    (extra / "a.toml").write_text("[mesh]\nheartbeat_s = 1\n")
    first = accepted(file, "[web]\nport = 1\n", folder, extra)
    (extra / "a.toml").unlink()
    (extra / "b.toml").write_text("[mesh]\nheartbeat_s = 2\n")
    file.chmod(0o640)
    accepted(file, "[web]\nport = 2\n", folder, extra)
    done = revisions.restore(revisions.load(folder, first.number), revisions.listed(folder))
    assert done == [
        f"wrote {file}",
        f"wrote {extra / 'a.toml'}",
        f"renamed {extra / 'b.toml'} to b.toml.not-in-revision",
    ]
    config = load.read(load.Sources((file,), extra, {})).config
    assert (config.web.port, config.mesh.heartbeat_s) == (1, 1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert revisions.restore(first, []) == []
    assert sorted(path.name for path in extra.iterdir()) == ["a.toml", "b.toml.not-in-revision"]


def test_what_is_in_no_revision_is_kept_beside(tmp_path):
    file, folder, extra = tmp_path / "k.toml", tmp_path / "kept", tmp_path / "conf.d"
    extra.mkdir()
    first = accepted(file, "[web]\nport = 1\n", folder, extra)
    accepted(file, "[web]\nport = 2\n", folder, extra)
    for edit, name in (("[web", "k.toml.not-in-revision"), ("[wob", "k.toml.not-in-revision-2"), ("[web", "")):
        file.write_text(edit)
        file.chmod(0o600)
        (extra / "b.toml").write_text(f"# {edit}\n")
        done = revisions.restore(first, revisions.listed(folder))
        kept = file.with_name(name or "k.toml.not-in-revision")
        assert done[0] == f"kept what {file} said, which is in no revision, as {kept.name}"
        assert kept.read_text() == edit
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert file.read_text() == "[web]\nport = 1\n"
    assert len(list(tmp_path.glob("k.toml?*"))) == 2
    assert sorted(path.name for path in extra.iterdir()) == ["b.toml.not-in-revision", "b.toml.not-in-revision-2"]
    file.write_text("[web]\nport = 2\n")
    assert revisions.restore(first, revisions.listed(folder)) == [f"wrote {file}"]


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real.toml", tmp_path / "k.toml"
    link.symlink_to(real)
    first = accepted(link, "[web]\nport = 1\n", tmp_path / "kept")
    accepted(link, "[web]\nport = 2\n", tmp_path / "kept")
    revisions.restore(first, revisions.listed(tmp_path / "kept"))
    assert link.is_symlink()
    assert real.read_text() == "[web]\nport = 1\n"


def test_what_cannot_be_written_is_said(tmp_path):
    file = tmp_path / "sub" / "k.toml"
    file.parent.mkdir()
    first = accepted(file, "[web]\n", tmp_path / "kept")
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file where a folder was")
    with pytest.raises(Conflict, match="cannot be written"):
        revisions.restore(first, [])
    with pytest.raises(Internal, match="cannot be kept"):
        revisions.save(file.parent / "kept", load.read(load.Sources(env={}), texts=()), 1)


def test_without_files_there_is_nothing_to_restore(tmp_path):
    revision = revisions.save(tmp_path, load.read(load.Sources(env={}), texts=()), 1)
    with pytest.raises(Conflict, match="without any file"):
        revisions.restore(revision, [])
