"""The texts of a new spin-up: a target that starts a command, which outlives the node that asked for it."""

MODULE = '''\
"""$name: a Knotwork spin-up."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
from knotwork.sdk import (
    Condition,
    Context,
    Factory,
    Launched,
    LaunchRequest,
    PluginConfig,
    SpinUp,
    TimedOut,
    Unavailable,
    hookimpl,
)
from pydantic import Field

knotwork_api = $api
KILLED_S = 5.0


class ${Name}Config(PluginConfig):
    """What an operator may write in the target's table."""

    command: list[str] = Field(default=["sleep", "3600"], min_length=1, description="what is started for a launch")


class $Name:
    """One target: starts agents, says how they are, ends them."""

    def __init__(self, config: ${Name}Config, context: Context) -> None:
        self.config = config
        self.context = context

    async def probe(self) -> None:
        """Raise when a launch would fail."""
        if shutil.which(self.config.command[0]) is None:
            raise Unavailable(f"There is no program {self.config.command[0]!r}.", code="$name.no_program")

    async def launch(self, request: LaunchRequest) -> Launched:
        """Start one thing for each `request.id`. No await inside: a cancel finds it started and noted, or neither."""
        await self.probe()
        note = self.context.folder / f"{request.id}.json"
        if note.exists():
            return Launched(json.loads(note.read_text()))
        nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        environment = self.context.child_env(request.env)  # the only place where its secrets go
        pid = os.posix_spawnp(
            self.config.command[0], self.config.command, environment, setsid=True, file_actions=nothing
        )
        ref = {"launch": request.id, "pid": pid, "started": psutil.Process(pid).create_time()}
        note.write_text(json.dumps(ref))
        return Launched(ref)

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Say how it is, from the ref alone: the node may have been started again meanwhile."""
        return Condition("running") if self._find(ref) else Condition("gone")

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """End it and all it has started: politely, then by force."""
        process = self._find(ref)
        if process is not None:
            os.killpg(process.pid, signal.SIGTERM)
            await asyncio.to_thread(psutil.wait_procs, [process], grace_s)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            _, alive = await asyncio.to_thread(psutil.wait_procs, [process], KILLED_S)
            if alive:
                raise TimedOut(f"Process {process.pid} does not end.", code="$name.does_not_end")
        for note in self.context.folder.glob("*.json"):
            if json.loads(note.read_text()) == dict(ref):
                note.unlink(missing_ok=True)

    def _find(self, ref: Mapping[str, Any]) -> psutil.Process | None:
        """Return the process behind a ref; another one that got its number later is not it."""
        try:
            process = psutil.Process(int(ref["pid"]))
            alive = process.create_time() == ref["started"] and process.status() != psutil.STATUS_ZOMBIE
        except (KeyError, TypeError, ValueError, OverflowError, psutil.Error):
            return None
        return process if alive else None


@asynccontextmanager
async def open_plugin(config: ${Name}Config, context: Context) -> AsyncIterator[$Name]:
    """Entering is start, leaving is stop; what was launched goes on."""
    yield $Name(config, context)


FACTORY = Factory(name="$name", config=${Name}Config, open=open_plugin, summary="Starts a command.")


@hookimpl
def spinups() -> Iterator[Factory[SpinUp]]:
    """Offer it to the node."""
    yield FACTORY
'''

TEST = """\
import asyncio

import pytest
from knotwork.sdk import Unavailable
from knotwork.sdk.testing import SpinUpContract, host

import $module


class TestContract(SpinUpContract):
    factory = $module.FACTORY
    bad_configs = [{"command": []}]


def test_a_missing_program_is_named():
    async def steps():
        with pytest.raises(Unavailable, match="no-such-program"):
            async with host($module.FACTORY, {"command": ["no-such-program"]}):
                pass

    asyncio.run(steps())
"""
