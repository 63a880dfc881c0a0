"""How are the rooms of a node wired together? Everything is made here once; `node` decides when it opens and closes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import knotwork
from knotwork.bus import child, clock
from knotwork.bus.background import together
from knotwork.bus.connection import open_connection
from knotwork.config import revisions
from knotwork.config import secrets as config_secrets
from knotwork.desk.events import Watching
from knotwork.host import contexts, garbage, heap, signals, workflow_files
from knotwork.host.control import Control
from knotwork.host.doors import open_nats_door
from knotwork.host.drain import Drain
from knotwork.host.memory_buckets import MemoryBuckets, connections
from knotwork.host.opening import Opening
from knotwork.host.project_rooms import Around, ProjectRooms, open_rooms
from knotwork.host.projects import Projects
from knotwork.host.pulse import Pulse
from knotwork.host.reload import Reloader
from knotwork.host.web_door import WebDoor
from knotwork.host.world import World
from knotwork.mesh.afar import Afar
from knotwork.mesh.hosting import Hosting
from knotwork.mesh.membership import Membership, join
from knotwork.mesh.policy import READY
from knotwork.mesh.records import NodeRecord
from knotwork.sdk.errors import ConfigInvalid, KnotworkError, Unavailable
from knotwork.sockets.blocking import Blocking
from knotwork.sockets.hosted import Hosting as PluginHosting
from knotwork.sockets.slots import Slots
from knotwork.spinup.records import LIVE
from knotwork.talk.post import Post
from knotwork.telemetry import scrape
from knotwork.telemetry.measure import Meter
from knotwork.view.keeper import Keeper

if TYPE_CHECKING:
    from pathlib import Path

    from knotwork.bus.connection import Connection
    from knotwork.bus.endpoint import Endpoint
    from knotwork.config.loaded import Loaded
    from knotwork.flow.room import Flow
    from knotwork.host.boot import Nats
    from knotwork.host.ground import Ground
    from knotwork.host.layout import Layout
    from knotwork.host.nodefile import NodeFile
    from knotwork.host.signals import Stopping
    from knotwork.mesh.identity import Identity
    from knotwork.mesh.policy import Policy
    from knotwork.sdk.secret import SecretRef
    from knotwork.sockets.catalog import Catalog
    from knotwork.sockets.slot import Slot
    from knotwork.telemetry.emitter import Emitter
    from knotwork.work.room import Work

log = logging.getLogger(__name__)
LEAVE_S = 5.0
LOOK_EVERY_S = 0.2
TELL_S = 2.0
"""How long sinks of telemetry may take to send what is queued when the node stops."""
LAUNCHES_S = 10.0
"""What ending launched agents may take beside their work."""


class Rooms:
    """A node's rooms. Background work runs in tasks of `group`."""

    def __init__(
        self, group: asyncio.TaskGroup, layout: Layout, who: Identity, stopping: Stopping, file: NodeFile, *,
        emitter: Emitter,
    ) -> None:  # fmt: skip
        """Make what needs neither NATS nor plugins; `file` tells local doors how we are."""
        self.group, self.layout, self.who, self.stopping, self.file = group, layout, who, stopping, file
        self.instance = secrets.token_hex(6)
        self.began = clock.steady_ns()
        self.emitter = emitter
        self.meter = Meter(self.emitter)
        self.hosting = Hosting(group, self.emitter, self.meter, node=who.name, policy=self._policy)
        self.drain = Drain(self.hosting, self.changed)
        self.works: dict[str, Work] = {}
        self.opened: dict[str, ProjectRooms] = {}
        self.keeper = Keeper()
        self.keeper.room = self._storage
        self.commons: Connection | None = None
        self.afar = Afar(who.name, self.instance)
        self._opening = Opening(lambda why: file.say("starting", why))
        self._blocking = Blocking(self._stuck)
        self._wired = False
        self._undescribed = asyncio.Event()
        group.create_task(self.emitter.run(), name="telemetry")
        group.create_task(self.meter.run(), name="metrics")
        group.create_task(self.keeper.run(), name="view")

    def wire(self, found: Loaded, catalog: Catalog, nats: Nats, ground: Ground, *, safe_mode: bool) -> None:
        """Make everything else; nothing is opened yet."""
        self.nats = nats
        own = nats.server is not None
        self.projects = Projects(self.group, self._endpoint, self._join, self._bus_state, ground, parted=own)
        context_for = contexts.maker(
            self.layout, self.who.name, self.emitter, self._connection, lambda: self.world.loaded.folder,
            buckets=MemoryBuckets(connections(self.projects, lambda: self.commons), self.group),
        )  # fmt: skip
        slots = Slots(self.group, context_for, self._slot_changed, hosting=PluginHosting(spawn=child.spawn))
        self.world = World(found, catalog, slots, self.hosting, self.emitter, on_commit=self.changed)
        self.stopping.caught.limit_s = lambda: signals.PATIENCE_S + self.world.loaded.config.node.drain_s
        self.reloader = Reloader(self.world, self.projects, nats, self.layout, self.group)
        self.reloader.launched = self._has_launched
        self.control = Control(
            self.who, self.layout, self.world, self.projects, nats, self.reloader, self.drain, Watching(self.emitter),
            safe_mode, self.stopping.stop, began=self.began, opened=self.opened, commons=lambda: self.commons,
        )  # fmt: skip
        self.around = Around(
            self.who.name, self.world, nats, self.hosting, self.emitter, self.keeper, self.layout.view, self.control,
            self._policy, self._secret, self._storage, lambda: self.commons, self.afar, Post(lambda: self.commons),
        )  # fmt: skip
        self.web = WebDoor(self.group, self.layout, self.world, self.control, self._metrics)
        self.pulse = Pulse(self.web.stand_in)
        self._wired = True

    # -- opening and closing -----------------------------------------------------------------------------------------

    async def open_plugins(self) -> None:
        """Start every plugin; one that cannot start yet is tried again later."""
        await asyncio.to_thread(self.file.say, "starting", "opening the plugins")
        self.group.create_task(asyncio.to_thread(self._opening.run), name="node file")
        self._blocking.begin()
        try:
            change = await self.world.prepare(self.world.loaded, first=True)
        finally:
            self._opening.over()
        change.commit()
        revision = await asyncio.to_thread(revisions.save, self.layout.revisions, self.world.loaded, time.time())
        self.world.revision = revision.number

    async def open_projects(self) -> None:
        """Join every project; returns when all are up, and raises when one is refused."""
        config = self.world.loaded.config
        telling = self.group.create_task(self._tell_connecting(), name="node file")
        try:
            await self.projects.start(config.project_names(), self.world.loaded, wait_s=None)
        finally:
            telling.cancel()
        self.group.create_task(self.afar.run(lambda: self.commons), name="agents of other projects")
        self.group.create_task(self.hosting.keep_alive(self._keepalive_s), name="signs of life")

    @asynccontextmanager
    async def open_commons(self, nats: Nats, found: Loaded) -> AsyncIterator[None]:
        """Connect to what all projects share, if we may, inside the block; nothing waits for it."""
        endpoint = await asyncio.to_thread(nats.commons, found, f"{self.who.name}/COMMONS")
        if endpoint is None:
            yield
            return

        async def anew() -> Endpoint:
            return await asyncio.to_thread(nats.commons, found, f"{self.who.name}/COMMONS") or endpoint

        async with open_connection(endpoint, on_state=self._commons_state, wait_first=False, anew=anew) as made:
            self.commons = made
            yield

    async def take_work(self) -> None:
        """Begin: work is taken, files are watched, local doors find us."""
        self.group.create_task(self.reloader.run(), name="reload")
        self.group.create_task(
            workflow_files.follow(self.who.name, self._workflows, self._first_flow, self.emitter), name="workflow files"
        )
        self.stopping.on_hangup(lambda: self.reloader.ask("signal"))
        self.drain.open()
        self.pulse.begin(asyncio.get_running_loop())
        await self._describe()
        self.group.create_task(self._keep_described(), name="node file")
        garbage.settle()
        self.group.create_task(heap.give_back(), name="free memory")
        self._say_ready()
        self.keeper.begin()  # only now: it would take from the start what others need
        self.emitter.event("node.ready", {"node": self.who.name, "version": knotwork.__version__})

    def _say_ready(self) -> None:
        """Tell people what they need to go on."""
        loaded = self.world.loaded
        files = ", ".join(str(text.path) for text in loaded.texts) or "none, defaults apply"
        agents = [(agent.record.name, agent.slot.state) for agent in self.hosting.agents()]
        names = ", ".join(name if state == "running" else f"{name} ({state})" for name, state in agents) or "none yet"
        log.info("knotwork %s, configuration: %s, data: %s", knotwork.__version__, files, self.layout.data_dir)
        log.info("NATS: %s, HTTP: %s, agents: %s", self.nats.url(loaded.config), self.control.http_url or "off", names)
        log.info("%s is ready; Ctrl-C stops it", self.who.name)

    async def close(self) -> None:
        """Finish work, tell the sinks, leave the projects, stop the plugins; in this order, each bounded."""
        self.drain.shut()  # before anybody is told: the disk may be slow
        self.reloader.close()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.file.say, "stopping")
        asked_s = self.stopping.drain_s
        drain_s = self.world.loaded.config.node.drain_s if asked_s is None else asked_s
        await together(self.drain.finish(drain_s, now=self.stopping.now), self._end_launches(drain_s))
        await self.web.leave()
        self.emitter.event("node.stopped", {"node": self.who.name})
        self.meter.flush()
        await self.emitter.close(TELL_S)  # and while there is NATS: one of them tells it
        await self.leave()
        await self.world.slots.close(0.0)
        self._blocking.end()
        self.pulse.end()
        self.stopping.caught.end_within(LEAVE_S)  # nothing is left to be finished: only what does not end by itself

    async def _end_launches(self, drain_s: float) -> None:
        """End, gracefully unless it is to be now, the agents that our targets started and that would be killed with us."""
        now = self.group.create_task(self.stopping.now.wait())
        leaving = self.group.create_task(together(*(one.spinups.leave(drain_s) for one in self.opened.values())))
        try:
            await asyncio.wait((now, leaving), timeout=drain_s + LAUNCHES_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            now.cancel()
            leaving.cancel()

    def _has_launched(self, project: str) -> bool:
        rooms = self.opened.get(project)
        launches = rooms.spinups.registry.launches.values() if rooms is not None else ()
        return any(one.node == self.who.name and one.state in LIVE for one in launches)

    async def leave(self) -> None:
        """Leave the projects while there is NATS; for a start that fails, too, and nothing when that is done already."""
        if self._wired:
            await self.projects.stop([project.name for project in self.projects.all()])

    # -- what happens while it runs ----------------------------------------------------------------------------------

    def changed(self) -> None:
        """Tell everybody that our agents, our state or our configuration are different."""
        if not self._wired:
            return
        for membership in self.projects.memberships():
            membership.changed()
        for work in self.works.values():
            work.changed()
        self.web.changed()
        self._undescribed.set()

    async def _describe(self) -> None:
        """Let local doors find us as we are now. A file that cannot be written is logged and harms nobody else."""
        try:
            await asyncio.to_thread(self.file.ready, self.nats, self.world.loaded, self.control.http_url)
        except (KnotworkError, OSError) as error:
            log.error("local doors cannot be told where we are: %s", error)  # noqa: TRY400  nothing for a traceback

    async def _tell_connecting(self) -> None:
        """Let local doors know what we wait for, until cancelled."""
        while True:
            told = [f"project {one.name}: {one.trouble}" for one in self.projects.all() if one.trouble is not None]
            why = next(iter(told), f"to NATS at {self.nats.url(self.world.loaded.config)}")
            with contextlib.suppress(OSError):  # a full disk is no reason to stop connecting
                await asyncio.to_thread(self.file.say, "connecting", why)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _keep_described(self) -> None:
        while True:
            await self._undescribed.wait()
            self._undescribed.clear()
            if self.drain.state in ("running", "draining"):
                await self._describe()

    def _connection(self, project: str) -> Connection:
        """Return the connection of a project, the first one's for no name; raises `NotFound`, `Unavailable`."""
        if project:
            return self.projects.get(project).connection
        first = self.projects.first_connection()
        if first is None:
            raise Unavailable("The node is not connected yet.", code="bus.disconnected", retry_after_s=1.0)
        return first

    def _storage(self) -> tuple[int, int]:
        """Return what all projects use of our own server's store, and its size; 0 for that of a server we joined."""
        used_bytes = sum(work.submitter.storage.used_bytes for work in self.works.values())
        return used_bytes, self.nats.server.settings.max_file_store if self.nats.server is not None else 0

    def _workflows(self) -> Path | None:
        """Return the folder of workflows, None when none is to be looked at."""
        loaded = self.world.loaded
        wanted = loaded.config.workflows.folder
        return loaded.folder / wanted if wanted else None

    def _first_flow(self) -> Flow | None:
        rooms = self.opened.get(self.world.loaded.config.project_names()[0])
        return rooms.flow if rooms is not None else None

    def _endpoint(self, found: Loaded, project: str) -> Endpoint:
        return self.nats.endpoint(found, project, f"{self.who.name}/{project}")

    @asynccontextmanager
    async def _join(self, project: str, connection: Connection) -> AsyncIterator[Membership]:
        """Be a member of a project and answer its ops."""
        membership = Membership(
            project,
            connection,
            self.hosting,
            routers=self.world.routers,
            emitter=self.emitter,
            record=self._record,
            policy=self._policy,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(join(membership))
            self.opened[project] = await stack.enter_async_context(open_rooms(self.around, membership, self.works))
            stack.callback(self.opened.pop, project)
            await stack.enter_async_context(open_nats_door(connection, self.control, project, self.who.name))
            yield membership

    def _secret(self, reference: SecretRef) -> str:
        """Return the value behind a reference; may wait."""
        return config_secrets.resolve(reference, folder=self.world.loaded.folder)

    def _policy(self) -> Policy:
        return self.world.policy if self._wired else READY

    def _keepalive_s(self) -> float:
        return self.world.loaded.config.mesh.keepalive_s

    def _record(self, project: str) -> NodeRecord:
        work = self.works.get(project)
        config = self.world.loaded.config
        return NodeRecord(
            node=self.who.name,
            uid=self.who.uid,
            instance=self.instance,
            started_ns=clock.at(self.began),
            heartbeat_s=config.mesh.heartbeat_s,
            stale_beats=config.mesh.stale_beats,
            offline_beats=config.mesh.offline_beats,
            state="online" if self.drain.state in ("running", "starting") else "draining",
            version=knotwork.__version__,
            owner=self.control.owner() if self._wired else "",
            host=platform.node(),
            keepalive_s=config.mesh.keepalive_s,
            labels=dict(config.node.labels),
            agents=(*self.world.visible(project), *(work.attached.records() if work is not None else ())),
            away=self.world.away(project),
        )

    def _bus_state(self, project: str, state: str) -> None:
        log.log(logging.INFO if state in ("connected", "closed") else logging.WARNING, "NATS, %s: %s", project, state)
        self.emitter.event("bus.state", {"project": project, "state": state}, project=project)
        up = self.meter.gauge("knotwork_bus_up", "Whether the project is connected to NATS.", project=project)
        up.value = float(state == "connected")
        if state == "closed":
            self.meter.forget("knotwork_bus_up", project=project)

    def _commons_state(self, state: str) -> None:
        """Tell how the connection to COMMONS is: of the node as a whole, for it is no project's."""
        log.log(logging.INFO if state in ("connected", "closed") else logging.WARNING, "NATS, COMMONS: %s", state)
        self.emitter.event("bus.state", {"account": "COMMONS", "state": state})

    def _slot_changed(self, slot: Slot) -> None:
        self._opening.changed(slot)
        self._blocking.changed(slot)
        if self.world.slots.get(slot.kind, slot.id) is not slot:
            return  # being prepared, or replaced already
        if slot.state in ("waiting", "failed", "quarantined"):
            log.warning("%s.%s is %s: %s", slot.kind, slot.id, slot.state, config_secrets.redact(slot.why))
        self.emitter.event("plugin.state", {"kind": slot.kind, "id": slot.id, "state": slot.state, "why": slot.why})
        self.world.sync_sinks()
        self.changed()

    def _stuck(self, slot: Slot, why: str) -> None:
        """Say that a plugin cannot be interrupted; a start ends with that, for nothing else can come of it."""
        log.critical("%s.%s cannot be interrupted: %s", slot.kind, slot.id, config_secrets.redact(why))
        if self.drain.state == "starting":
            log.critical("the start is given up: take %s.%s out, or start with --safe-mode", slot.kind, slot.id)
            logging.shutdown()
            os._exit(ConfigInvalid.exit_code)

    async def _metrics(self) -> tuple[str, bytes]:
        return await scrape.scrape(self.emitter, self.meter)
