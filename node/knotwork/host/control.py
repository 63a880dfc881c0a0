"""What does this node answer about itself, and what can be done to it? The host's side of the ops."""

from __future__ import annotations

import asyncio
import functools
import getpass
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import knotwork
from knotwork.bus import clock
from knotwork.bus.away import must_reach
from knotwork.config import revisions
from knotwork.desk.agents import MeshDesk
from knotwork.desk.moments import rfc3339
from knotwork.desk.seen_agents import SeenAgents
from knotwork.host import concerns, node_rows
from knotwork.host.reload import refuse_emptied
from knotwork.mcp.held import Held
from knotwork.ops import replies
from knotwork.sdk import KINDS
from knotwork.sdk.errors import NotFound, Unavailable, guess
from knotwork.sockets import describe
from knotwork.trust.scopes import circles
from knotwork.trust.who import owner_of, person

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.desk.events import Watching
    from knotwork.desk.runs.revival import RunRevival
    from knotwork.host.boot import Nats
    from knotwork.host.drain import Drain
    from knotwork.host.layout import Layout
    from knotwork.host.project_rooms import ProjectRooms
    from knotwork.host.projects import Projects
    from knotwork.host.reload import Reloader
    from knotwork.host.world import World
    from knotwork.mesh.identity import Identity
    from knotwork.ops.claim_ports import Claims
    from knotwork.ops.crew_ports import Crews
    from knotwork.ops.flow_ports import Approvals, Flows
    from knotwork.ops.memory_ports import Memories
    from knotwork.ops.ports import Mesh
    from knotwork.ops.project_replies import Happenings
    from knotwork.ops.session_ports import Sessions
    from knotwork.ops.talk_ports import Talk
    from knotwork.ops.target_replies import Targets
    from knotwork.ops.task_ports import Tasks
    from knotwork.ops.tool_replies import Tools
    from knotwork.ops.trigger_ports import Hooks, Triggers
    from knotwork.ops.view_replies import PastView
    from knotwork.trust.who import Who


_user = functools.cache(getpass.getuser)
"""Asked with every op, and always the same while we run."""


