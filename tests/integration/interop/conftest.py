"""A real node with agents of several kinds, and clients that come in with the key of its local door."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

NODES = Path(__file__).parents[2] / "e2e" / "conftest.py"
AGENTS = """
[node]
name = "lab"

[mesh]
keepalive_s = 1.0

[executors.echo]
type = "rehearsal"
description = "Says what it hears"
capabilities = ["repeat", "parrot"]
tags = ["fast"]

[executors.talker]
type = "rehearsal"
steps = [{chunk = "Good "}, {chunk = "morning"}, {delay_s = 0.02}, {chunk = "!"}, {done = {text = "Good morning!", turns = 3}}]

[executors.lines]
type = "process"
command = ["printf", 'one\\ntwo\\n']
stream = true

[executors.rows]
type = "process"
command = ["printf", '{"n": 1}\\n{"n": 2}\\n']
output = "jsonl"
stream = true

[executors.more]
type = "rehearsal"
steps = [{chunk = "begin"}, {done = "beginning and end"}]

[executors.turns]
type = "rehearsal"
steps = [{chunk = "I look. "}, {chunk = "It is fine."}, {done = {text = "It is fine."}}]

[executors.steps]
type = "rehearsal"
steps = [{chunk = "one"}, {chunk = {two = 2}}, {done = ["one", {two = 2}]}]

[executors.other]
type = "rehearsal"
steps = [{chunk = "thinking"}, {done = "the answer"}]

[executors.traced]
type = "process"
command = ["printenv", "TRACEPARENT"]

[executors.number]
type = "rehearsal"
steps = [{done = {answer = 42, list = [1, 2]}}]

[executors.silent]
type = "rehearsal"
steps = [{delay_s = 0.05}, {fail = "could not", code = "agent.tired"}]

[executors.broken]
type = "rehearsal"
steps = [{error = "it broke\\nbadly"}]

[executors.slow]
type = "rehearsal"
concurrency = 1
queue_max = 0
steps = [{delay_s = 30.0}]

[executors.brief]
type = "rehearsal"
timeout_s = 0.2
steps = [{delay_s = 30.0}]

[executors.large]
type = "rehearsal"
steps = [{output_bytes = 300000}]

[executors.huge]
type = "rehearsal"
steps = [{output_bytes = 9000000}]

[executors.picky]
type = "rehearsal"
input_schema = {type = "object", required = ["prompt", "attachments"]}

[executors.never]
type = "rehearsal"
open_error = "no licence"
"""


def load(name: str, path: Path) -> Any:
    """Return a module of another folder of tests."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The node; tests leave it as they found it."""
    made = load("interop_nodes", NODES).Nodes(tmp_path_factory.mktemp("interop"))
    try:
        yield made.node(AGENTS).up()
    finally:
        _close(made)


def _close(made: Any) -> None:
    made.close()
    for node in made.made:
        node.process.stderr.close()


def seed(node: Any, name: str = "") -> str:
    """Return a seed of the node: of its local door, or of the file called `name`."""
    path = node.data / "keys" / f"{name}.nk" if name else Path(node.about["seed_file"])
    return str(path.read_text().strip())


async def _connect(node: Any, name: str = "") -> Client:
    return await nats.connect(
        node.about["url"], nkeys_seed_str=seed(node, name), allow_reconnect=False, max_reconnect_attempts=1
    )


@pytest.fixture
def connect() -> Any:
    """Return what connects to a node: `await connect(node)` with the key of its local door, or of the key file named."""
    return _connect


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Any]:
    made = load("interop_nodes", NODES).Nodes(tmp_path)
    try:
        yield made
    finally:
        _close(made)


@pytest.fixture
async def client(lab: Any) -> AsyncIterator[Client]:
    """A NATS client with the rights of the local door."""
    made = await _connect(lab)
    yield made
    await made.close()


@pytest.fixture
async def insider(lab: Any) -> AsyncIterator[Client]:
    """A NATS client with the rights of a node."""
    made = await _connect(lab, "node-default")
    yield made
    await made.close()
