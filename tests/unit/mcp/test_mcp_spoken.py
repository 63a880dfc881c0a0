"""What a message says to do next: one command in it, said in the words of whoever reads it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

import knotwork
from knotwork.mcp import again, calling, catalog, spoken, work_values
from knotwork.mcp.message_tools import WAIT_DEFAULT_S
from knotwork.ops import commands
from knotwork.ops.listed import LISTED
from knotwork.sdk.errors import NotFound

ROOT = Path(knotwork.__file__).parent
ELSEWHERE = {"cli", "bench", "config"}
"""Rooms whose messages reach people alone."""
SHELL = {
    "status", "up", "stop", "reload", "init", "help", "config", "plugin", "connect", "mcp", "view", "targets", "launches", "trigger",
    "triggers", "event", "contact", "route", "blob", "run export", "run fork", "run link",
    "task retry", "run retry", "crew plan", "workflow remove",
}  # fmt: skip
"""Commands that no tool stands for: an agent asks its user."""
WORDS = {" ".join(row.cli.words) for row in LISTED.values()} | {
    also for row in LISTED.values() for also in row.cli.also
}


@functools.cache
def literals() -> list[tuple[str, str]]:
    """Return every text in the code that may reach somebody, with where it stands; those with values in them, too."""
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).parts[0]
        if room in ELSEWHERE or file.name == "rows.py":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and isinstance(node.body[0] if node.body else None, ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "X" for one in node.values)
                found.append((f"{room}/{file.name}:{node.lineno}", text))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                found.append((f"{room}/{file.name}:{node.lineno}", node.value))
    return found


def test_every_command_that_a_message_names_is_known_to_agents_or_known_not_to_be():
    found = {(where, command) for where, text in literals() for command in commands.named(text)}
    assert len(found) > 40
    unknown = {
        (where, command)
        for where, command in found
        if commands.known(command, spoken.TOOLS) is None and commands.known(command, dict.fromkeys(SHELL, "")) is None
    }
    assert not unknown


def test_a_message_names_commands_in_whole():
    """What is said of a command is said with `knotwork` before it, or no door could say it in its own words."""
    bare = re.compile(r"`([a-z]+[ .][a-z-]+)(?: [^`]*)?`")
    known = {words for words in WORDS if " " in words} | set(LISTED)
    rooms = ("ops", "mcp", "web", "host")  # help texts of ops, read at every door, name ops and commands as they are
    found = {
        (where, command)
        for where, text in literals()
        for command in bare.findall(text)
        if command in known and where.split("/")[0] not in rooms
    }
    assert not found


def test_the_table_names_commands_and_tools_that_there_are():
    assert set(spoken.TOOLS.values()) <= set(catalog.TOOLS)
    assert set(spoken.TOOLS) <= WORDS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("See `knotwork run list`.", "See list_runs (toolset flow)."),
        ("See `knotwork session list`.", "See discover_agents."),
        ("See `knotwork agents --all`.", "See list_agents (toolset work)."),
        ("Or `knotwork channel archive --undo`.", "Or archive_channel (toolset talk) with undo."),
        ("`knotwork run watch w01ab` waits.", "await_work (toolset work) with w01ab waits."),
        ("No command here: `run` and knotwork run list.", "No command here: `run` and knotwork run list."),
        ("Allow more with --timeout.", "Allow more with a longer timeout."),
        ("", ""),
    ],
)
def test_a_message_is_said_in_tools(text: str, told: str):
    assert spoken.for_agents(text) == told


def test_what_no_tool_does_is_for_people():
    assert spoken.for_agents("Start it: `knotwork up`.") == "Start it: `knotwork up` at a shell, by your user."


def test_an_error_and_the_outcome_of_work_name_tools():
    outcome = calling.refused(NotFound("There is no task x.", hint="See `knotwork task list`."))
    assert "knotwork" not in outcome.text
    assert "list_work (toolset work)" in outcome.text
    assert outcome.structured["error"]["hint"] == "See list_work (toolset work)."
    error = {"code": "work.not_begun", "message": "Nobody began it.", "hint": "See `knotwork task why`."}
    shown = work_values.result_of({"id": "k1234567", "state": "timed-out", "error": error})
    assert shown["error"]["hint"] == "See check_work."


def test_a_call_is_made_again_only_when_that_does_no_harm():
    every = {name: tool.hints for name, tool in catalog.TOOLS.items()}
    assert set(again.KEYED) | set(again.SAME) <= set(every)
    assert not again.KEYED & again.SAME
    once = {name for name, hints in every.items() if not again.may(name, hints.annotations())}
    assert once == {
        "claim_work", "retry_dead_letter_item", "commit_insight", "share_learning", "export_memories", "import_memories",
        "approve", "synthesize_results", "retry_part", "create_channel", "revert_memory",
    }  # fmt: skip
    for name in once:
        error = again.unknown(name, NotFound("gone", code="node.lost"))
        assert error.code == "node.lost"
        assert "may have been done or not" in error.message
        assert error.hint


@pytest.mark.parametrize("name", sorted(again.KEYED))
def test_what_is_known_by_a_key_hands_it_on(name: str):
    handler = Path(catalog.TOOLS[name].handler.__code__.co_filename)
    text = handler.read_text(encoding="utf-8")
    body = ast.get_source_segment(
        text, next(one for one in ast.parse(text).body if isinstance(one, ast.AsyncFunctionDef) and one.name == name)
    )
    assert body is not None
    assert any(way in body for way in ("session.key", "_key(", "message_values.read("))


def test_a_wait_that_is_made_again_waits_for_what_is_left():
    assert again.waits_s("wait_for_message", {}) == WAIT_DEFAULT_S
    assert again.waits_s("await_work", {"timeout_secs": 600}) == 600.0
    assert again.waits_s("start_workflow", {}) == 0.0
    assert again.waits_s("send_message", {"timeout_secs": 600}) == 0.0
    assert again.waits_s("await_work", {"timeout_secs": "soon"}) == WAIT_DEFAULT_S
    assert again.later("wait_for_message", {"limit": 3}, 0.01) == {"limit": 3}
    assert again.later("wait_for_message", {"timeout_secs": 60, "sender": "a"}, 20.5) == {
        "timeout_secs": 39.5, "sender": "a",
    }  # fmt: skip
    assert again.later("wait_for_message", {"timeout_secs": 5}, 20) == {"timeout_secs": 0.0}
    assert again.later("claim_work", {"timeout": 500}, 20) == {"timeout": 500}
