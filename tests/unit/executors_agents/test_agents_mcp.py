"""Is a tool of a real MCP server (the official SDK's, in a process of its own) a good agent?"""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp_types import CallToolResult
from tests.free_port import free_port

from knotwork.sdk import Done, Failed, Unavailable
from knotwork.sdk.testing import RecordingReporter, attempt, host
from knotwork_plugins.executors.mcp_tool import link as links
from knotwork_plugins.executors.mcp_tool.plugin import FACTORY, McpTool, outcome_of

SERVER = Path(__file__).parents[2] / "contract" / "standins" / "mcp_server.py"
COMMAND = [sys.executable, str(SERVER)]
ODD = [sys.executable, str(SERVER.with_name("mcp_odd.py"))]


@asynccontextmanager
async def stdio(tool: str, **more: Any) -> AsyncIterator[McpTool]:
    async with (
        asyncio.timeout(180),
        host(FACTORY, {"command": COMMAND, "tool": tool, "connect_timeout_s": 60, **more}) as agent,
    ):
        yield agent


class HttpServer:
    """A Streamable HTTP server process on one port, which can be killed and started again."""

    def __init__(self, *command: str) -> None:
        self.port = free_port()
        self.command = [*(command or (*COMMAND, "http")), str(self.port)]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        async with asyncio.timeout(90):
            while not await asyncio.to_thread(self._answers):
                await asyncio.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30):
                return True
        except OSError:
            return False

    async def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)


@pytest.fixture(scope="module")
def shared() -> Iterator[HttpServer]:
    """A server for what does not depend on whose process it is: starting one costs more than all that is asked of it."""
    server = HttpServer()
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@asynccontextmanager
async def at(server: HttpServer, tool: str, **more: Any) -> AsyncIterator[McpTool]:
    config = {"url": server.url, "tool": tool, "connect_timeout_s": 60, **more}
    async with asyncio.timeout(180), host(FACTORY, config) as agent:
        yield agent


async def test_structured_content_is_the_output() -> None:
    async with stdio("add") as agent:
        assert await agent.execute(attempt({"a": 2, "b": 3})) == Done({"result": 5})
        assert await agent.execute(attempt(7)) == Done({"result": 8}), "the only required argument takes a bare input"
        wrong = await agent.execute(attempt({"a": "no number"}))
        assert isinstance(wrong, Failed)
        assert not wrong.retriable


async def test_text_progress_errors_and_fixed_arguments(shared: HttpServer) -> None:
    async with at(shared, "shout") as agent:
        assert await agent.execute(attempt("hi")) == Done("HI")
    report = RecordingReporter()
    async with stdio("work", arguments={"steps": 4}) as agent:
        assert await agent.execute(attempt({"steps": 1}, report=report)) == Done({"steps": 4})
    assert report.said == [(25.0, "step 1"), (50.0, "step 2"), (75.0, "step 3"), (100.0, "step 4")]
    async with at(shared, "fail") as agent:
        failed = await agent.execute(attempt("the disk is full"))
    assert isinstance(failed, Failed)
    assert "the disk is full" in failed.message
    assert (failed.code, failed.retriable) == ("agent.failed", False)


async def test_environment_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "s3cret")
    monkeypatch.setenv("NOT_FOR_CHILDREN", "x")
    config = {"command": COMMAND, "tool": "whoami", "cwd": str(tmp_path), "secret_env": {"TOKEN": {"env": "THE_KEY"}}}
    path = os.environ["PATH"]
    python_path = os.environ.get("PYTHONPATH", "")

    def child_env(extra: dict[str, str]) -> dict[str, str]:
        return {"PATH": path, "PYTHONPATH": python_path, "MARK": "1", **extra}

    async with host(FACTORY, config, start_timeout_s=20, child_env=child_env) as agent:
        outcome = await agent.execute(attempt())
    assert isinstance(outcome, Done)
    env = outcome.output["env"]
    assert (env["TOKEN"], env["MARK"], outcome.output["cwd"]) == ("s3cret", "1", str(tmp_path))
    assert "NOT_FOR_CHILDREN" not in env


