"""Do the agent executors keep the contract of every executor?"""

# ruff: noqa: RUF012 - a suite reads its class attributes and changes none

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.free_port import free_port

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


MCP_SERVER = [sys.executable, str(STANDINS / "mcp_server.py")]
STARTS_ITS_OWN = {
    "test_opens_and_closes_again_and_again", "test_two_run_side_by_side", "test_can_be_cancelled_while_it_starts",
    "test_answers_with_an_outcome", "test_stops_when_cancelled",
}  # fmt: skip
"""What depends on whose process the server is. The rest asks one that is there: each start costs more than all else."""


@pytest.fixture(scope="module")
def mcp_url() -> Iterator[str]:
    port = free_port()
    with subprocess.Popen(
        [*MCP_SERVER, "http", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        end_s = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30):
                break
            assert server.poll() is None, "it ended"
            assert time.monotonic() < end_s, "nobody answers"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
        server.kill()


class TestMcp(ExecutorContract):
    factory = mcp_tool.FACTORY
    config = {"command": MCP_SERVER, "tool": "shout", "connect_timeout_s": 60}
    long_config = {**config, "tool": "hang"}
    bad_configs = ({"tool": "x"}, {"tool": "x", "command": ["a"], "url": "http://b"}, {"tool": "x", "url": "ftp://b"})
    input = {"text": "hello"}
    long_input = {}
    timeout_s = 200.0

    @pytest.fixture(autouse=True)
    def _at_a_server(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__ not in STARTS_ITS_OWN:
            at = {"url": request.getfixturevalue("mcp_url"), "connect_timeout_s": 60}
            self.config, self.long_config = {**at, "tool": "shout"}, {**at, "tool": "hang"}

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
