"""A node for the doors' tests: it keeps the ports protocols, and remembers what was asked of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from knotwork.ops import replies
from knotwork.ops.op import Caller
from knotwork.ops.ports import AgentFilter, Call
from knotwork.sdk.errors import Busy, ConfigInvalid, NotFound

VERDICT = replies.ReloadVerdict(result="applied", revision=2, added=["executors.new"])


def agent(name: str, node: str = "here", **more: Any) -> replies.AgentDetail:
    return replies.AgentDetail(name=f"{node}/{name}", agent=name, node=node, state="online", **more)


@dataclass
class StandInMesh:
    """`echo` answers with its input, `slow` reports and never ends, `full` is busy, `broken` breaks."""

    known: list[replies.AgentDetail] = field(
        default_factory=lambda: [
            agent("echo", capabilities=["talk"], tags=["fast"], input_schema={"type": "object"}),
            agent("slow", description="never\x1b[31m ends"),
            agent("full", "there"),
        ]
    )
    calls: list[tuple[Call, Caller]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def nodes(self) -> Sequence[replies.NodeRow]:
        return [
            replies.NodeRow(node="n1", name="here", state="online", agents=2, here=True),
            replies.NodeRow(node="n2", name="there", state="offline"),
        ]

    async def agents(self, wanted: AgentFilter) -> Sequence[replies.AgentRow]:
        return [
            replies.AgentRow(**{key: getattr(row, key) for key in replies.AgentRow.model_fields})
            for row in self.known
            if wanted.capability in ("", *row.capabilities)
            and wanted.node in ("", row.node)
            and wanted.tags <= set(row.tags)
        ]

    async def agent(self, target: str) -> replies.AgentDetail:
        for row in self.known:
            if target in (row.name, row.agent):
                return row
        raise NotFound(f"There is no agent {target!r}.", code="agent.not_found", hint="Did you mean echo?")

    async def invoke(
        self, call: Call, caller: Caller
    ) -> AsyncGenerator[replies.Progress | replies.Chunk | replies.Answer, None]:
        self.calls.append((call, caller))
        if call.target == "full":
            raise Busy("All places are taken.", retry_after_s=1.5)
        if call.target == "broken":
            raise ZeroDivisionError("inside")
        if call.target == "mute":
            return
        yield replies.Progress(percent=50.0, text="half")
        yield replies.Chunk(data={"n": 1})
        if call.target == "slow":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        yield replies.Answer(output=call.input, agent="here/echo", took_s=0.5)


@dataclass
class StandInNode:
    """The node; `asked` holds every admin call."""

    one_mesh: StandInMesh = field(default_factory=StandInMesh)
    asked: list[Any] = field(default_factory=list)
    ready: bool = True
    reload_problems: list[dict[str, Any]] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def mesh(self, project: str) -> StandInMesh:
        if project != "default":
            raise NotFound(f"This node does not serve {project!r}.", code="project.not_found")
        return self.one_mesh

    async def status(self) -> replies.NodeStatus:
        bus = replies.BusStatus(mode="embedded", url="nats://127.0.0.1:1", state="connected")
        return replies.NodeStatus(
            node="n1", name="here", version="0", pid=os.getpid(), state="running", started_at="2026-01-01T00:00:00Z",
            uptime_s=1.0, data_dir="/nowhere", projects=["default"], bus=bus, memory_bytes=50_000_000,
        )  # fmt: skip

    async def health(self) -> replies.NodeHealth:
        return replies.NodeHealth(live=True, ready=self.ready, checks=[replies.Check(name="bus", ok=self.ready)])

    async def reload(self) -> replies.ReloadVerdict:
        if self.reload_problems:
            raise ConfigInvalid("knotwork.toml:1:2: no", detail={"problems": self.reload_problems})
        return VERDICT

    async def drain(self, deadline_s: float | None, *, resume: bool) -> replies.Draining:
        self.asked.append(("drain", deadline_s, resume))
        return replies.Draining(state="running" if resume else "draining")

    async def stop(self, drain_s: float | None) -> replies.Stopping:
        self.asked.append(("stop", drain_s))
        self.stopping.set()
        return replies.Stopping(pid=os.getpid(), node="here")

    async def events(self, names: Sequence[str], project: str) -> AsyncGenerator[replies.EventRow, None]:
        self.asked.append(("events", tuple(names), project))
        for number in range(3):
            yield replies.EventRow(name="node.ticked", at="2026-01-01T00:00:00Z", data={"n": number})
        yield replies.EventRow(name="telemetry.dropped", at="2026-01-01T00:00:00Z", data={"count": 7})
        await asyncio.Event().wait()

    async def show_config(self) -> replies.ConfigShown:
        settings = [
            replies.Setting(key="mesh.heartbeat_s", value=10.0, origin="default"),
            replies.Setting(key="node.name", value="here", origin="knotwork.toml:3"),
        ]
        return replies.ConfigShown(revision=1, settings=settings)

    async def plan(self) -> replies.ConfigPlan:
        return replies.ConfigPlan(ok=True, changes=[replies.Change(what="executors.new", how="start")])

    async def revisions(self) -> Sequence[replies.Revision]:
        return [replies.Revision(number=1, at="2026-01-01T00:00:00Z", current=True)]

    async def rollback(self, number: int) -> replies.ReloadVerdict:
        if number != 1:
            raise NotFound(f"There is no revision {number}.", code="config.no_such_revision")
        return VERDICT

    async def plugins(self) -> replies.PluginList:
        return replies.PluginList(plugins=[replies.PluginRow(kind="executors", type="process")])

    async def plugin(self, kind: str, type_name: str) -> replies.PluginInfo:
        return replies.PluginInfo(kind=kind or "executors", type=type_name, config_schema={"type": "object"})

    async def restart_plugin(self, kind: str, instance: str) -> replies.Slot:
        self.asked.append(("restart", kind, instance))
        return replies.Slot(kind=kind, id=instance, type="process", state="running")