async def test_relative_paths_are_meant_from_the_configuration_file() -> None:
    program, script = Path(sys.executable), SERVER
    config = {"command": [f"./{program.name}", script.name], "tool": "whoami", "connect_timeout_s": 60}
    with tempfile.TemporaryDirectory() as made:
        base = Path(made).resolve()
        (base / script.name).write_bytes(script.read_bytes())
        (base / program.name).write_text(f'#!/bin/sh\nexec "{program}" "$@"\n', encoding="utf-8")
        (base / program.name).chmod(0o700)
        async with asyncio.timeout(180), host(FACTORY, config, base=base) as agent:
            outcome = await agent.execute(attempt())
            assert isinstance(outcome, Done)
            assert outcome.output["cwd"] == str(base)
        (base / program.name).unlink()
        with pytest.raises(Unavailable, match="is not there"):
            async with host(FACTORY, config, base=base):
                pass


async def test_a_dead_server_is_started_again() -> None:
    async with stdio("whoami") as agent:
        first = await agent.execute(attempt())
        assert isinstance(first, Done)
        os.kill(first.output["pid"], signal.SIGKILL)
        # It dies between calls: the next call waits for the new one instead of failing, at most once it is too quick.
        outcomes = [await agent.execute(attempt()) for _ in range(2)]
        assert isinstance(outcomes[1], Done), outcomes
        assert outcomes[1].output["pid"] != first.output["pid"]


async def test_a_server_that_dies_during_a_call_fails_it_retriably() -> None:
    async with stdio("die") as agent:
        for _ in range(2):
            outcome = await agent.execute(attempt())
            assert isinstance(outcome, Failed)
            assert (outcome.code, outcome.retriable) == ("agent.crashed", True)


