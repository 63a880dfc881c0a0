"""Configurations of agents' clients: what stands there stays, and what we put in comes out again."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from knotwork.cli import clients
from knotwork.cli.clients import CLIENTS, Machine
from knotwork.sdk.errors import Invalid

COMMAND = ["/usr/bin/knotwork", "mcp", "--toolset", "work"]
HERE = Machine(Path("/home/me"), {}, "linux")
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "knotwork")
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
JSON = [client for client in CLIENTS.values() if client.form == "json"]
CODEX = CLIENTS["codex"]
TOML = """# mine
model = "o4" # best

[mcp_servers.other]
command = "x"
env = { A = "1" }

[tui]
theme = '''
[mcp_servers.trap]
'''
"""


@pytest.mark.parametrize(
    ("name", "user", "project"),
    [
        ("claude-code", "/home/me/.claude.json", ".mcp.json"),
        ("copilot", "/home/me/.copilot/mcp-config.json", ".mcp.json"),
        ("cursor", "/home/me/.cursor/mcp.json", ".cursor/mcp.json"),
        ("codex", "/home/me/.codex/config.toml", ".codex/config.toml"),
        ("gemini", "/home/me/.gemini/settings.json", ".gemini/settings.json"),
        ("vscode", "/home/me/.config/Code/User/mcp.json", ".vscode/mcp.json"),
        ("windsurf", "/home/me/.codeium/windsurf/mcp_config.json", ""),
    ],
)
def test_each_has_its_files(name: str, user: str, project: str):
    client, folder = CLIENTS[name], Path("/work")
    assert clients.place(client, "user", folder, HERE) == Path(user)
    if project:
        assert clients.place(client, "project", folder, HERE) == folder / project
    else:
        with pytest.raises(Invalid, match="--scope user"):
            clients.place(client, "project", folder, HERE)


def test_files_of_other_systems_and_moved_ones():
    code = CLIENTS["vscode"]
    mac, windows = Machine(Path("/Users/me"), {}, "darwin"), Machine(Path("/h"), {"APPDATA": "/roaming"}, "win32")
    assert clients.place(code, "user", Path(), mac) == Path("/Users/me/Library/Application Support/Code/User/mcp.json")
    assert clients.place(code, "user", Path(), windows) == Path("/roaming/Code/User/mcp.json")
    moved = Machine(Path("/home/me"), {"CODEX_HOME": "/x", "COPILOT_HOME": "/y"}, "linux")
    assert clients.place(CODEX, "user", Path(), moved) == Path("/x/config.toml")
    assert clients.place(CLIENTS["copilot"], "user", Path(), moved) == Path("/y/mcp-config.json")


@pytest.mark.parametrize("client", JSON, ids=lambda client: client.name)
@given(others=st.dictionaries(NAMES, VALUES, max_size=4), servers=st.dictionaries(NAMES, VALUES, max_size=3))
def test_json_keeps_what_is_not_ours_and_its_order(
    client: clients.Client, others: dict[str, Any], servers: dict[str, Any]
):
    before = json.dumps(others | {client.key: servers}, indent=4)
    server = clients.entry(client, COMMAND, "user")
    after = clients.with_server(client, before, "knotwork", server, "x")
    found = json.loads(after)
    assert found[client.key].pop("knotwork") == server
    assert found == json.loads(before)
    assert [key for key in found if key != client.key] == [key for key in others if key != client.key]
    assert clients.with_server(client, after, "knotwork", server, "x") == after
    left = json.loads(clients.without_server(client, after, "knotwork", "x") or "{}")
    assert left == {key: value for key, value in json.loads(before).items() if value or key != client.key}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_a_new_file_is_made_and_is_nothing_again(client: clients.Client):
    server = clients.entry(client, COMMAND, "user")
    after = clients.with_server(client, "", "knotwork", server, "x")
    assert clients.read(client, after, "x") == {client.key: {"knotwork": server}}
    assert clients.without_server(client, after, "knotwork", "x").strip() == ""


def test_toml_is_changed_in_our_table_alone():
    server = clients.entry(CODEX, COMMAND, "user")
    after = clients.with_server(CODEX, TOML, "knotwork", server, "x")
    assert after.startswith(TOML.rstrip("\n"))
    assert tomllib.loads(after)["mcp_servers"]["knotwork"] == server
    again = clients.with_server(CODEX, after, "knotwork", {"command": "y", "args": []}, "x")
    assert tomllib.loads(again)["mcp_servers"] == {
        "other": {"command": "x", "env": {"A": "1"}}, "knotwork": {"command": "y", "args": []},
    }  # fmt: skip
    assert clients.without_server(CODEX, again, "knotwork", "x") == TOML


@pytest.mark.parametrize(
    "text",
    [
        "mcp_servers = { other = { command = 'x' } }\n",
        "[mcp_servers]\nknotwork.command = 'x'\n",
        "not toml =",
        "mcp_servers = 1",
        "note = '''\n[mcp_servers.knotwork]\nstays\n'''\n[mcp_servers.knotwork]\ncommand = 'x'\n",
    ],
)
def test_toml_that_cannot_be_changed_safely_is_refused(text: str):
    with pytest.raises(Invalid, match=r"cannot be (read|changed)") as refused:
        clients.with_server(CODEX, text, "knotwork", {"command": "y"}, "x")
    assert "It was not changed" in refused.value.hint


def test_of_toml_that_we_are_not_taken_out_of_safely_nothing_is_said_to_be_done():
    text = "[mcp_servers]\nknotwork.command = 'x'\n"
    with pytest.raises(Invalid, match="cannot be changed"):
        clients.without_server(CODEX, text, "knotwork", "x")


@pytest.mark.parametrize("begin", ["", TOML, "# mine\n"])
def test_a_comment_behind_our_table_is_said_of_what_follows(begin: str):
    ours = '[mcp_servers.knotwork]  # ours\ncommand = "x"\nargs = [\n  # of ours\n  "mcp",\n]\n\n[mcp_servers.knotwork.env]\nA = "b"\n'
    for rest in ("# Do not remove!\n\n# Twice.\n[mcp_servers.notes]\ncommand = 'n'\n", "# The end.\n"):
        text = begin + ("\n" if begin else "") + ours + "\n" + rest
        left = begin + ("\n" if begin else "") + rest
        assert clients.without_server(CODEX, text, "knotwork", "x") == left
        assert clients.with_server(CODEX, text, "knotwork", {"command": "y"}, "x").startswith(left)


@pytest.mark.parametrize(
    "text", ["{", "[]", "1", '{"mcpServers": []}', "// comment\n{}", '{"a": 1,}', '{"a": NaN}', '{"a": 1e999}']
)
def test_json_that_cannot_be_read_is_refused(text: str):
    with pytest.raises(Invalid, match="cannot be read"):
        clients.with_server(CLIENTS["claude-code"], text, "knotwork", {}, "x")


def test_half_a_character_in_a_file_stays_as_it_is():
    client, text = CLIENTS["claude-code"], '{\n  "history": [\n    "cut \\ud83d",\n    "whole 😀"\n  ]\n}\n'
    after = clients.with_server(client, text, "knotwork", {"command": "x"}, "f")
    assert after.encode().startswith(text.removesuffix("\n}\n").encode())
    assert clients.without_server(client, after, "knotwork", "f") == text


@pytest.mark.parametrize("name", ["a.b", 'x"y', "a b", "two\nlines", "ü", "back\\slash"])
def test_a_name_of_any_kind_comes_out_of_toml_again(name: str):
    after = clients.with_server(CODEX, TOML, name, {"command": "x"}, "f")
    again = clients.with_server(CODEX, after, name, {"command": "y"}, "f")
    assert tomllib.loads(again)["mcp_servers"][name] == {"command": "y"}
    assert clients.without_server(CODEX, again, name, "f") == TOML


def test_an_editor_is_told_which_folder_is_worked_in():
    assert clients.entry(CLIENTS["cursor"], COMMAND, "project")["args"][-2:] == ["--project-path", "${workspaceFolder}"]
    assert "--project-path" not in clients.entry(CLIENTS["claude-code"], COMMAND, "project")["args"]


@pytest.mark.parametrize("text", ["", "# Mine\n", "# Mine\n\nText.\n", "no end of line"])
def test_the_block_for_agents_comes_and_goes(text: str):
    once = clients.with_notes(text)
    assert clients.with_notes(once) == once
    assert once.count(clients.BEGIN) == 1
    assert clients.without_notes(once).rstrip("\n") == text.rstrip("\n")
    assert clients.without_notes(text) == text


def test_what_stands_behind_the_block_stays():
    text = clients.with_notes("# Before") + "\n## After\n"
    assert clients.without_notes(text) == "# Before\n\n## After\n"
    assert clients.without_notes(clients.NOTES + "# Between\n" + text) == "# Between\n# Before\n\n## After\n"


def test_a_begin_that_lost_its_end_takes_no_text_with_it():
    text = f"{clients.BEGIN}\nMine.\n"
    assert clients.without_notes(text) == text
    assert clients.without_notes(clients.with_notes(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"theme": 1, "theme": 2}', "the key 'theme' stands twice"),
        ('{"mcpServers": {"x": {}, "x": {}}}', "the key 'x' stands twice"),
        ("[]", "it holds no table"),
        ('{"mcpServers": []}', "mcpServers is no table"),
    ],
)
def test_a_file_that_would_lose_something_is_not_read(text: str, why: str):
    with pytest.raises(Invalid, match=why) as refused:
        clients.read(CLIENTS["cursor"], text, "mcp.json")
    assert refused.value.code == "connect.bad_config"


SETTINGS: Any = st.dictionaries(
    NAMES.filter(lambda name: name not in ("command", "args")),
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
    | st.lists(st.text(max_size=4), max_size=3) | st.dictionaries(NAMES, st.text(max_size=8), max_size=3),
    max_size=4,
)  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
@given(settings=SETTINGS)
@example(settings={"a": "\x85[", "b": "\u2028["})
def test_what_somebody_added_to_our_entry_stays_when_it_is_written_anew(
    client: clients.Client, settings: dict[str, Any]
):
    first = clients.entry(client, COMMAND, "user") | settings
    text = clients.with_server(client, "", "knotwork", first, "f")
    again = clients.entry(client, [*COMMAND[:2], "--toolset", "all"], "user")
    after = clients.with_server(client, text, "knotwork", again, "f")
    assert clients.servers(client, after, "f") == {"knotwork": first | again}


def test_tables_below_our_own_stay():
    before = (
        TOML + '\n[mcp_servers.knotwork]\ncommand = "knotwork"\nargs = ["mcp"]\n\n[mcp_servers.knotwork.env]\nA = "b"\n'
    )
    after = clients.with_server(CODEX, before, "knotwork", clients.entry(CODEX, COMMAND, "user"), "f")
    assert clients.servers(CODEX, after, "f")["knotwork"]["env"] == {"A": "b"}
    assert clients.without_server(CODEX, after, "knotwork", "f") == TOML


def test_two_clients_that_read_one_file_find_what_each_needs_in_it():
    claude, copilot = CLIENTS["claude-code"], CLIENTS["copilot"]
    text = ""
    for client in (copilot, claude):
        text = clients.with_server(client, text, "knotwork", clients.entry(client, COMMAND, "project"), "f")
    assert clients.servers(claude, text, "f")["knotwork"]["tools"] == ["*"]
