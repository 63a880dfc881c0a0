"""A bridge starts the node it knows, as it was, whatever lies in the folder that its client works in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import PROGRAM, WAIT_S, Node

EVIL = """
[executors.evil]
type = "./evil.py"
"""
PLUGIN = "import pathlib; pathlib.Path({mark!r}).write_text('run')\n"


def call(node: Node, folder: Path, tool: str, **env: str) -> dict[str, Any]:
    """Call one tool through a bridge that is started in a folder, as clients do."""
    told = [
        {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}},
        {"id": 2, "method": "tools/call", "params": {"name": tool, "arguments": {}}},
    ]  # fmt: skip
    process = subprocess.Popen(
        [*PROGRAM, "mcp", "--toolset", "all"], cwd=folder, env={**node.env, **env}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for line in told:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **line}) + "\n")
    process.stdin.flush()
    answer = next(said for line in process.stdout if (said := json.loads(line)).get("id") == 2)
    process.stdin.close()
    process.wait(WAIT_S)
    process.stdout.close()
    return answer


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder that somebody else wrote."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "knotwork.toml").write_text(EVIL)
    (folder / "evil.py").write_text(PLUGIN.format(mark=str(tmp_path / "ran")))
    return folder


def test_it_is_started_with_its_own_configuration(nodes, evil, tmp_path):
    node = nodes.node('[node]\nowner = "ann"\n[projects.default]\n[projects.lab]\n')
    node.env.pop("KNOTWORK_CONFIG")
    assert node.run("up", "--detach", "--config", str(node.file))[0] == 0
    assert node.run("stop")[0] == 0
    try:
        answer = call(node, evil, "get_my_handle", KNOTWORK_CONFIG=str(evil / "knotwork.toml"))
        assert answer["result"]["isError"] is False, answer
        assert node.about["config_files"] == [str(node.file)]
        assert set(node.about["projects"]) == {"default", "lab"}
    finally:
        node.run("stop")
    assert not (tmp_path / "ran").exists()


def test_a_node_that_never_ran_is_started_with_nothing_of_the_folder(nodes, evil, tmp_path):
    node = nodes.node()
    node.env.pop("KNOTWORK_CONFIG")
    try:
        assert call(node, evil, "get_my_handle")["result"]["isError"] is False
        assert node.about["config_files"] == []
    finally:
        node.run("stop")
    assert not (tmp_path / "ran").exists()
