"""The other process of a bench: an agent called `echo`, and a raw nats-py responder beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import nats

from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.mesh.admission import Admission
from knotwork.mesh.hosting import HostedAgent, Hosting
from knotwork.mesh.membership import Membership, join
from knotwork.mesh.records import AgentRecord, NodeRecord
from knotwork.sdk import Attempt, Context, Done, Factory, Outcome, PluginConfig
from knotwork.sockets import catalog, loading
from knotwork.sockets.slot import Instance, Slot
from knotwork.sockets.sources import Source
from knotwork.telemetry.emitter import Emitter
from knotwork.telemetry.measure import Meter

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.sdk import Kind

RAW = "bench.raw"
URL, SEED = "KNOTWORK_BENCH_URL", "KNOTWORK_BENCH_SEED"
WORKER = "KNOTWORK_BENCH_WORKER"
"""The name of a node that works on durable tasks, instead of answering calls."""
READY = b"ready\n"
WORKER_PLACES = 1000
ARGUMENT = "--bench-peer"  # what makes the one-file executable this process
PLACES = 20_000


class Echo:
    """Does nothing but answer (`sdk.Executor`)."""

    async def execute(self, attempt: Attempt) -> Outcome:
        """Return the input."""
        return Done(attempt.input)


@contextlib.asynccontextmanager
async def _open(_config: PluginConfig, _context: Context) -> AsyncIterator[Echo]:
    yield Echo()


ECHO = Factory(name="echo", config=PluginConfig, open=_open)


def endpoint(url: str, seed: str) -> Endpoint:
    """Return how the bench connects."""
    return Endpoint((url,), seed=seed, inbox_prefix="_NODE")


def hosting(group: asyncio.TaskGroup, name: str, agent: str | None, *, places: int = PLACES) -> Hosting:
    """Return what hosts agents of a node, without sinks for telemetry; `agent` echoes, None: there is none."""
    emitter = Emitter(name)
    found = Hosting(group, emitter, Meter(emitter), node=name)
    if agent is not None:
        record = AgentRecord(agent, (agent,), executor="echo", concurrency=places, queue_max=places, timeout_s=600)
        slot = _slot(group, "executors", agent, ECHO, _capability().source)
        found.replace([HostedAgent(record, frozenset({"default"}), slot, Admission(places, places))])
    return found


def _capability() -> catalog.Entry:
    return loading.load(catalog.CatalogSettings(safe_mode=True)).find("routers", "capability")


def member(connection: Connection, group: asyncio.TaskGroup, name: str, agent: str | None) -> Membership:
    """Return a node's membership as the host wires it: real slots, router, admission and telemetry, without sinks."""
    hosted = hosting(group, name, agent)
    entry = _capability()
    router = _slot(group, "routers", "capability", entry.factory, entry.source)
    agents = tuple(agent.record for agent in hosted.agents())

    def record_of(_project: str) -> NodeRecord:
        return NodeRecord(name, name, name, 0, 10.0, agents=agents)

    return Membership(
        "default",
        connection,
        hosted,
        routers=lambda: [router],
        emitter=Emitter(name),
        record=record_of,
    )


def _slot(group: asyncio.TaskGroup, kind: Kind, name: str, factory: Factory[Any], source: Source) -> Slot:
    context: Any = None  # neither echo nor the capability router looks at it
    entry = catalog.Entry(kind, name, factory, source)
    slot = Slot(Instance(kind, name, entry, factory.config()), factory, context, lambda _slot: None)
    slot.start(group)
    return slot


async def serve(url: str, seed: str) -> None:
    """Answer until told to stop."""
    stopped = asyncio.Event()
    if sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    raw = await nats.connect(url, nkeys_seed_str=seed)

    async def answer(message: Any) -> None:
        await raw.publish(message.reply, message.data)

    await raw.subscribe(RAW, cb=answer)
    async with (
        background() as group,
        open_connection(endpoint(url, seed)) as connection,
        join(member(connection, group, "agent", "echo")),
    ):
        await stopped.wait()
        os._exit(0)  # nothing to close in good order: the bench is over


async def work(url: str, seed: str, name: str) -> None:
    """Work on tasks until told to stop."""
    from knotwork.work.room import open_work  # whoever answers calls needs none of it

    stopped = asyncio.Event()
    if sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with background() as group, open_connection(endpoint(url, seed)) as connection:
        hosted = hosting(group, name, "echo", places=WORKER_PLACES)
        for agent in hosted.agents():
            await agent.slot.settled(10.0)
        async with open_work(connection, hosted, project="default", node=name, agents=hosted.agents):
            os.write(1, READY)
            await stopped.wait()
            os._exit(0)  # nothing to close in good order: the bench is over


def main(_arguments: list[str]) -> int:
    """Be the other process; where to connect is in the environment."""
    url, seed, worker = os.environ[URL], os.environ[SEED], os.environ.get(WORKER, "")
    answering = work(url, seed, worker) if worker else serve(url, seed)
    if sys.platform == "win32":
        asyncio.run(answering)
    else:
        import uvloop  # what a node runs on

        uvloop.run(answering)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
