"""What a node says of itself in its data folder: where its projects' folders are, for the commands typed in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from knotwork.cli import local
from knotwork.config.load import read
from knotwork.config.loaded import Sources
from knotwork.host import nodefile
from knotwork.host.layout import Layout


@pytest.mark.parametrize("written", ["./lab", "lab", "sub/../lab", "{folder}/lab", "~/lab", "{folder}/link"])
def test_commands_typed_in_the_folder_of_a_project_mean_it(tmp_path, monkeypatch, written):
    folder = tmp_path / "configured"
    for name in ("lab/deeper", "sub", "other"):
        (folder / name).mkdir(parents=True)
    (folder / "link").symlink_to(folder / "lab")
    monkeypatch.setenv("HOME", str(folder))
    text = f'[projects.default]\n[projects.lab]\npath = ["{written.format(folder=folder)}"]\n'
    (folder / "knotwork.toml").write_text(text)
    monkeypatch.chdir(folder)
    found = read(Sources(files=(Path("knotwork.toml"),)))
    layout = Layout(tmp_path / "data")
    layout.run.mkdir(parents=True)
    nodefile.NodeFile(layout).begin("here", found)
    node = local.read(layout.data_dir)
    assert node is not None
    meant = {name: node.project_of((folder / name).resolve()) for name in ("lab", "lab/deeper", "sub", "other", ".")}
    assert meant == {"lab": "lab", "lab/deeper": "lab", "sub": "default", "other": "default", ".": "default"}
