"""Do the agent executors keep the contract of every executor?"""

# ruff: noqa: RUF012 - a suite reads its class attributes and changes none

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knotwork.sdk import Done
from knotwork.sdk.testing import ExecutorContract
from knotwork_plugins.executors.agent_cli import claude_code, codex, copilot, gemini
from knotwork_plugins.executors.mcp_tool import plugin as mcp_tool
from knotwork_plugins.executors.openai_chat import plugin as openai_chat

STANDINS = Path(__file__).parent / "standins"


def command(name: str) -> list[str]:
    return [sys.executable, "-S", str(STANDINS / f"{name}.py")]


class CommandLine:
    input = "hello"
    long_input = "HANG"
    bad_configs = ({"command": []}, {"idle_timeout_s": 0}, {"grace_s": -1}, {"api_key": "in the clear"})

    def check(self, outcome: Any) -> None:
        assert isinstance(outcome, Done), outcome
        assert outcome.output["text"] == "You said: hello"


class TestClaudeCode(CommandLine, ExecutorContract):
    factory = claude_code.FACTORY
    config = {"command": command("claude")}


class TestCodex(CommandLine, ExecutorContract):
    factory = codex.FACTORY
    config = {"command": command("codex")}


class TestGemini(CommandLine, ExecutorContract):
    factory = gemini.FACTORY
    config = {"command": command("gemini")}


class TestCopilot(CommandLine, ExecutorContract):
    factory = copilot.FACTORY
    config = {"command": command("copilot")}


class TestMcp(ExecutorContract):
    factory = mcp_tool.FACTORY
    config = {"command": [sys.executable, str(STANDINS / "mcp_server.py")], "tool": "shout", "connect_timeout_s": 60}
    long_config = {**config, "tool": "hang"}
    bad_configs = ({"tool": "x"}, {"tool": "x", "command": ["a"], "url": "http://b"}, {"tool": "x", "url": "ftp://b"})
    input = {"text": "hello"}
    long_input = {}
    timeout_s = 200.0

    def check(self, outcome: Any) -> None:
        assert outcome == Done("HELLO")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    argv = [sys.executable, "-S", str(STANDINS / "chat_server.py")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.terminate()


class TestOpenAI(ExecutorContract):
    factory = openai_chat.FACTORY
    config = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    bad_configs = ({}, {"model": ""}, {"model": "m", "base_url": "file:///x"}, {"model": "m", "params": {"stream": 1}})
    input = "hello"
    long_input = "HANG"

    @pytest.fixture(autouse=True)
    def _at_the_endpoint(self, endpoint: str) -> None:
        self.config = {"base_url": endpoint, "model": "m"}

    def check(self, outcome: Any) -> None:
        assert isinstance(outcome, Done), outcome
        assert outcome.output["text"] == "You said: hello"
