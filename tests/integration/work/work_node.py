"""A worker node in a process of its own: a scripted agent behind the real work room. `python work_node.py '{…}'`.

What the agent does is written in each task's input: `sleep` (seconds), `touch` (append a line to a file), `exit` (end
the process at once), `until` (wait for a file to be there), `fail` (fields of `sdk.Failed`), `fail_until` (attempt that
succeeds), `loops` (continue so many times), `stream` (live output), `beats` (so many signs of life, ten a second), `log` (append `as` with what it does to a
file), `ending` (seconds that it needs to end when it is cancelled), `deaf` (it completes then all the same).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from knotwork.bus import child, clock
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.mesh.admission import Admission
from knotwork.mesh.hosting import HostedAgent, Hosting
from knotwork.mesh.records import AgentRecord
from knotwork.sdk import Attempt, Context, Continue, Done, Factory, Failed, Outcome, PluginConfig
from knotwork.sockets.catalog import Entry
from knotwork.sockets.slot import Instance, Slot
from knotwork.sockets.sources import Source
from knotwork.telemetry.emitter import Emitter
from knotwork.telemetry.measure import Meter
from knotwork.view.keeper import Keeper
from knotwork.view.room import open_view
from knotwork.work.room import Work, open_work


class Scripted:
    """Does what the input says (`sdk.Executor`)."""

    async def execute(self, attempt: Attempt) -> Outcome:
        """Follow the script."""
        script = attempt.input if isinstance(attempt.input, dict) else {}
        _log(script, "begins")
        try:
            return await self._follow(attempt, script)
        except asyncio.CancelledError:
            await asyncio.sleep(script.get("ending", 0))  # what the script says
            if script.get("deaf"):
                return Done(attempt.input)
            raise
        finally:
            _log(script, "ends")

    async def _follow(self, attempt: Attempt, script: dict[str, Any]) -> Outcome:
        if "touch" in script:
            with Path(script["touch"]).open("a") as file:
                file.write(f"{attempt.number} {os.getpid()}\n")
        if "stream" in script:
            attempt.report.progress(50.0, "half")
            await attempt.report.stream(script["stream"])
        for _ in range(script.get("beats", 0)):
            attempt.report.progress(None, "alive")
            await asyncio.sleep(0.1)  # likewise
        if "sleep" in script:
            await asyncio.sleep(script["sleep"])  # what the script says
        while "until" in script and not Path(script["until"]).exists():
            await asyncio.sleep(0.01)  # a pause between two looks
        if script.get("exit"):
            os._exit(9)
        if "fail" in script and attempt.number < script.get("fail_until", 10**9):
            return Failed(**script["fail"])
        if script.get("loops"):
            return Continue({**script, "loops": script["loops"] - 1})
        return Done(attempt.input)


def _log(script: dict[str, Any], what: str) -> None:
    if "log" in script:
        with Path(script["log"]).open("a") as file:
            file.write(f"{script['as']} {what}\n")


@contextlib.asynccontextmanager
async def _open(_config: PluginConfig, _context: Context) -> AsyncIterator[Scripted]:
    yield Scripted()


FACTORY = Factory(name="scripted", config=PluginConfig, open=_open)


@contextlib.asynccontextmanager
async def open_node(
    url: str,
    seed: str,
    name: str,
    agents: dict[str, dict[str, Any]],
    *,
    lease_s: float = 2.0,
    view: str = "",
) -> AsyncIterator[Work]:
    """Be a worker node inside the block; `agents` are fields of `AgentRecord` by name, `view` the folder of its view."""
    endpoint = Endpoint((url,), seed=seed, inbox_prefix="_NODE", pause_min_s=0.05, pause_max_s=0.3)
    emitter = Emitter(name)
    async with background() as group, open_connection(endpoint) as connection:
        hosting = Hosting(group, emitter, Meter(emitter), node=name)
        hosted = []
        for agent, fields in agents.items():
            record = AgentRecord(agent, **{"capabilities": (agent,), "concurrency": 4, "queue_max": 100, **fields})
            entry = Entry("executors", agent, FACTORY, Source("bundled", "bundled", "test"))
            context: Any = None  # the script does not look at it
            slot = Slot(Instance("executors", agent, entry, PluginConfig()), FACTORY, context, lambda _slot: None)
            slot.start(group)
            await slot.settled(30)
            places = Admission(record.concurrency, record.queue_max)
            hosted.append(HostedAgent(record, frozenset({"default"}), slot, places))
        hosting.replace(hosted)
        async with open_work(
            connection, hosting, project="default", node=name, agents=hosting.agents, lease_s=lease_s
        ) as work:
            if not view:
                yield work
                return
            keeper = Keeper()
            group.create_task(keeper.run())
            async with child.guard(), open_view(keeper, Path(view), "default", connection) as past:
                keeper.begin()
                work.past = past.has_ended
                work.proofs.leads = past.leads_to
                yield work


async def main(
    url: str, seed: str, name: str, agents: dict[str, Any], lease_s: float, view: str, ahead_s: float
) -> None:
    """Work until killed, on a machine whose clock is `ahead_s` seconds ahead."""
    clock.SHARED._base_ns += int(ahead_s * 1e9)
    async with open_node(url, seed, name, agents, lease_s=lease_s, view=view):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
