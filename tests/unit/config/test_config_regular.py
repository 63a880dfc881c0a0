"""Nothing waits for a pipe that somebody put where a file belongs: whoever would read it says so at once."""

from __future__ import annotations

import os

import pytest

from knotwork.bus import endpoint
from knotwork.config import regular
from knotwork.host import code_files
from knotwork.sdk.errors import ConfigInvalid, Invalid, KnotworkError, Unavailable
from knotwork.sockets import manifest, sources
from knotwork.trust import keys

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / manifest.FILE_NAME
    os.mkfifo(path)
    return path


def test_a_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    with regular.opened(tmp_path / "link") as file:
        assert file.read() == b"text"


@pytest.mark.parametrize("name", ["plugin.toml", "link", "/dev/zero", "."])
def test_what_is_no_file_is_not_opened(pipe, name):
    (pipe.parent / "link").symlink_to(pipe.name)
    with pytest.raises(OSError, match=r"no regular file|s a directory"):
        regular.opened(pipe.parent / name)


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (sources.from_file, Invalid),
        (lambda path: manifest.read(path.parent), Invalid),
        (lambda path: endpoint._check_creds(str(path)), ConfigInvalid),
        (keys.load, Unavailable),
    ],
    ids=["plugin", "manifest", "creds", "key"],
)
def test_whoever_reads_it_says_what_is_wrong(pipe, read, kind):
    with pytest.raises(kind, match="no regular file") as told:
        read(pipe)
    assert isinstance(told.value, KnotworkError)


def test_a_pipe_instead_of_code_says_nothing(pipe):
    assert code_files.read([pipe]) == {pipe: ""}
