"""A configuration keeps the node from working: one that was accepted before can be read and put back without a node."""

from __future__ import annotations

import json

import pytest

from knotwork.cli import main
from knotwork.config import revisions
from knotwork.config.load import read
from knotwork.config.loaded import Sources


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run one command line about a data folder in which no node runs, with two revisions of one file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KNOTWORK_DATA_DIR", str(tmp_path / "data"))
    file = tmp_path / "knotwork.toml"
    for text in ("# good\n[node]\nname = 'good'\n", "[node]\nname = 'bad'\n"):
        file.write_text(text)
        revisions.save(tmp_path / "data" / "revisions", read(Sources(files=(file,))), 1.0)

    def run(*words: str) -> tuple[int, str, str]:
        code = main.main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_going_back_needs_no_node(run, tmp_path):
    code, out, _ = run("config", "rollback", "1", "-o", "json")
    reply = json.loads(out)
    assert (code, reply["result"], reply["revision"]) == (0, "applied", 1)
    assert "wrote" in reply["message"]
    assert "`knotwork config check`" in reply["message"]
    assert (tmp_path / "knotwork.toml").read_text() == "# good\n[node]\nname = 'good'\n"
    assert run("config", "check")[0] == 0
    assert [row["at"] for row in json.loads(run("config", "revisions", "-o", "json")[1])["revisions"]] == [
        "1970-01-01T00:00:01Z"
    ] * 2
    assert json.loads(run("config", "rollback", "1", "-o", "json")[1])["result"] == "unchanged"
    (tmp_path / "knotwork.toml").write_text("[node")
    assert "knotwork.toml.not-in-revision" in json.loads(run("config", "rollback", "1", "-o", "json")[1])["message"]
    assert run("config", "rollback", "1")[0] == 0


def test_a_revision_can_be_read_before(run):
    code, out, _ = run("config", "revision", "1")
    assert code == 0
    assert "# good\n[node]\nname = 'good'\n" in out
    files = json.loads(run("config", "revision", "2", "-o", "json")[1])["files"]
    assert [one["text"] for one in files] == ["[node]\nname = 'bad'\n"]


@pytest.mark.parametrize("verb", ["rollback", "revision"])
def test_one_that_is_not_kept_is_named(run, verb):
    code, _, err = run("config", verb, "9")
    assert code != 0
    assert "config.no_revision" in err
    assert "1, 2" in err
    assert run("config", verb, "0")[0] == (2 if verb == "revision" else 1)


def test_a_rollback_is_about_the_data_folder_alone(run):
    assert run("config", "rollback", "1", "--config", "knotwork.toml")[0] == 2
