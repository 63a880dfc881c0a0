"""Does the text in front of the archive do its part? Tried with an archive of one small script in place of the program."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
PROGRAM = """#!/bin/sh
printf '%s\\n' "$$" "$0" "$#" "$@"
exit 5
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a zip file there")


def build():
    found = importlib.util.spec_from_file_location("knotwork_build", PACKAGING / "build.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """One file in a folder with a space, with 3 MB inside that do not compress."""
    folder = tmp_path_factory.mktemp("a folder")
    inside = folder / "inside"
    (inside / "more").mkdir(parents=True)
    (inside / "knotwork").write_text(PROGRAM)
    (inside / "knotwork").chmod(0o755)
    (inside / "more" / "noise").write_bytes(os.urandom(3_000_000))
    (inside / "link").symlink_to("more/noise")
    return build().wrap(inside, folder / "knotwork")


class Started:
    def __init__(self, file: Path, *words: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [file, *words],
            env={"PATH": os.defpath, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.splitlines(), err


def run(file: Path, *words: str, **env: str) -> tuple[int, list[str], str]:
    return Started(file, *words, **env).end()


def test_it_becomes_the_program_and_hands_everything_on(file, tmp_path):
    words = ("a b", "", "$HOME", "'\"\\", "ü")
    for cache in ("first time", "again"):
        started = Started(file, *words, KNOTWORK_CACHE_DIR=str(tmp_path / "the cache"))
        code, said, err = started.end()
        assert (code, err) == (5, ""), cache
        assert said[0] == str(started.process.pid), "a parent stayed behind"
        assert said[2:] == ["5", *words]
        assert Path(said[1]).parent.parent == tmp_path / "the cache"
    folder = Path(said[1]).parent
    assert (folder / "link").is_symlink()
    assert [path.name for path in (tmp_path / "the cache").iterdir()] == [folder.name]


def test_where_it_unpacks(file, tmp_path):
    (tmp_path / "home").mkdir()
    for env, place in (
        ({"HOME": str(tmp_path / "home")}, tmp_path / "home/.cache/knotwork"),
        ({"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg/knotwork"),
        ({"XDG_CACHE_HOME": str(tmp_path / "only")}, tmp_path / "only/knotwork"),
    ):
        assert Path(run(file, **env)[1][1]).parent.parent == place
    code, _, err = run(file)
    assert code == 78
    assert "KNOTWORK_CACHE_DIR" in err


def test_many_at_once_share_one_copy(file, tmp_path):
    started = [Started(file, KNOTWORK_CACHE_DIR=str(tmp_path)) for _ in range(8)]
    ends = [one.end() for one in started]
    assert {(code, err) for code, _, err in ends} == {(5, "")}
    assert len({said[1] for _, said, _ in ends}) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_refused_whole(file, tmp_path):
    for damage in (lambda raw: raw[:-100], lambda raw: raw[:-500] + b"x" + raw[-499:]):
        broken = tmp_path / "broken"
        broken.write_bytes(damage(file.read_bytes()))
        broken.chmod(0o755)
        code, said, err = run(broken, KNOTWORK_CACHE_DIR=str(tmp_path / "cache"))
        assert (code, said) == (1, [])
        assert "damaged" in err
        assert not list((tmp_path / "cache").iterdir())


def test_what_a_killed_one_left_is_swept_and_what_a_living_one_needs_is_not(file, tmp_path):
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    host = os.uname().nodename
    dead, alive, elsewhere = (
        tmp_path / f".new.{host}.{gone}",
        tmp_path / f".new.{host}.{os.getpid()}",
        tmp_path / f".new.elsewhere.{gone}",
    )
    for round_ in ("while unpacking", "when all is there"):
        for folder in (dead, alive, elsewhere):
            (folder / "knotwork").mkdir(parents=True, exist_ok=True)
        assert run(file, KNOTWORK_CACHE_DIR=str(tmp_path))[0] == 5
        assert (dead.exists(), alive.exists(), elsewhere.exists()) == (False, True, True), round_


def test_a_place_that_cannot_be_used_is_named(file, tmp_path):
    (tmp_path / "taken").write_text("a file")
    code, said, err = run(file, KNOTWORK_CACHE_DIR=str(tmp_path / "taken" / "below"))
    assert (code, said) == (78, [])
    assert "KNOTWORK_CACHE_DIR" in err


def test_a_signal_while_it_unpacks(file, tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        started = Started(file, KNOTWORK_CACHE_DIR=str(tmp_path))
        started.process.send_signal(number)
        assert started.end()[0] in (5, 130, 143, -number)
    assert run(file, KNOTWORK_CACHE_DIR=str(tmp_path))[0] == 5
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_hanging_up_matters_to_a_node_only_when_it_listens(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "knotwork").write_text("#!/bin/sh\ngrep SigIgn /proc/$$/status\n")
    (inside / "knotwork").chmod(0o755)
    file = build().wrap(inside, tmp_path / "knotwork")
    for words, ignored in ((("up",), True), (("--data-dir", "x", "up"), True), (("agents",), False)):
        _, said, _ = run(file, *words, KNOTWORK_CACHE_DIR=str(tmp_path / "cache"))
        assert bool(int(said[0].split()[1], 16) & 1 << signal.SIGHUP - 1) is ignored, words


def test_the_same_folder_gives_the_same_file(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "knotwork").write_text(json.dumps({}))
    wrap = build().wrap
    assert wrap(inside, tmp_path / "one").read_bytes() == wrap(inside, tmp_path / "two").read_bytes()
