"""Standard output that is full, closed, or whose reader left: a sentence or nothing, and never a traceback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from knotwork.bus import child

FULL = Path("/dev/full")


def run(tmp_path: Path, shell: str, **more) -> subprocess.CompletedProcess[str]:
    command = " ".join(child.program())
    env = child.self_env({"KNOTWORK_DATA_DIR": str(tmp_path / "data")})
    return subprocess.run(
        ["/bin/sh", "-c", shell.replace("knotwork", command, 1)],
        cwd=tmp_path,
        env=env,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        **more,
    )


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", ["config revisions", "config schema"], ids=["at the end", "while it is written"])
def test_a_full_disk_is_told(tmp_path, words):
    done = run(tmp_path, f"knotwork {words} > {FULL}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("error: The answer cannot be written to standard output: No space")
    assert "(cli.output_lost)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    told = run(tmp_path, f"knotwork {words} -o json > {FULL}").stderr
    assert json.loads(told)["code"] == "cli.output_lost"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_output_is_nobody_who_wants_an_answer(tmp_path, closed):
    done = run(tmp_path, f"knotwork config revisions {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_error_is_told_where_there_is_no_standard_output(tmp_path):
    done = run(tmp_path, "knotwork status >&-")
    assert done.returncode == 69
    assert "node.not_running" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_ends_it_quietly(tmp_path):
    done = run(tmp_path, "knotwork config schema | head -c 1")
    assert (done.stdout, done.stderr) == ("{", "")


def test_an_encoding_that_lacks_a_character_loses_no_answer(tmp_path):
    (tmp_path / "knotwork.toml").write_text('[node.labels]\nplace = "Köln 🎉"\n', encoding="utf-8")
    told = run(tmp_path, "PYTHONIOENCODING=ascii knotwork config show")
    assert (told.returncode, told.stderr) == (0, "")
    assert r"K\xf6ln \U0001f389" in told.stdout
    told = run(tmp_path, "PYTHONIOENCODING=ascii knotwork config show -o json")
    settings = {one["key"]: one["value"] for one in json.loads(told.stdout)["settings"]}
    assert settings["node.labels.place"] == "Köln 🎉"


def test_a_working_folder_that_was_removed_is_told(tmp_path):
    told = run(tmp_path, "mkdir gone && cd gone && rmdir ../gone && exec knotwork config check")
    assert told.returncode == 2
    assert "(cli.no_folder)" in told.stderr
    assert "Traceback" not in told.stderr
