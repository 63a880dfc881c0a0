"""Every parameter of every tool is given what it does not expect: always an answer that helps, never a bug of ours."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.agents_mcp import parameters
from tests.e2e.conftest import WAIT_S, Node, Nodes
from tests.e2e.hostile import NASTY_TEXTS, WAITS, arguments

from knotwork.mcp import rows

CALLS = 30
OURS = ("internal.", "ops.no_answer", "ops.bad_answer", "wire.malformed", "node.lost")


class Raw:
    """A bridge, spoken to in lines."""

    def __init__(self, node: Node) -> None:
        given = parameters(node, "--toolset", "all")
        self.process = subprocess.Popen(
            [given.command, *given.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=node.folder, env=node.env,
        )  # fmt: skip
        self.number = 0

    def ask(self, method: str, params: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.number += 1
        line = json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        late = threading.Timer(WAIT_S, self.process.kill)
        late.start()
        try:
            while True:
                answer: dict[str, Any] = json.loads(self.process.stdout.readline())
                if answer.get("id") == self.number:
                    return answer
        finally:
            late.cancel()

    def call(self, name: str, given: Any) -> dict[str, Any]:
        return self.ask("tools/call", {"name": name, "arguments": given})

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(WAIT_S) == 0


@pytest.fixture(scope="module")
def node(shared_nodes: Nodes) -> Iterator[Node]:
    yield shared_nodes.node().up()


@pytest.fixture
def bridge(node: Node) -> Iterator[Raw]:
    made = Raw(node)
    yield made
    made.close()


def helps(name: str, given: Any, answer: dict[str, Any]) -> None:
    """Check that an answer is a result, or an error that tells what to do."""
    assert "result" in answer, (name, given, answer)
    result = answer["result"]
    text = result["content"][0]["text"]
    assert len(json.dumps(result["structuredContent"], ensure_ascii=False)) <= 40_000, (name, given)
    assert not {"\x1b", "\x00", "\u202e"} & set(text), (name, given)
    if result["isError"]:
        error = result["structuredContent"]["error"]
        assert not error["code"].startswith(OURS), (name, given, error)
        assert text.startswith("Error: ")
        assert "Traceback" not in text
        assert "pydantic" not in text


@pytest.mark.parametrize("name", list(rows.ROWS))
def test_whatever_a_tool_is_given_it_answers(bridge: Raw, name: str):
    chance = random.Random(name)  # the same tries each time
    schema = json.loads(rows.ROWS[name])["inputSchema"]
    for _ in range(CALLS):
        given = arguments(schema, chance)
        helps(name, given, bridge.call(name, given))
    assert bridge.ask("ping", {})["result"] == {}


def test_every_text_argument_takes_every_nasty_text(bridge: Raw):
    """One call for each nasty text puts it into all text arguments of a tool at once."""
    for name, row in rows.ROWS.items():
        schema = json.loads(row)["inputSchema"]
        texts = [
            key for key, about in schema["properties"].items() if about.get("type") == "string" and "enum" not in about
        ]
        waits = {key: short for key, short in WAITS.items() if key in schema["properties"]}
        for text in NASTY_TEXTS if texts else ():
            helps(name, text[:50], bridge.call(name, dict.fromkeys(texts, text) | waits))
