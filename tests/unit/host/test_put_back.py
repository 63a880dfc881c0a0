"""A rollback that is refused leaves the files as they were, and one to other files than the node reads is refused."""

from __future__ import annotations

import pytest

from knotwork.config import load, revisions
from knotwork.host.put_back import Back, Before
from knotwork.sdk import Conflict

PORT = "[web]\nport = {}\n"


@pytest.fixture
def kept(tmp_path):
    """Return two revisions: of a file alone, and of a file with a folder."""
    file, folder = tmp_path / "k.toml", tmp_path / "conf.d"
    folder.mkdir()
    file.write_text(PORT.format(1))
    alone = revisions.save(tmp_path / "kept", load.read(load.Sources((file,), None, {})), 1)
    (folder / "a.toml").write_text("[mesh]\nheartbeat_s = 1\n")
    with_folder = revisions.save(tmp_path / "kept", load.read(load.Sources((file,), folder, {})), 2)
    return alone, with_folder


def test_a_refused_rollback_leaves_everything_as_it_was(tmp_path, kept):
    file, folder = tmp_path / "k.toml", tmp_path / "conf.d"
    (folder / "a.toml").unlink()
    (folder / "b.toml").write_text("# mine\n")
    file.write_text("[web\n")

    def there() -> dict[str, str]:
        return {path.name: path.read_text() for path in (*tmp_path.glob("*.t*"), *folder.iterdir())}

    was, before = there(), Before(kept[1])
    done = revisions.restore(kept[1], kept)
    assert len(there()) == 4
    assert Back(kept[1], done).aside.startswith("Kept what ")
    before.put_back()
    assert there() == was


def test_a_rollback_to_other_files_is_no_way_back(tmp_path, kept):
    file, folder = tmp_path / "k.toml", tmp_path / "conf.d"
    alone, with_folder = kept
    reads_alone, reads_all = (load.read(load.Sources((file,), one, {})) for one in (None, folder))
    Back(alone, []).refuse_other(reads_alone)
    Back(with_folder, []).refuse_other(reads_all)
    Back(with_folder, []).refuse_other(load.read(load.Sources((folder / ".." / "k.toml",), folder, {})))
    for revision, loaded in ((alone, reads_all), (with_folder, reads_alone)):
        with pytest.raises(Conflict, match=rf"the node reads {file}.*|It is of {file}, {folder / 'a.toml'}") as raised:
            Back(revision, []).refuse_other(loaded)
        assert raised.value.code == "config.other_files"
