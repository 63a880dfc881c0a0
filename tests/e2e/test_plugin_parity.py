"""The same class fails in the same words, whether it runs in the node or in a process of its own."""

from __future__ import annotations

import secrets

import pytest
from tests.e2e.conftest import until

PLUGIN = """
import asyncio, sys
from contextlib import asynccontextmanager
from knotwork.sdk import Continue, Done, Factory, Failed, Invalid, PluginConfig, Unavailable, hookimpl
from knotwork.sdk.errors import NotFound

AT_IMPORT


class Settings(PluginConfig):
    start: str = ""


class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")


class Odd:
    async def execute(self, attempt):
        how, _, what = attempt.input.partition(" ")
        found = eval(what)
        if how == "raise":
            raise found
        return found


@asynccontextmanager
async def open_it(config, context):
    if config.start:
        raise eval(config.start)
    yield Odd()


@hookimpl
def executors():
    yield Factory("odd", Settings, open_it, "Does what it is told.")
"""
ANSWERS = [
    "return Done({'a': 1})",
    "return Continue(2)",
    "return Failed('no')",
    "return Failed('no', 'my.code', True, 2.0, {'x': [1]})",
    "return Failed('no', 'my.code', False, None, {'x': object()})",
    "return Failed(42, code=None)",
    "return Failed('no', detail=None)",
    "return Failed('no', retry_after_s='soon')",
    "return Failed('half \\udcff')",
    "return None",
    "return 42",
    "return Done(object())",
    "return Done('\\ud800')",
    "return Done({'a': {1, object()}})",
    "raise ValueError('boom')",
    "raise Mute()",
    "raise SystemExit(3)",
    "raise KeyboardInterrupt()",
    "raise asyncio.CancelledError()",
    "raise StopIteration()",
    "raise MemoryError()",
    "raise RecursionError()",
    "raise ExceptionGroup('two', [ValueError(1), KeyError(2)])",
    "raise Invalid('mend it', code='my.invalid', hint='So.', detail={'a': 1})",
    "raise Unavailable('later', code='my.later', retry_after_s=3.0)",
    "raise NotFound('gone')",
    "raise Invalid(7, code=8, detail=[1])",
]
STARTS = [
    "ValueError('no luck')",
    "SystemExit(3)",
    "ExceptionGroup('two', [ValueError(1), KeyError(2)])",
    "Invalid('mend it', code='my.invalid', hint='So.')",
]
IMPORTS = ["raise ValueError('no luck')", "import kt_nowhere", "sys.exit(3)", "raise Invalid('x', code='my.code')", "("]
TWO = """
[executors.here]
type = "./odd.py"
start = {start}

[executors.apart]
type = "./odd.py"
hosted = true
start = {start}
"""


@pytest.fixture(scope="module")
def running(shared_nodes):
    node = shared_nodes.node(TWO.format(start='""'))
    node.write(PLUGIN.replace("AT_IMPORT", ""), "odd.py")
    node.up()
    until(lambda: node.agents() == ["apart", "here"])
    return node


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer(running, what):
    said = []
    for agent in ("here", "apart"):
        answer = running.call("agents.invoke", target=agent, input=what)
        body = answer.json
        data = {"retriable": False, **body.get("data", {})}
        said.append((answer.status, *(body.get(key) for key in ("kind", "code", "output", "outcome", "hint")), data))
    assert said[0] == said[1]
    assert running.slot("apart")["starts"] == 1


@pytest.fixture(scope="module")
def refusing(shared_nodes):
    """A node without agents that is asked again and again for one that it must refuse."""
    return shared_nodes.node(name="refusing").up()


def refused(node, plugin: str, tables: str) -> list[tuple[object, ...]]:
    """Return what is said of the plugin in the node, and of the same in a process of its own."""
    said = []
    for agent, table in zip(("here", "apart"), tables.split("\n\n"), strict=True):
        node.write(f"# {agent} and {secrets.token_hex(4)}\n" + plugin, "odd.py")  # nobody has seen it before
        node.write(table)
        answer = node.call("node.reload")
        (problem,) = answer.json["problems"]
        message = problem["message"].replace(f"executors.{agent}", "NAME")
        said.append((answer.status, answer.json["code"], problem["code"], message))
    return said


@pytest.mark.parametrize("start", STARTS)
def test_a_start(refusing, start):
    here, apart = refused(refusing, PLUGIN.replace("AT_IMPORT", ""), TWO.format(start=f'"{start}"'))
    assert here == apart


@pytest.mark.parametrize("at_import", IMPORTS)
def test_an_import(refusing, at_import):
    here, apart = refused(refusing, PLUGIN.replace("AT_IMPORT", at_import), TWO.format(start='""'))
    assert here[:1] + here[2:] == apart[:1] + apart[2:]
