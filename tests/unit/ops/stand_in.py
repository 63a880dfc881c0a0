"""A node for the doors' tests: it keeps the ports protocols, and remembers what was asked of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.unit.ops.stand_in_claims import StandInClaims
from tests.unit.ops.stand_in_crews import StandInCrews
from tests.unit.ops.stand_in_feed import StandInFeed
from tests.unit.ops.stand_in_flows import StandInApprovals, StandInFlows
from tests.unit.ops.stand_in_memory import StandInMemory
from tests.unit.ops.stand_in_past import StandInPast
from tests.unit.ops.stand_in_sessions import StandInSessions
from tests.unit.ops.stand_in_talk import StandInTalk
from tests.unit.ops.stand_in_targets import StandInTargets
from tests.unit.ops.stand_in_tools import StandInTools
from tests.unit.ops.stand_in_triggers import StandInHooks, StandInTriggers

from knotwork.ops import replies, task_replies
from knotwork.ops.op import Caller
from knotwork.ops.ports import AgentFilter, Call, RouteQuestion
from knotwork.ops.task_ports import DeadFilter, NewTask, TaskFilter
from knotwork.sdk.errors import Busy, ConfigInvalid, Denied, NotFound
from knotwork.trust.who import Who, person

AGENT = Who("00000000-0000-4000-8000-000000000001", "claude-code", "default", "me", node="here")
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
    questions: list[RouteQuestion] = field(default_factory=list)
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

    async def why(self, question: RouteQuestion) -> replies.RouteWhy:
        self.questions.append(question)
        rows = [replies.RouteCandidate(agent=row.name, place=place) for place, row in enumerate(self.known, 1)]
        return replies.RouteWhy(router="capability", reason="first of three", candidates=rows)

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


DEAD = "t0198c0ffee00d15ea5e0000dead"


def task(run: str, state: str = "completed", **more: Any) -> task_replies.TaskInfo:
    return task_replies.TaskInfo(id=run, state=state, ended=state in task_replies.ENDED, **more)


@dataclass
class StandInTasks:
    """Every task but `DEAD` is known and completed with its own id as output; `asked` holds what was wanted."""

    asked: list[Any] = field(default_factory=list)

    async def submit(self, wanted: NewTask, caller: Caller) -> task_replies.TaskInfo:
        self.asked.append((wanted, caller))
        return task("t0000000000000001", "pending", new=True, note="Nobody is there.")

    async def get(self, run: str, *, with_input: bool = False) -> task_replies.TaskInfo:
        if run == DEAD:
            return task(run, "dead")
        return task(run, output=run, input="in" if with_input else None)

    async def ended(self, run: str, timeout_s: float) -> task_replies.TaskInfo:
        self.asked.append(("ended", run, timeout_s))
        return task(run, output=run)

    async def list(self, wanted: TaskFilter) -> task_replies.TaskList:
        self.asked.append(wanted)
        return task_replies.TaskList(tasks=[task_replies.TaskRow(id="t0000000000000001", state="pending")])

    async def cancel(self, runs: Sequence[str], why: str, caller: Caller) -> task_replies.CancelledTasks:
        rows = [task_replies.Cancelled(id=run, state="cancelled", changed=True, why=why) for run in runs]
        unknown = task_replies.TaskError(kind="not_found", code="work.not_found", message="There is no such task.")
        rows = [row.model_copy(update={"error": unknown}) if row.id.startswith("x") else row for row in rows]
        return task_replies.CancelledTasks(tasks=rows, changed=len(rows))

    async def cancel_where(self, wanted: TaskFilter, why: str, caller: Caller) -> task_replies.CancelledTasks:
        self.asked.append(wanted)
        return task_replies.CancelledTasks(tasks=[])

    async def retry(self, run: str, caller: Caller) -> task_replies.TaskInfo:
        return task("t0000000000000002", "pending", parent=run, new=True)

    async def history(self, run: str) -> task_replies.TaskHistory:
        row = task_replies.Transition(at="2026-01-01T00:00:00Z", what="submitted", state="pending")
        return task_replies.TaskHistory(id=run, state="pending", transitions=[row])

    async def why(self, run: str) -> task_replies.TaskWhy:
        return task_replies.TaskWhy(id=run, state="pending", why="It waits.")

    async def watch(
        self, run: str, timeout_s: float
    ) -> AsyncGenerator[replies.Progress | replies.Chunk | task_replies.TaskInfo, None]:
        yield replies.Progress(percent=50.0, text="half")
        yield replies.Chunk(data={"state": "running"})
        yield task(run, output=run)

    async def stats(self) -> task_replies.TaskStats:
        return task_replies.TaskStats(waiting=1, taken=0)

    async def dead(self, wanted: DeadFilter) -> task_replies.DeadList:
        self.asked.append(wanted)
        return task_replies.DeadList(dead=[])

    async def dead_letter(self, run: str, step: str = "") -> task_replies.TaskInfo:
        return await self.get(run, with_input=True)

    async def redrive(
        self, wanted: DeadFilter, *, per_s: float, dry_run: bool, caller: Caller
    ) -> task_replies.RedrivenTasks:
        self.asked.append((wanted, per_s))
        return task_replies.RedrivenTasks(tasks=[], dry_run=dry_run)

    async def drop(self, wanted: DeadFilter, caller: Caller) -> task_replies.Dropped:
        return task_replies.Dropped(ids=sorted(wanted.ids), changed=len(wanted.ids))

    async def keep(self, data: bytes, upload: str, digest: str) -> task_replies.BlobKept:
        return task_replies.BlobKept(upload=upload, digest=digest, size_bytes=len(data))

    async def read(self, digest: str, after: int | None) -> AsyncGenerator[replies.Chunk | task_replies.BlobKept, None]:
        yield replies.Chunk(data="MTIz")
        yield task_replies.BlobKept(digest=digest, size_bytes=3)


@dataclass
class StandInNode:
    """The node; `asked` holds every admin call."""

    one_mesh: StandInMesh = field(default_factory=StandInMesh)
    all_tasks: StandInTasks = field(default_factory=StandInTasks)
    one_claims: StandInClaims = field(default_factory=StandInClaims)
    one_talk: StandInTalk = field(default_factory=StandInTalk)
    asked: list[Any] = field(default_factory=list)
    ready: bool = True
    reload_problems: list[dict[str, Any]] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def mesh(self, project: str, by: Who | None = None) -> StandInMesh:
        if project != "default":
            raise NotFound(f"This node does not serve {project!r}.", code="project.not_found")
        return self.one_mesh

    def claims(self, _project: str) -> StandInClaims:
        return self.one_claims

    def tasks(self, project: str, by: Who | None = None) -> StandInTasks:
        return self.all_tasks

    def flows(self, project: str, by: Who | None = None) -> StandInFlows:
        return StandInFlows()

    def memories(self, project: str) -> StandInMemory:
        return StandInMemory()

    def crews(self, project: str, by: Who) -> StandInCrews:
        return StandInCrews()

    def triggers(self, project: str) -> StandInTriggers:
        return StandInTriggers()

    def sessions(self, _project: str) -> StandInSessions:
        return StandInSessions()

    def talk(self, _project: str) -> StandInTalk:
        return self.one_talk

    def tools(self) -> StandInTools:
        return StandInTools()

    def who(self, project: str, session: str) -> Who:
        if session not in ("", "open-sesame"):
            raise Denied("no such session", code="session.unknown")
        return AGENT if session else person("me", project, "here")

    def approvals(self) -> StandInApprovals:
        return StandInApprovals()

    def hooks(self) -> StandInHooks:
        return StandInHooks()

    def targets(self, project: str, by: Who | None = None) -> StandInTargets:
        return StandInTargets()

    def past(self, project: str) -> StandInPast:
        return StandInPast()

    def happenings(self, project: str) -> StandInFeed:
        return StandInFeed()

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
