"""The texts of a new plugin. `$name` is its type, `$module` its module, `$Name` the beginning of its classes."""

from knotwork.sockets import scaffold_memory, scaffold_spinup, scaffold_trigger

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "0.1.0"
description = "A Knotwork $kind."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["knotwork>=$release"]

[project.entry-points.knotwork]
$name = "$module"

[dependency-groups]
dev = ["pytest>=8"]

[tool.hatch.build.targets.wheel]
only-include = ["$module.py"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
"""

MANIFEST = """\
# Read by the node without importing any code, when this folder is in `plugins.folders`.
name = "$name"
version = "0.1.0"
api = $api
kind = "$kind"
entry = "$module.py"
summary = "Your own $kind."$always
"""

ALWAYS = """
# hosted = true                 # always run it in a process of its own
# dependencies = ["httpx"]      # put them beside it: pip install --target vendor httpx"""
HOSTED = "\n# hosted = true     # in a process of its own"
"""Lines for the kinds that can run hosted."""
ASKED = {
    "router": '[routing]\nrouters = ["my-router", "policy", "capability"]     # in this order\n\n',
    "memory": '[memory]\nteam = "my-memory"     # or private, personal, public\n\n',
}
"""What a table alone does not bring about: that the plugin is asked."""

README = """\
# $name

A Knotwork $kind.

Test it:

    pip install -e . pytest && pytest

Use it, in one of three ways:

1. `pip install .` beside Knotwork; then `type = "$name"` works.
2. Put the folder that holds this one into `plugins.folders`.
3. Name the file: `type = "./$module.py"`.

```toml
$asked[$table.my-$kind]
type = "$name"$hosted
```
"""

_HEAD = '''\
"""$name: a Knotwork $kind."""

from collections.abc import AsyncIterator, Iterator
'''

_EXECUTOR = (
    _HEAD
    + '''\
from contextlib import asynccontextmanager

from knotwork.sdk import Attempt, Context, Done, Executor, Factory, Failed, Outcome, PluginConfig, hookimpl
from pydantic import Field

knotwork_api = $api


class ${Name}Config(PluginConfig):
    """What an operator may write in the plugin's table."""

    greeting: str = Field(default="hello", max_length=100, description="what is said before the input")


class $Name:
    """Carries out attempts; as many at once as the agent's `concurrency` allows."""

    def __init__(self, config: ${Name}Config, context: Context) -> None:
        self.config = config
        self.context = context

    async def execute(self, attempt: Attempt) -> Outcome:
        """Do the work. Let CancelledError through: the caller gave up, or its time is over."""
        if not isinstance(attempt.input, str):
            return Failed("the input must be a text", code="$name.input")
        attempt.report.progress(50, "thinking")
        return Done({"text": f"{self.config.greeting} {attempt.input}"})


@asynccontextmanager
async def open_plugin(config: ${Name}Config, context: Context) -> AsyncIterator[$Name]:
    """Entering is start, leaving is stop; open what it needs before the yield and close it after."""
    yield $Name(config, context)


FACTORY = Factory(name="$name", config=${Name}Config, open=open_plugin, summary="Greets its input.")


@hookimpl
def executors() -> Iterator[Factory[Executor]]:
    """Offer it to the node."""
    yield FACTORY
'''
)

_ROUTER = (
    _HEAD.replace("import AsyncIterator, Iterator", "import AsyncIterator, Iterator, Sequence")
    + '''\
from contextlib import asynccontextmanager

from knotwork.sdk import Ask, Candidate, Context, Factory, PluginConfig, Route, Router, hookimpl
from pydantic import Field

knotwork_api = $api


class ${Name}Config(PluginConfig):
    """What an operator may write in the plugin's table."""

    most: int = Field(default=10, ge=1, le=1000, description="how many candidates to try")


class $Name:
    """Orders candidates; None leaves it to the next router."""

    def __init__(self, config: ${Name}Config) -> None:
        self.config = config

    async def route(self, ask: Ask, candidates: Sequence[Candidate]) -> Route | None:
        """Return the fitting candidates, least loaded first, and say why the others are out."""
        fitting: list[Candidate] = []
        refused: dict[str, str] = {}
        for candidate in candidates:
            if candidate.state != "online":
                refused[candidate.name] = f"is {candidate.state}"
            elif ask.capability and ask.capability not in candidate.capabilities:
                refused[candidate.name] = f"lacks {ask.capability}"
            else:
                fitting.append(candidate)
        fitting.sort(key=lambda candidate: candidate.load)
        return Route(fitting[: self.config.most], refused, "least loaded first")


@asynccontextmanager
async def open_plugin(config: ${Name}Config, context: Context) -> AsyncIterator[$Name]:
    """Entering is start, leaving is stop; open what it needs before the yield and close it after."""
    yield $Name(config)


FACTORY = Factory(name="$name", config=${Name}Config, open=open_plugin, summary="Picks the least loaded.")


@hookimpl
def routers() -> Iterator[Factory[Router]]:
    """Offer it to the node."""
    yield FACTORY
'''
)

_TELEMETRY = (
    _HEAD.replace("import AsyncIterator, Iterator", "import AsyncIterator, Iterator, Sequence")
    + '''\
from contextlib import asynccontextmanager

from knotwork.sdk import Context, Event, Factory, PluginConfig, Record, Telemetry, hookimpl
from pydantic import Field

knotwork_api = $api


class ${Name}Config(PluginConfig):
    """What an operator may write in the plugin's table."""

    prefix: str = Field(default="", max_length=100, description="what each line begins with")


class $Name:
    """Writes events to the log."""

    def __init__(self, config: ${Name}Config, context: Context) -> None:
        self.config = config
        self.context = context

    async def emit(self, records: Sequence[Record]) -> None:
        """Take a batch; raising marks it as lost, nothing else."""
        for record in records:
            if isinstance(record, Event):
                self.context.log.info("%s%s", self.config.prefix, record.name)


@asynccontextmanager
async def open_plugin(config: ${Name}Config, context: Context) -> AsyncIterator[$Name]:
    """Entering is start, leaving is stop; open what it needs before the yield and close it after."""
    yield $Name(config, context)


FACTORY = Factory(name="$name", config=${Name}Config, open=open_plugin, summary="Writes events to the log.")


@hookimpl
def telemetry() -> Iterator[Factory[Telemetry]]:
    """Offer it to the node."""
    yield FACTORY
'''
)

MODULES = {
    "executor": _EXECUTOR, "router": _ROUTER, "memory": scaffold_memory.MODULE, "spinup": scaffold_spinup.MODULE,
    "telemetry": _TELEMETRY, "trigger": scaffold_trigger.MODULE,
}  # fmt: skip

TESTS = {
    "executor": """\
import asyncio

from knotwork.sdk import Done, Failed
from knotwork.sdk.testing import ExecutorContract, attempt, host

import $module


class TestContract(ExecutorContract):
    factory = $module.FACTORY
    config = {"greeting": "hi"}
    bad_configs = [{"greeting": 1}]
    input = "there"


def test_it_greets():
    async def steps():
        async with host($module.FACTORY, {"greeting": "hi"}) as plugin:
            assert await plugin.execute(attempt("there")) == Done({"text": "hi there"})
            assert isinstance(await plugin.execute(attempt(1)), Failed)

    asyncio.run(steps())
""",
    "router": """\
import asyncio

from knotwork.sdk import Ask, Candidate
from knotwork.sdk.testing import RouterContract, host

import $module


class TestContract(RouterContract):
    factory = $module.FACTORY
    bad_configs = [{"most": 0}]


def test_the_least_loaded_comes_first():
    async def steps():
        busy, idle = [Candidate("n", a, frozenset({"x"}), load=load) for a, load in (("busy", 0.9), ("idle", 0.1))]
        async with host($module.FACTORY) as plugin:
            route = await plugin.route(Ask(capability="x"), [busy, idle])
        assert list(route.candidates) == [idle, busy]

    asyncio.run(steps())
""",
    "telemetry": """\
import asyncio
import logging

from knotwork.sdk import Event
from knotwork.sdk.testing import TelemetryContract, host

import $module


class TestContract(TelemetryContract):
    factory = $module.FACTORY
    bad_configs = [{"prefix": 1}]


def test_it_writes_events(caplog):
    async def steps():
        async with host($module.FACTORY, {"prefix": "> "}) as plugin:
            await plugin.emit([Event("agent.done", 1)])

    with caplog.at_level(logging.INFO):
        asyncio.run(steps())
    assert "> agent.done" in caplog.text
""",
    "memory": scaffold_memory.TEST,
    "spinup": scaffold_spinup.TEST,
    "trigger": scaffold_trigger.TEST,
}