async def test_cancelling_reaches_the_tool(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with stdio("hang") as agent:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(agent.execute(attempt({"path": str(told)})))
            async with asyncio.timeout(60):
                while not told.exists():
                    await asyncio.sleep(0.01)
            task.cancel()
            _, pending = await asyncio.wait({task}, timeout=30)
        assert not pending
        assert task.cancelled()
        async with asyncio.timeout(30):
            while told.read_text() != "cancelled":
                await asyncio.sleep(0.01)
        await agent.probe()


async def test_a_deadline_ends_the_call(shared: HttpServer) -> None:
    async with at(shared, "hang") as agent:
        outcome = await agent.execute(attempt({}, deadline_s=0.2))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == ("agent.silent", True)


async def test_servers_that_cannot_be_used(shared: HttpServer) -> None:
    with pytest.raises(Unavailable) as missing:
        async with host(FACTORY, {"command": ["no-such-server"], "tool": "x"}):
            pass
    assert missing.value.code == "agent.command_missing"
    with pytest.raises(Unavailable, match="Its tools: add, die, fail, hang") as tool:
        async with at(shared, "no_such_tool"):
            pass
    assert tool.value.code == "agent.tool_missing"
    with pytest.raises(Unavailable, match="this server is broken"):
        async with host(FACTORY, {"command": [*COMMAND, "broken"], "tool": "x", "connect_timeout_s": 60}):
            pass
    with pytest.raises(Unavailable, match="did not answer within"):
        async with host(FACTORY, {"command": ["sleep", "30"], "tool": "x", "connect_timeout_s": 0.3}):
            pass


@pytest.mark.parametrize("oddity", ["silent", "leaves", "modern"])
async def test_a_server_of_any_age_is_greeted_as_it_knows(oddity: str) -> None:
    async with stdio("say", command=[*ODD, oddity], connect_timeout_s=9) as agent:
        first = await agent.execute(attempt())
        assert isinstance(first, Done)
        os.kill(int(first.output), signal.SIGKILL)
        second = await agent.execute(attempt())
        while isinstance(second, Failed):
            assert second.retriable, second
            second = await agent.execute(attempt())
        assert second != first


@pytest.mark.parametrize("oddity", ["silent", "leaves", "modern", "none"])
async def test_a_server_at_an_address_is_greeted_as_it_knows(oddity: str) -> None:
    server = HttpServer(*ODD, oddity)
    try:
        await server.start()
        async with at(server, "say", connect_timeout_s=9) as agent:
            assert isinstance(await agent.execute(attempt()), Done)
    finally:
        await server.stop()


async def test_a_server_at_an_address_may_take_its_time_to_list_its_tools(
    shared: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = links.Link._find_tool

    async def slowly(self: links.Link, client: Any) -> Any:
        await asyncio.sleep(2 * links._ASK_S)  # longer than it may be silent when it is asked first
        return await find(self, client)

    monkeypatch.setattr(links, "_ASK_S", 0.2)
    monkeypatch.setattr(links.Link, "_find_tool", slowly)
    async with at(shared, "shout") as agent:
        assert await agent.execute(attempt("hi")) == Done("HI")


async def test_an_error_of_the_server_is_no_lost_connection() -> None:
    async with stdio("say", command=[*ODD, "none"]) as agent:
        before = await agent.execute(attempt())
        failed = await agent.execute(attempt({"error": {"code": -32000, "message": "no such repository"}}))
        assert failed == Failed("no such repository", code="agent.failed", detail={"mcp_code": -32000})
        assert await agent.execute(attempt()) == before, "it is the same process"


async def test_what_is_no_result_of_a_tool_is_told_in_a_line() -> None:
    async with stdio("say", command=[*ODD, "none"]) as agent:
        told = [await agent.execute(attempt({"result": one})) for one in ({}, {"content": [{"type": "hologram"}]})]
    told.append(outcome_of(CallToolResult(content=[], structured_content={"v": math.nan})))
    for failed in told:
        assert isinstance(failed, Failed)
        assert (failed.code, failed.retriable) == ("agent.bad_answer", False)
        assert "\n" not in failed.message


async def test_several_arguments_need_an_object(shared: HttpServer) -> None:
    async with at(shared, "work") as agent:
        assert await agent.execute(attempt(0)) == Done({"steps": 0})
    async with at(shared, "add", arguments={"a": 1}) as agent:
        assert await agent.execute(attempt(5)) == Done({"result": 6}), "the fixed ones do not count"
    async with at(shared, "add", argument="b") as agent:
        refused = await agent.execute(attempt(5))
        assert isinstance(refused, Failed)


@pytest.fixture
async def http_server() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    await server.start()
    yield server
    await server.stop()


async def test_over_http_and_across_a_restart(http_server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "s3cret")
    report = RecordingReporter()
    config = {
        "url": http_server.url,
        "tool": "work",
        "connect_timeout_s": 60,
        "secret_headers": {"Authorization": {"env": "THE_KEY"}},
    }
    async with asyncio.timeout(180), host(FACTORY, config) as agent:
        assert await agent.execute(attempt({"steps": 2}, report=report)) == Done({"steps": 2})
        assert report.said == [(50.0, "step 1"), (100.0, "step 2")]
        await http_server.stop()
        away = await agent.execute(attempt({"steps": 1}))
        assert isinstance(away, Failed)
        assert away.retriable, away
        await http_server.start()
        outcomes = [await agent.execute(attempt({"steps": 1})) for _ in range(2)]
        assert outcomes[1] == Done({"steps": 1}), outcomes


async def test_nobody_at_the_url() -> None:
    server = HttpServer()
    with pytest.raises(Unavailable) as away:
        async with host(FACTORY, {"url": server.url, "tool": "x"}):
            pass
    assert server.url in away.value.message
