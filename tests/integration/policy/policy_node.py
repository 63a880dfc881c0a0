"""A node with membership and work room, wired as the host wires them, with a policy that can change. As a script it is a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.integration.work import work_node

from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.config.model import Config
from knotwork.mesh import policy as policies
from knotwork.mesh.admission import Admission
from knotwork.mesh.hosting import HostedAgent, Hosting
from knotwork.mesh.membership import Membership, join
from knotwork.mesh.records import AgentRecord, NodeRecord
from knotwork.mesh.schemas import Schema
from knotwork.sockets import catalog, loading
from knotwork.sockets.catalog import Entry
from knotwork.sockets.slot import Instance, Slot
from knotwork.sockets.sources import Source
from knotwork.telemetry.emitter import Emitter
from knotwork.telemetry.measure import Meter
from knotwork.work.room import open_work

CATALOG = loading.load(catalog.CatalogSettings(safe_mode=True))


class Node:
    """One node. `allow` exchanges its policy, `host` its agents, as a reload does."""

    def __init__(self, group: asyncio.TaskGroup, name: str, routers: list[str], heartbeat_s: float) -> None:
        self.group, self.name, self.heartbeat_s = group, name, heartbeat_s
        self.emitter = Emitter(name)
        self.policy = policies.READY
        self.hosting = Hosting(group, self.emitter, Meter(self.emitter), node=name, policy=lambda: self.policy)
        self.routers = [self._slot("routers", one, CATALOG.find("routers", one).factory) for one in routers]
        self.membership: Any = None
        self.work: Any = None

    def _slot(self, kind: Any, name: str, factory: Any) -> Slot:
        entry = Entry(kind, name, factory, Source("bundled", "bundled", "test"))
        context: Any = None  # nobody looks at it
        slot = Slot(Instance(kind, name, entry, factory.config()), factory, context, lambda _slot: None)
        slot.start(self.group)
        return slot

    def allow(self, boundaries: dict[str, Any]) -> None:
        self.policy = policies.compiled(Config.model_validate({"boundaries": boundaries}).boundaries)
        self.changed()

    async def host(self, agents: dict[str, dict[str, Any]]) -> None:
        hosted = []
        for name, fields in agents.items():
            old = self.hosting.get(name)
            slot = old.slot if old else self._slot("executors", name, work_node.FACTORY)
            await slot.settled(30)
            made = {"capabilities": (name,), "concurrency": 1, "queue_max": 100, **fields}
            record = AgentRecord(name, **made)
            admission = old.admission if old else Admission(record.concurrency, record.queue_max)
            schema = Schema(record.input_schema, "input") if record.input_schema else None
            hosted.append(HostedAgent(record, frozenset({"default"}), slot, admission, schema))
        self.hosting.replace(hosted)
        self.changed()

    def changed(self) -> None:
        if self.membership is not None:
            self.membership.changed()
        if self.work is not None:
            self.work.changed()

    def record(self, _project: str) -> NodeRecord:
        agents = []
        for agent in self.hosting.agents():
            fields = {key: getattr(agent.record, key) for key in agent.record.__struct_fields__}
            agents.append(AgentRecord(**{**fields, "running": agent.admission.running}))
        return NodeRecord(
            self.name, f"uid-{self.name}", "instance", time.time_ns(), self.heartbeat_s, stale_beats=8,
            offline_beats=10, agents=tuple(agents),
        )  # fmt: skip


@contextlib.asynccontextmanager
async def open_node(
    url: str,
    seed: str,
    name: str,
    agents: dict[str, dict[str, Any]],
    *,
    boundaries: dict[str, Any] | None = None,
    routers: list[str] | None = None,
    heartbeat_s: float = 1.0,
    lease_s: float = 2.0,
) -> AsyncIterator[Node]:
    """Be a node inside the block; `agents` are fields of `AgentRecord` by name, `boundaries` tables of TOML."""
    endpoint = Endpoint((url,), seed=seed, inbox_prefix="_NODE", pause_min_s=0.05, pause_max_s=0.3)
    async with background() as group, open_connection(endpoint) as connection:
        node = Node(group, name, routers or ["policy", "capability"], heartbeat_s)
        node.allow(boundaries or {})
        await node.host(agents)
        membership = Membership(
            "default", connection, node.hosting, routers=lambda: node.routers, emitter=node.emitter,
            record=node.record, policy=lambda: node.policy,
        )  # fmt: skip
        async with (
            join(membership),
            open_work(
                connection, node.hosting, project="default", node=name, agents=membership.agents, lease_s=lease_s,
                membership=membership,
            ) as work,
        ):  # fmt: skip
            node.membership, node.work = membership, work
            yield node


async def main(**told: Any) -> None:
    """Work until killed."""
    async with open_node(**told):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
