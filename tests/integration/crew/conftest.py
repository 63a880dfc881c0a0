"""Fixtures: a nats-server of each test's own (synced), nodes that carry orchestrations on, and agents who claim parts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio
from tests.integration.flow.conftest import flow_node
from tests.integration.work.conftest import PATIENCE_S, Bench, open_bench, until

from knotwork.crew.plan import Part
from knotwork.crew.planning import Planner, Wish
from knotwork.crew.records import Record
from knotwork.crew.room import Crew, Spawn, open_crew
from knotwork.crew.sight import View
from knotwork.flow.room import Flow
from knotwork.mesh.records import AgentRecord
from knotwork.trust.who import Who
from knotwork.work.claims import Claimed
from knotwork.work.room import Work

ME = Who("person-me", "me", "default", "me", "person")


@dataclass
class Node:
    """One node: its work, its runs, its orchestrations, and the phases it told of."""

    work: Work
    flow: Flow
    crew: Crew
    stack: contextlib.AsyncExitStack
    told: list[tuple[str, str]] = field(default_factory=list)

    async def claim(self, name: str, capability: str = "do", lease_s: float = 60.0) -> Claimed:
        """Be an agent that gets one part."""
        record = AgentRecord(name, (capability,), concurrency=1, attached=True)
        (found,) = await self.work.claims.claim(record, lease_s=lease_s, wait_s=PATIENCE_S, held_max=1000)
        return found

    async def do(self, name: str, output: Any = None, capability: str = "do") -> str:
        """Be an agent that gets one part and does it; returns the part."""
        found = await self.claim(name, capability)
        await self.work.claims.complete(found.token, name if output is None else output)
        return found.task.step

    async def plan(self, *parts: Part, by: Who = ME, parent: str = "", task: str = "a task") -> Record:
        """Return an orchestration with this plan, not spawned."""
        made = await self.crew.assess(Wish(task, by.name, {"do"}), by, asked=None, parent=parent)
        return await self.crew.edit(made.id, parts, None, by) if parts else made

    async def spawn(self, *parts: Part, by: Who = ME, parent: str = "", **how: Any) -> View:
        """Return one that was spawned."""
        made = await self.plan(*parts, by=by, parent=parent)
        view, new = await self.crew.spawn(made.id, Spawn(**how), by)
        assert new
        return view

    async def view(self, orchestration: str) -> View:
        return await self.crew.looking.view(await self.crew.store.get(orchestration))

    async def reaches(self, orchestration: str, phase: str) -> View:
        """Return an orchestration when it is in a phase."""

        async def there() -> View | None:
            view = await self.view(orchestration)
            return view if view.phase == phase else None

        return await until(there)

    async def is_in(self, orchestration: str, part: str, state: str) -> View:
        """Return an orchestration when a part is in a state."""

        async def there() -> View | None:
            view = await self.view(orchestration)
            return view if view.parts[part].state == state else None

        return await until(there)

    async def output(self, orchestration: str) -> Any:
        """Return what came of an orchestration."""
        result = await self.crew.store.result(orchestration)
        assert result is not None
        return json.loads(await self.crew.values.read(bytes(result.output), result.blob))


class Nodes:
    """A server, and nodes on it."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder

    async def here(self, name: str = "here", **agents: dict[str, Any]) -> Node:
        """Be a node in this process."""
        stack = await self.bench.stack.enter_async_context(contextlib.AsyncExitStack())
        opened = flow_node.open_node(self.bench.url, self.bench.seed, name, agents)
        work, flow = await stack.enter_async_context(opened)
        told: list[tuple[str, str]] = []
        crew = await stack.enter_async_context(
            open_crew(
                flow, work.values, self.folder / name, node=name, told=lambda one: told.append((one.id, one.phase))
            )
        )
        work.gate.is_held = crew.is_held
        return Node(work, flow, crew, stack, told)


@pytest_asyncio.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with open_bench(tmp_path) as bench:
        yield Nodes(bench, tmp_path / "crew")


def part(name: str, *needs: str, **fields: Any) -> Part:
    """Return a part that anybody with `do` can do."""
    return Part(name, f"The {name}", f"do {name}", "do", needs=needs, **fields)


async def soon(work: Any) -> Any:
    """Return what something gives, within reason."""
    async with asyncio.timeout(PATIENCE_S):
        return await work


__all__ = ["ME", "Node", "Nodes", "Planner", "part", "soon"]