@dataclass(eq=False)
class Control:
    """The node, as far as the ops may touch it (`ops.ports.NodeControl`).

    Most desks are imported when they are asked for, with all that they reply: a node starts without them.
    """

    identity: Identity
    layout: Layout
    world: World
    projects: Projects
    nats: Nats
    reloader: Reloader
    drainer: Drain
    watching: Watching
    safe_mode: bool
    stop_node: Callable[[float | None], None]
    http_url: str = ""
    began: int = field(default_factory=clock.steady_ns)
    opened: Mapping[str, ProjectRooms] = field(default_factory=dict)
    held: Held = field(default_factory=Held)
    commons: Callable[[], Connection | None] = lambda: None

    def mesh(self, project: str, by: Who | None = None) -> Mesh:
        """Return the mesh of a project, as somebody may see it, all by default; raises `NotFound`, `Unavailable`."""
        membership, rooms = self.projects.get(project), self.opened.get(project)
        return MeshDesk(membership, SeenAgents(rooms.sessions if rooms is not None else None, by))

    def _rooms(self, project: str) -> ProjectRooms:
        """Return the open rooms of a project; raises `NotFound`, `Unavailable`."""
        membership, rooms = self.projects.get(project), self.opened.get(project)
        if rooms is None:
            raise Unavailable(f"{membership.project} is just being joined.", code="bus.disconnected", retry_after_s=1.0)
        return rooms

    def _with_store(self, project: str) -> ProjectRooms:
        """Return them for what only the store can answer; raises at once `bus.disconnected` while it is away, too."""
        rooms = self._rooms(project)
        must_reach(rooms.flow.connection)
        return rooms

    def tasks(self, project: str, by: Who | None = None) -> Tasks:
        """Return the durable tasks of a project, as somebody may see them, all by default.

        Raises `NotFound`, `Unavailable`.
        """
        from knotwork.desk.tasks.desk import TaskDesk
        from knotwork.desk.tasks.past import ViewedPast

        rooms, seen = self._rooms(project), circles(by) if by else None

        def revival() -> RunRevival:  # few ask for that: what knows runs is loaded then
            from knotwork.desk.runs.revival import RunRevival
            from knotwork.desk.runs.sight import RunSight

            return RunRevival(rooms.flow, RunSight(rooms.flow, seen))

        return TaskDesk(
            rooms.work, self.projects.get(project), ViewedPast(rooms.view), rooms.spinups,
            revival=revival, circles=seen, agents=SeenAgents(rooms.sessions, by),
        )  # fmt: skip

    def claims(self, project: str) -> Claims:
        """Return the claims of a project; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.claims import ClaimDesk

        rooms = self._rooms(project)
        return ClaimDesk(rooms.work, rooms.sessions, self.projects.get(project), self.owner)

    def flows(self, project: str, by: Who | None = None) -> Flows:
        """Return the workflows of a project, with the runs that somebody may see, all by default.

        Raises `NotFound`, `Unavailable`.
        """
        from knotwork.desk.runs.desk import FlowDesk
        from knotwork.desk.runs.planned import Planned
        from knotwork.desk.tasks.reasons import TaskReasons

        rooms, seen = self._with_store(project), circles(by) if by else None
        membership, agents = self.projects.get(project), SeenAgents(rooms.sessions, by)
        return FlowDesk(
            rooms.flow, rooms.view, lambda: self.http_url, seen, Planned(rooms.triggers),
            reasons=TaskReasons(rooms.work, membership, rooms.spinups, agents), policy=membership.policy,
        )  # fmt: skip

    def crews(self, project: str, by: Who) -> Crews:
        """Return the orchestrations of a project, as somebody may see them; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.crew import CrewDesk

        rooms = self._rooms(project)
        return CrewDesk(rooms.crew, self.projects.get(project), by, SeenAgents(rooms.sessions, by))

    def triggers(self, project: str) -> Triggers:
        """Return the triggers of a project; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.triggers import TriggerDesk

        triggers = self._with_store(project).triggers
        return TriggerDesk(triggers, lambda: self.http_url, self.projects.get(project).policy)

    def sessions(self, project: str) -> Sessions:
        """Return the sessions of a project; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.sessions import SessionDesk

        return SessionDesk(self._rooms(project).sessions, self.owner, self.identity.name)

    def talk(self, project: str) -> Talk:
        """Return the channels and inboxes of a project; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.talk import TalkDesk

        rooms = self._rooms(project)
        return TalkDesk(rooms.talk, rooms.work.values.blobs)

    def tools(self) -> Tools:
        """Return the tools that agents use."""
        from knotwork.desk.tools import ToolDesk

        return ToolDesk(self, self.held)

    def owner(self) -> str:
        """Return whose node this is."""
        return self.world.loaded.config.node.owner or owner_of(_user())

    def who(self, project: str, session: str) -> Who:
        """Return who asks: the agent whose session it is, else the person who owns the node; raises `Denied`."""
        if session:
            return self._rooms(project).sessions.asking(session)
        return person(self.owner(), project, self.identity.name)

    def memories(self, project: str) -> Memories:
        """Return the memory of a project; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.memory import MemoryDesk

        return MemoryDesk(self._rooms(project).memory)

    def approvals(self) -> Approvals:
        """Return what can be answered by a link."""
        from knotwork.desk.approvals import ApprovalDesk

        served = (self.opened.get(project.name) for project in self.projects.all())
        return ApprovalDesk([rooms.flow for rooms in served if rooms is not None])

    def hooks(self) -> Hooks:
        """Return what triggers serve to those who have no token."""
        from knotwork.desk.triggers import HookDesk

        served = (self.opened.get(project.name) for project in self.projects.all())
        return HookDesk([rooms.triggers for rooms in served if rooms is not None])

    def targets(self, project: str, by: Who | None = None) -> Targets:
        """Return the targets of a project, as somebody may see them, all by default; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.targets import TargetDesk

        return TargetDesk(self._rooms(project).spinups, self.projects.get(project), circles(by) if by else None)

    def past(self, project: str) -> PastView:
        """Return the view of the past of a project; raises `NotFound`, `Unavailable`."""
        from knotwork.desk.view import ViewDesk

        return ViewDesk(self._rooms(project).view)

    def happenings(self, project: str) -> Happenings:
        """Return what happens in a project; raises `NotFound`, `Unavailable`."""
        return self._rooms(project).feed

    async def status(self) -> replies.NodeStatus:
        """Return what the node is doing."""
        hosting, members = self.world.hosting, self.projects.memberships()
        return replies.NodeStatus(
            node=self.identity.name,
            name=self.identity.name,
            version=knotwork.__version__,
            pid=os.getpid(),
            state=self.drainer.state,
            started_at=rfc3339(clock.at(self.began)),
            uptime_s=round((clock.steady_ns() - self.began) / 1e9, 1),
            data_dir=str(self.layout.data_dir),
            projects=[project.name for project in self.projects.all()],
            http_url=self.http_url,
            config_files=self._files(),
            revision=self.world.revision,
            last_reload=self.reloader.last,
            bus=self._bus(),
            agents=sum(agent.slot.state == "running" for agent in hosting.agents()),
            nodes=len(
                {record.node for one in members for record, state, _ in one.directory.nodes() if state != "offline"}
            ),
            running=sum(agent.admission.running for agent in hosting.agents()),
            queued=sum(agent.admission.queued for agent in hosting.agents()),
            idle_s=self._idle_s(),
            memory_bytes=_memory_bytes(),
            safe_mode=self.safe_mode,
            warnings=[
                *(f"{one.name}: {one.why}" for one in [*self._unserved(), *self._concerns()]),
                *concerns.unasked(self.world.loaded.config),
            ],
            slots=[node_rows.slot_row(slot) for slot in self.world.slots.everything()],
        )

    def _unserved(self) -> list[replies.Check]:
        return [one for one in map(node_rows.project_check, self.projects.all()) if not one.ok]

    def _concerns(self) -> list[replies.Check]:
        return concerns.of(self.opened, self.projects.memberships(), self.commons())

    def _idle_s(self) -> float:
        """Return for how long nothing has been worked on here, nor held by an agent that came in, nor come to begin here."""
        held = any(rooms.work.at_hand for rooms in self.opened.values())
        hosting = self.world.hosting
        return 0.0 if held or not hosting.idle.is_set() else time.monotonic() - hosting.rested_s

    async def health(self) -> replies.NodeHealth:
        """Return whether the node is alive, and ready for work."""
        checks = [node_rows.project_check(project) for project in self.projects.all()]
        if self.nats.server is not None:
            checks.append(
                replies.Check(name="nats-server", ok=self.nats.server.state == "running", why=self.nats.server.why)
            )
        checks += self._concerns()
        checks.append(node_rows.taking_work(self.drainer.state, self.projects.all()))
        return replies.NodeHealth(live=True, ready=all(one.ok or not one.needed for one in checks), checks=checks)

    async def reload(self) -> replies.ReloadVerdict:
        """Read the configuration again and put it into force."""
        return await self.reloader.reload("op")

    async def drain(self, deadline_s: float | None, *, resume: bool) -> replies.Draining:
        """Take nothing new, or take work again; returns at once."""
        limit_s = self.world.loaded.config.node.drain_s if deadline_s is None else deadline_s
        if resume:
            self.drainer.resume()
        else:
            self.drainer.begin(limit_s)
        return replies.Draining(
            state=self.drainer.state, running=len(self.world.hosting.running()), deadline_s=0.0 if resume else limit_s
        )

    async def stop(self, drain_s: float | None) -> replies.Stopping:
        """Begin to stop; the answer still goes out."""
        asyncio.get_running_loop().call_later(0.05, self.stop_node, drain_s)
        return replies.Stopping(pid=os.getpid(), node=self.identity.name, running=len(self.world.hosting.running()))

    def events(self, names: Sequence[str], project: str) -> AsyncGenerator[replies.EventRow, None]:
        """Yield events as they happen, for ever."""
        return self.watching.watch(names, project)

    async def show_config(self) -> replies.ConfigShown:
        """Return the configuration in force with the origin of every value."""
        settings = node_rows.settings(self.world.loaded)
        return replies.ConfigShown(revision=self.world.revision, files=self._files(), settings=settings)

    async def plan(self) -> replies.ConfigPlan:
        """Return what `reload` would do now."""
        loaded = await asyncio.to_thread(self.world.read)
        refuse_emptied(self.world.loaded, loaded)
        plan = await asyncio.to_thread(self.world.plan, loaded)
        return replies.ConfigPlan(ok=not plan.refused, changes=node_rows.change_rows(plan))

    async def revisions(self) -> Sequence[replies.Revision]:
        """Return the accepted configurations kept, newest first."""
        kept = await asyncio.to_thread(revisions.listed, self.layout.revisions)
        return [node_rows.revision_row(one, self.world.revision) for one in kept]

    async def rollback(self, number: int) -> replies.ReloadVerdict:
        """Put revision `number` into force."""
        return await self.reloader.rollback(number)

    async def plugins(self) -> replies.PluginList:
        """Return the types that can be configured and the slots that are."""
        rows = describe.rows(self.world.catalog)
        return replies.PluginList(
            plugins=[node_rows.plugin_row(row) for row in rows],
            slots=[node_rows.slot_row(slot) for slot in self.world.slots.everything()],
        )

    async def plugin(self, kind: str, type_name: str) -> replies.PluginInfo:
        """Return one type; an empty `kind` finds it in any."""
        for entry in self.world.catalog.entries():
            if entry.type == type_name and kind in ("", entry.kind):
                using = [slot for slot in self.world.slots.all(entry.kind) if slot.instance.entry.type == type_name]
                return node_rows.plugin_info(entry, using)
        hint = guess(type_name, (entry.type for entry in self.world.catalog.entries())) or "See `knotwork plugin list`."
        raise NotFound(f"There is no plugin type {type_name!r}.", code="plugin.not_found", hint=hint)

    async def restart_plugin(self, kind: str, instance: str) -> replies.Slot:
        """Stop and start one instance, out of quarantine too."""
        found = next(
            (slot for one in KINDS if one == kind for slot in self.world.slots.all(one) if slot.id == instance), None
        )
        if found is None:
            raise NotFound(
                f"There is no {kind}.{instance}.", code="plugin.no_such_instance", hint="See `knotwork status`."
            )
        await found.restarted(10.0)
        return node_rows.slot_row(found)

    def _bus(self) -> replies.BusStatus:
        table, server = self.world.loaded.config.nats, self.nats.server
        connection = self.projects.first_connection()
        return replies.BusStatus(
            mode=table.mode,
            url=server.url if server else (connection.endpoint.shown if connection else ", ".join(table.urls)),
            state=connection.state if connection else "connecting",
            durability=table.durability if server else "",
            reconnects=max(0, connection.reconnects) if connection else 0,
            server_pid=server.pid if server else None,
            server_restarts=server.restarts if server else 0,
            server_state=server.state if server else "",
        )

    def _files(self) -> list[str]:
        return [os.path.abspath(text.path) for text in self.world.loaded.texts]  # noqa: PTH100  links stay links


def _memory_bytes() -> int:
    """Return how much memory this process has."""
    import psutil  # only where somebody asks

    found: int = psutil.Process().memory_info().rss
    return found
