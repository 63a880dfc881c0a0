"""`knotwork connect` writes what clients read, tries it, and takes it out again: real files, the real bridge."""

from __future__ import annotations

import json
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from tests.e2e.conftest import WAIT_S, Node, Nodes


@pytest.fixture
def home(nodes: Nodes, tmp_path: Path) -> tuple[Node, Path]:
    node, folder = nodes.node(), tmp_path / "home"
    for name in (".claude", ".codex", ".gemini", ".codeium/windsurf"):
        (folder / name).mkdir(parents=True)
    node.env |= {"HOME": str(folder)}
    return node, folder


def rows(node: Node, *words: str) -> dict[str, dict[str, Any]]:
    return {row["client"]: row for row in node.json("connect", *words)["clients"]}


def test_every_client_that_is_here_is_connected_and_disconnected(home: tuple[Node, Path]):
    node, folder = home
    claude, codex = folder / ".claude.json", folder / ".codex" / "config.toml"
    claude.write_text('{"numStartups": 3, "mcpServers": {"other": {"command": "x"}}}')
    codex.write_text('# mine\nmodel = "o4"\n')
    claude.chmod(0o640)
    told = rows(node, "--all", "--toolset", "classic")
    assert {name: row["done"] for name, row in told.items()} == {
        "claude-code": "written", "copilot": "not here", "cursor": "not here", "codex": "written", "gemini": "written",
        "vscode": "not here", "windsurf": "written",
    }  # fmt: skip
    assert told["claude-code"]["verified"].endswith("34 tools")
    found = json.loads(claude.read_text())
    assert (found["numStartups"], found["mcpServers"]["other"]) == (3, {"command": "x"})
    assert claude.stat().st_mode & 0o777 == 0o640
    assert tomllib.loads(codex.read_text())["mcp_servers"]["knotwork"]["args"][:1] == ["mcp"]
    assert {row["done"] for row in rows(node, "claude-code", "codex", "--toolset", "classic").values()} == {"unchanged"}

    undone = rows(node, "claude-code", "codex", "gemini", "windsurf", "--undo")
    assert {row["done"] for row in undone.values()} == {"taken out"}
    assert claude.read_text() == '{"numStartups": 3, "mcpServers": {"other": {"command": "x"}}}'
    assert codex.read_text() == '# mine\nmodel = "o4"\n'
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(left) == sorted([claude, codex])
    assert node.refused("connect", "codex", "--undo")[1]["code"] == "connect.no_backup"


def test_one_broken_file_keeps_no_other_from_being_done(home: tuple[Node, Path]):
    node, folder = home
    broken = folder / ".codex" / "config.toml"
    broken.write_text("model =")
    for words, done in ((("--all", "--no-verify"), "written"), (("--all", "--undo"), "taken out")):
        code, out, said = node.run("connect", *words, "-o", "json")
        assert (code, json.loads(said)["code"]) == (1, "connect.some_failed")
        told = {row["client"]: row for row in json.loads(out)["clients"]}
        assert (told["codex"]["done"], "config.toml cannot be read" in told["codex"]["why"]) == ("failed", True)
        assert {told[name]["done"] for name in ("claude-code", "gemini", "windsurf")} == {done}
        assert broken.read_text() == "model ="
    broken.unlink()
    assert {row["done"] for row in rows(node, "--all", "--undo").values()} == {"unchanged", "not here"}


def test_a_dry_run_writes_nothing_and_bad_files_stay(home: tuple[Node, Path]):
    node, folder = home
    told = rows(node, "gemini", "--dry-run", "--agents-md")
    assert "mcpServers" in told["gemini"]["text"]
    assert not (folder / ".gemini" / "settings.json").exists()
    assert not (node.folder / "AGENTS.md").exists()
    (folder / ".gemini" / "settings.json").write_text("// comments\n{}")
    assert node.refused("connect", "gemini")[1]["code"] == "connect.bad_config"
    assert (folder / ".gemini" / "settings.json").read_text() == "// comments\n{}"
    by_hand = rows(node, "gemini", "--dry-run")["gemini"]  # which the hint says
    assert (by_hand["done"], "cannot be read" in by_hand["why"]) == ("by hand", True)
    assert json.loads(by_hand["text"])["mcpServers"]["knotwork"]["args"][:1] == ["mcp"]
    odd = folder / ".codex" / "config.toml"
    odd.parent.mkdir(exist_ok=True)
    for text in (b"mcp_servers.knotwork.command = 'knotwork'\nmcp_servers.knotwork.args = ['mcp']\n", b"# caf\xe9\n"):
        odd.write_bytes(text)
        by_hand = rows(node, "codex", "--dry-run")["codex"]
        assert (by_hand["done"], "[mcp_servers.knotwork]" in by_hand["text"]) == ("by hand", True)
        for words in ((), ("--undo",)):
            assert node.refused("connect", "codex", *words)[1]["code"] == "connect.bad_config"
        assert odd.read_bytes() == text
    odd.unlink()
    assert node.refused("connect")[1]["code"] == "connect.unknown_client"
    assert node.refused("connect", "windsurf", "--scope", "project")[1]["code"] == "connect.no_scope"
    assert node.run("connect", "emacs")[0] == 2


