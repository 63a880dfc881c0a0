"""Nodes that remember, in this process: real connections, real plugins, the room as a node opens it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knotwork.bus.background import background
from knotwork.bus.connection import Connection, open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.desk.memory import MemoryDesk
from knotwork.host.memory_buckets import MemoryBuckets
from knotwork.memory.remembering import Remembering, open_remembering
from knotwork.memory.settings import Settings
from knotwork.sdk.errors import Unavailable
from knotwork.sdk.testing import make_context
from knotwork.trust.who import Who, person
from knotwork_plugins.memories import FACTORIES

TYPES = {factory.name: factory for factory in FACTORIES}


class RealClock:
    """The real time: things expire by it."""

    def time_ns(self) -> int:
        import time

        return time.time_ns()

    def monotonic_s(self) -> float:
        import time

        return time.monotonic()


@dataclass
class Slot:
    """A plugin that runs; `plugin` may be exchanged, or taken away."""

    found: Any

    @property
    def plugin(self) -> Any:
        if self.found is None:
            raise Unavailable("the plugin is away", code="plugin.not_running")
        return self.found

    @contextlib.contextmanager
    def lease(self) -> Any:
        yield self.plugin


@dataclass
class Around:
    """What a node gives its rooms: settings that a test may change, and slots."""

    now: Settings
    slots: dict[str, Slot] = field(default_factory=dict)

    def settings(self) -> Settings:
        return self.now

    def slot(self, instance: str) -> Slot:
        if instance not in self.slots:
            raise Unavailable(f"there is no {instance}", code="memory.no_store")
        return self.slots[instance]


@dataclass
class Node:
    """One node's memory of one project."""

    name: str
    project: str
    rooms: Remembering
    around: Around
    connections: dict[str, Connection]

    @property
    def desk(self) -> MemoryDesk:
        return MemoryDesk(self.rooms)

    def agent(self, name: str, owner: str = "ann", parent: str = "") -> Who:
        return Who(f"{name}-id", name, self.project, owner, "agent", parent, self.name)

    def person(self, owner: str = "ann") -> Who:
        return person(owner, self.project, self.name)


@contextlib.asynccontextmanager
async def open_node(
    url: str,
    seeds: dict[str, str],
    folder: Path,
    *,
    name: str = "n1",
    project: str = "default",
    settings: Settings | None = None,
    configs: dict[str, dict[str, Any]] | None = None,
    wait_commons: bool = True,
) -> AsyncIterator[Node]:
    """Remember for `project` over its account, and over COMMONS when there is a seed for it."""
    home = folder / f"{name}-{project}"
    home.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        connections: dict[str, Connection] = {}
        for realm, account in ((project, project), ("", "COMMONS")):
            if account in seeds:
                endpoint = Endpoint(
                    (url,), seed=seeds[account], inbox_prefix="_NODE", pause_min_s=0.02, pause_max_s=0.2,
                    connect_timeout_s=20.0,
                )  # fmt: skip
                connections[realm] = await stack.enter_async_context(
                    open_connection(endpoint, wait_first=wait_commons or bool(realm))
                )

        def connection(realm: str) -> Connection:
            if realm not in connections:
                raise Unavailable(f"{realm or 'COMMONS'} is away", code="bus.disconnected")
            return connections[realm]

        group = await stack.enter_async_context(background())
        around = Around(settings or Settings(folders=(home / "exports",)))
        for kind, config in (configs or {"kv": {}}).items():
            factory = TYPES[kind]
            context = make_context(
                buckets=MemoryBuckets(connection, group), folder=home, clock=RealClock(), node=name, base=folder
            )
            opened = factory.open(factory.config.model_validate(config), context)
            around.slots[kind] = Slot(await stack.enter_async_context(opened))
        rooms = await stack.enter_async_context(
            open_remembering(project, around, node=name, index=home / "index.db", common=lambda: "" in connections)
        )
        yield Node(name, project, rooms, around, connections)
