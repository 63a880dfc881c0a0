"""A node's part in a mesh, wired as the host wires it, with agents made of functions. Run as a script it is a process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.mesh.admission import Admission
from knotwork.mesh.hosting import HostedAgent, Hosting
from knotwork.mesh.membership import Membership, join
from knotwork.mesh.records import AgentRecord, NodeRecord
from knotwork.mesh.schemas import Schema
from knotwork.sdk import Attempt, Done, Factory, PluginConfig
from knotwork.sdk.router import Ask
from knotwork.sockets import catalog, loading
from knotwork.sockets.slot import Instance, Slot
from knotwork.telemetry.emitter import Emitter
from knotwork.telemetry.measure import Meter

ROUTER = loading.load(catalog.CatalogSettings(safe_mode=True)).find("routers", "capability")


class Works:
    def __init__(self, function: Callable[[Attempt], Awaitable[Any]]) -> None:
        self.execute = function


class Node:
    """One node: `agent` adds agents, `running` counts work under way by agent."""

    def __init__(self, group: asyncio.TaskGroup, name: str, **settings: Any) -> None:
        self.group, self.name = group, name
        self.settings = {"heartbeat_s": 10.0, "uid": f"uid-{name}", **settings}
        self.emitter = Emitter(name)
        self.hosting = Hosting(group, self.emitter, Meter(self.emitter), node=name)
        self.router = self._slot("routers", "capability", ROUTER.factory)
        self.state = "online"
        self.running: dict[str, int] = {}
        self.stopped: list[str] = []
        self.calls = 0
        group.create_task(self.hosting.keep_alive(lambda: self.settings.get("keepalive_s", 5.0)))

    def _slot(self, kind: Any, name: str, factory: Any) -> Slot:
        entry = catalog.Entry(kind, name, factory, ROUTER.source)
        slot = Slot(Instance(kind, name, entry, factory.config()), factory, None, lambda _slot: None)
        slot.start(self.group)
        return slot

    def agent(
        self, name: str, function: Callable[[Attempt], Awaitable[Any]], capabilities: Any = None, **settings: Any
    ) -> None:
        async def counted(attempt: Attempt) -> Any:
            self.calls += 1
            self.running[name] = self.running.get(name, 0) + 1
            try:
                return await function(attempt)
            finally:
                self.running[name] -= 1
                self.stopped.append(attempt.id)

        @contextlib.asynccontextmanager
        async def opened(_config: PluginConfig, _context: Any) -> AsyncIterator[Works]:
            yield Works(counted)

        slot = self._slot("executors", name, Factory(name=name, config=PluginConfig, open=opened))
        made = {"concurrency": 10_000, "queue_max": 10_000, "timeout_s": 600.0, **settings}
        record = AgentRecord(name, tuple(capabilities or (name,)), executor="test", **made)
        admission: Any = Admission(made["concurrency"], made["queue_max"])
        schema = Schema(record.input_schema, "input") if record.input_schema else None
        hosted = HostedAgent(record, frozenset({"default"}), slot, admission, schema)
        self.hosting.replace([*self.hosting.agents(), hosted])

    def record(self, _project: str) -> NodeRecord:
        settings = dict(self.settings)
        return NodeRecord(
            self.name,
            settings.pop("uid"),
            settings.pop("instance", "instance"),
            time.time_ns(),
            settings.pop("heartbeat_s"),
            state=self.state,
            agents=tuple(agent.record for agent in self.hosting.agents()),
            **settings,
        )

    def membership(self, connection: Any, project: str = "default") -> Membership:
        return Membership(
            project, connection, self.hosting, routers=lambda: [self.router], emitter=self.emitter, record=self.record
        )


@contextlib.asynccontextmanager
async def open_node(
    endpoint: Endpoint, name: str, fill: Callable[[Node], None] = lambda _node: None, **settings: Any
) -> AsyncIterator[Any]:
    """Be a node inside the block; yields its membership, whose `node` is the `Node`."""
    try:
        async with background() as group:
            node = Node(group, name, **settings)
            fill(node)
            async with open_connection(endpoint) as connection:
                membership = node.membership(connection)
                membership.node = node
                async with join(membership):
                    yield membership
    except BaseExceptionGroup as failed:
        if len(failed.exceptions) == 1:
            raise failed.exceptions[0] from None
        raise


def endpoint(url: str, **settings: Any) -> Endpoint:
    return Endpoint((url,), **{"pause_min_s": 0.02, "pause_max_s": 0.2, "inbox_prefix": "_NODE", **settings})


async def echo(attempt: Attempt) -> Any:
    return Done(attempt.input)


async def sleep(attempt: Attempt) -> Any:
    await asyncio.sleep(60)
    return Done()


def fill(node: Node) -> None:
    node.agent("echo", echo)
    node.agent("sleep", sleep)


async def main(url: str, name: str, call: str = "") -> None:
    """Be a node with agents, or one without that calls `call` elsewhere and waits."""
    agents = (lambda _node: None) if call else fill
    async with open_node(endpoint(url), name, agents, heartbeat_s=1.0, keepalive_s=1.0) as member:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if call:
            await member.calls.invoke(Ask(agent=call, here=name), b"1", timeout_s=60, caller="test")
        await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(*sys.argv[1:]))
