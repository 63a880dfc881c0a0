"""Do the dialects survive whatever a command line prints, and build the command lines that the vendors document?"""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork_plugins.executors.agent_cli import claude_code, codex, copilot, gemini
from knotwork_plugins.executors.agent_cli.agent import Ask, Dialect
from knotwork_plugins.executors.agent_cli.heard import Heard, doing, event_of, numbers_in, plain
from knotwork_plugins.executors.agent_cli.run import Lines

DIALECTS: list[Dialect[Any]] = [claude_code.ClaudeCode(), codex.Codex(), gemini.Gemini(), copilot.Copilot()]
TYPES = [
    "system", "stream_event", "assistant", "user", "result", "rate_limit_event", "thread.started", "turn.completed",
    "turn.failed", "item.started", "item.completed", "error", "init", "message", "tool_use", "tool_result", "usage",
    "session.error", "session.start", "assistant.message", "assistant.message_delta", "tool.execution_start",
]  # fmt: skip
KEYS = [
    "type", "subtype", "message", "content", "text", "item", "items", "usage", "data", "error", "event", "delta",
    "result", "is_error", "session_id", "thread_id", "role", "status", "name", "input", "changes", "path", "exitCode",
    "rate_limit_info", "resetsAt", "num_turns", "total_cost_usd", "structured_output", "errors", "deltaContent",
]  # fmt: skip
WORDS = [
    "api_retry",
    "init",
    "text",
    "tool_use",
    "text_delta",
    "agent_message",
    "file_change",
    "todo_list",
    "assistant",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS + TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
EVENTS = st.builds(
    lambda kind, rest: {**rest, "type": kind},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6),
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@given(events=st.lists(EVENTS, max_size=5))
def test_no_event_breaks_a_dialect(dialect: Dialect[Any], events: list[dict[str, Any]]) -> None:
    heard = Heard(text_max=10)
    for event in events:
        dialect.read(event, heard)
    assert len(heard.text) <= 10
    json.dumps(heard.output(), allow_nan=False).encode("utf-8")
    for text in (*heard.notes, *heard.chunks):
        text.encode("utf-8")


@given(st.binary())
def test_no_line_breaks_the_reader(line: bytes) -> None:
    event = event_of(line)
    assert event is None or isinstance(event, dict)


@pytest.mark.parametrize(
    "line", [b"", b"[1]", b"null", b"{", b'{"a": NaN}', b'{"a":' * 5000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_lines_that_are_no_events(line: bytes) -> None:
    assert event_of(line) is None


def test_odd_numbers_and_texts_never_reach_the_output() -> None:
    event = event_of(b'{"usage": {"a": 1e999, "b": 2, "c": true, "d": "x"}, "t": "\\ud800"}')
    assert event is not None
    assert numbers_in(event, "usage") == {"b": 2}
    assert plain(event["usage"]) is None
    assert plain({"t": "\ud800"}) == {"t": "?"}
    assert doing("Bash", {"command": "a\n  b"}) == "Bash: a b"
    assert doing("", 7) == "tool"


@given(st.lists(st.binary(max_size=30), max_size=10), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_lines_do_not_depend_on_the_cuts(lines: list[bytes], cuts: list[int]) -> None:
    whole = b"\n".join(lines)
    cutter, got, at, turn = Lines(1000), [], 0, 0
    while at < len(whole):
        step = cuts[turn % len(cuts)]
        got += cutter.push(whole[at : at + step])
        at, turn = at + step, turn + 1
    last = cutter.rest()
    wanted = [line.strip() for line in whole.split(b"\n") if line.strip()]
    assert got + ([last] if last else []) == wanted


def test_long_lines_are_skipped_and_counted_with_bounded_memory() -> None:
    cutter = Lines(10)
    assert cutter.push(b"short\n" + b"x" * 8) == [b"short"]
    assert cutter.push(b"x" * 100) == []
    assert cutter.push(b"x\nnext\n") == [b"next"]
    assert cutter.skipped == 1


def test_the_answer_is_bounded_and_says_so() -> None:
    heard = Heard(text_max=5)
    heard.say("123")
    heard.say("4567")
    assert heard.output() == {"text": "12345", "truncated": True}
    heard.settle("abcdefg")
    assert heard.text == "abcde"


def lines_of(dialect: Dialect[Any], config: Any, table: str, session: str = "") -> tuple[str, ...]:
    ask = Ask(prompt="-x; rm", session=session, folder=Path("agent"))
    return dialect.command_line(config.model_validate(tomllib.loads(table)), ask).arguments


def test_claude_code_flags() -> None:
    table = """
    model = "opus"
    permission_mode = "acceptEdits"
    allowed_tools = ["Read", "Bash(git *)"]
    disallowed_tools = ["Web"]
    max_turns = 3
    max_cost_usd = 0.5
    system_prompt = "-be kind"
    mcp_config = ["a.json"]
    strict_mcp_config = true
    add_dirs = ["../x"]
    extra_args = ["--settings=s.json"]
    """
    assert lines_of(claude_code.ClaudeCode(), claude_code.ClaudeCodeConfig, table, "s-1") == (
        "-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages", "--model=opus",
        "--permission-mode=acceptEdits", "--append-system-prompt=-be kind", "--allowedTools=Read,Bash(git *)",
        "--disallowedTools=Web", "--max-turns=3", "--max-budget-usd=0.5", "--resume=s-1", "--mcp-config=a.json",
        "--strict-mcp-config", "--add-dir=../x", "--settings=s.json",
    )  # fmt: skip


def test_codex_flags() -> None:
    table = """
    model = "gpt-x"
    sandbox = "workspace-write"
    ephemeral = true
    settings = { model_reasoning_effort = "high" }
    """
    assert lines_of(codex.Codex(), codex.CodexConfig, table, "s-1") == (
        "exec", "--json", "--color=never", "--model=gpt-x", "--sandbox=workspace-write", "--skip-git-repo-check",
        "--ephemeral", "-c", "model_reasoning_effort=high", "resume", "s-1", "-",
    )  # fmt: skip
    assert lines_of(codex.Codex(), codex.CodexConfig, "skip_git_repo_check = false")[-2:] == ("--color=never", "-")


def test_gemini_flags() -> None:
    table = 'model = "pro"\napproval_mode = "auto_edit"\nsandbox = true\ninclude_directories = ["a"]'
    wanted = ("--output-format=stream-json", "--model=pro", "--approval-mode=auto_edit")
    assert lines_of(gemini.Gemini(), gemini.GeminiConfig, table) == (*wanted, "--sandbox", "--include-directories=a")
    assert lines_of(gemini.Gemini(), gemini.GeminiConfig, 'prompt_as = "argument"')[-1] == "--prompt=-x; rm"


def test_copilot_flags() -> None:
    table = 'model = "m"\nallow_all_tools = true\nallow_tools = ["write"]\ndeny_tools = ["shell(rm)"]\nagent = "a"'
    assert lines_of(copilot.Copilot(), copilot.CopilotConfig, table, "s") == (
        "--output-format=json", "--stream=on", "--no-color", "--no-ask-user", "--no-auto-update", "--model=m",
        "--agent=a", "--resume=s", "--allow-all-tools", "--allow-tool=write", "--deny-tool=shell(rm)",
        "--prompt=-x; rm",
    )  # fmt: skip