async def test_what_is_written_for_a_project_is_what_a_client_can_start(home: tuple[Node, Path]):
    node, _ = home
    node.up()
    rows(node, "claude-code", "--scope", "project", "--agents-md")
    said = json.loads((node.folder / ".mcp.json").read_text())["mcpServers"]["knotwork"]
    assert "knotwork: begin" in (node.folder / "AGENTS.md").read_text()
    given = StdioServerParameters(
        command=said["command"], args=said["args"], cwd=node.folder,
        env={name: node.env[name] for name in ("PATH", "HOME", "KNOTWORK_DATA_DIR")} | {"XDG_KNOTWORK_TEST": node.mark},
    )  # fmt: skip
    assert "--data-dir" not in said["args"], "it is this machine's alone"
    async with Client(given, read_timeout_seconds=WAIT_S) as client:
        result = await client.call_tool("check_work", {"work_id": "t0000000000000000"})
        assert "work.not_found" in result.content[0].text
    rows(node, "claude-code", "--scope", "project", "--agents-md", "--undo")
    assert not (node.folder / "AGENTS.md").exists()
    assert not (node.folder / ".mcp.json").exists()


def test_a_session_that_cannot_be_called_so_is_told_so(home: tuple[Node, Path]):
    code, _, said = home[0].run("mcp", "--session", "A B")
    assert (code, said.startswith("error: 'A B' is no label of a session.")) == (2, True)


def test_a_link_stays_a_link(home: tuple[Node, Path]):
    node, folder = home
    real = folder / "dotfiles.json"
    real.write_text("{}")
    (folder / ".gemini" / "settings.json").symlink_to(real)
    rows(node, "gemini", "--no-verify")
    assert (folder / ".gemini" / "settings.json").is_symlink()
    assert "knotwork" in real.read_text()
    rows(node, "gemini", "--undo")
    real.unlink()
    rows(node, "gemini", "--no-verify")  # into a place where nothing is yet
    rows(node, "gemini", "--undo")
    assert ((folder / ".gemini" / "settings.json").is_symlink(), real.exists()) == (True, False)


def test_what_is_for_everybody_can_be_read_by_everybody_and_comes_out_of_where_a_link_leads(home: tuple[Node, Path]):
    node, folder = home
    theirs = node.folder / "docs-for-agents.md"
    (node.folder / "AGENTS.md").symlink_to(theirs)
    rows(node, "claude-code", "--scope", "project", "--agents-md", "--no-verify")
    rows(node, "gemini", "--no-verify")
    reference = node.folder / "made-by-anybody"
    reference.touch()
    modes = [file.stat().st_mode & 0o777 for file in (reference, node.folder / ".mcp.json", theirs)]
    assert len(set(modes)) == 1
    assert (folder / ".gemini" / "settings.json").stat().st_mode & 0o777 == 0o600
    rows(node, "claude-code", "--scope", "project", "--agents-md", "--undo")
    assert ((node.folder / "AGENTS.md").is_symlink(), theirs.exists()) == (True, False)


def test_of_several_at_the_same_time_none_writes_over_another(home: tuple[Node, Path]):
    node, folder = home
    (folder / ".gemini" / "settings.json").write_text('{"theme": "dark"}')
    names = [f"name-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(lambda name: node.run("connect", "gemini", "--no-verify", "--name", name)[0], names))
    found = json.loads((folder / ".gemini" / "settings.json").read_text())
    assert (set(done), sorted(found["mcpServers"]), found["theme"]) == ({0}, names, "dark")


def test_what_a_client_starts_is_tried_with_the_environment_that_it_gets(home: tuple[Node, Path]):
    node, folder = home
    rows(node, "gemini", "--no-verify")
    file = folder / ".gemini" / "settings.json"
    said = json.loads(file.read_text())
    said["mcpServers"]["knotwork"]["env"] = {"KNOTWORK_SESSION": "No Label"}
    file.write_text(json.dumps(said))
    assert node.refused("connect", "gemini")[1]["code"] == "connect.unverified"
    said["mcpServers"]["knotwork"]["env"] = {"KNOTWORK_SESSION": "a-label"}
    file.write_text(json.dumps(said))
    assert rows(node, "gemini")["gemini"]["verified"].endswith("12 tools")


def test_connecting_twice_is_undone_whole_and_a_foreign_server_stays(home: tuple[Node, Path]):
    node, folder = home
    claude = folder / ".claude.json"
    rows(node, "claude-code", "--no-verify")
    rows(node, "claude-code", "--no-verify", "--toolset", "all")
    rows(node, "claude-code", "--undo")
    assert not claude.exists()
    before = b'{\r\n  "a": 1\r\n}\r\n'
    claude.write_bytes(before)
    rows(node, "claude-code", "--no-verify")
    rows(node, "claude-code", "--no-verify", "--toolset", "all")
    rows(node, "claude-code", "--undo")
    assert claude.read_bytes() == before
    mine = '{"mcpServers": {"knotwork": {"command": "npx", "args": ["someone-elses"]}}}'
    claude.write_text(mine)
    assert node.refused("connect", "claude-code")[1]["code"] == "connect.name_taken"
    assert node.refused("connect", "claude-code", "--undo")[1]["code"] == "connect.name_taken"
    assert claude.read_text() == mine
    assert rows(node, "claude-code", "--no-verify", "--name", "knots")["claude-code"]["done"] == "written"
    rows(node, "claude-code", "--undo", "--name", "knots")
    assert claude.read_text() == mine


def test_a_file_that_two_clients_share_is_undone_for_both(home: tuple[Node, Path]):
    node, _ = home
    both = ("claude-code", "copilot", "--scope", "project", "--no-verify")
    rows(node, *both)
    file = Path(rows(node, *both)["copilot"]["file"])
    assert file.exists()
    assert [row["done"] for row in rows(node, *both, "--undo").values()] == ["taken out", "unchanged"]
    assert not file.exists()
    assert node.refused("connect", *both, "--undo")[1]["code"] == "connect.some_failed"
