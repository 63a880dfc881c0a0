"""Which rooms does one project have on this node? All of them are opened here, in order, and closed in reverse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.bus.background import background
from knotwork.crew.room import Crew, open_crew
from knotwork.desk.feed import Feed, open_feed
from knotwork.flow.room import Flow, open_flow
from knotwork.host import ground
from knotwork.host.attending import Attending
from knotwork.host.capacity import open_capacity
from knotwork.host.memory_around import MemoryAround
from knotwork.host.session_book import SessionBook
from knotwork.memory.remembering import Remembering, open_remembering
from knotwork.mesh import known_nodes
from knotwork.mesh.sessions import Sessions, open_sessions
from knotwork.spinup.room import SpinUps
from knotwork.talk.room import Talk, open_talk
from knotwork.trigger.room import Triggers, open_triggers
from knotwork.trust.who import Who
from knotwork.view.room import View, open_view
from knotwork.work.gate import Gate
from knotwork.work.room import Work, open_work

if TYPE_CHECKING:
    from pathlib import Path

    from knotwork.bus.connection import Connection
    from knotwork.crew.records import Record
    from knotwork.host.boot import Nats
    from knotwork.host.world import World
    from knotwork.mesh.afar import Afar
    from knotwork.mesh.hosting import Hosting
    from knotwork.mesh.membership import Membership
    from knotwork.mesh.policy import Policy
    from knotwork.ops.ports import NodeControl
    from knotwork.sdk.secret import SecretRef
    from knotwork.talk.post import Post
    from knotwork.telemetry.emitter import Emitter
    from knotwork.view.keeper import Keeper


@dataclass(frozen=True, slots=True)
class Around:
    """What the rooms of every project are given by the node."""

    node: str
    world: World
    nats: Nats
    hosting: Hosting
    emitter: Emitter
    keeper: Keeper
    view_file: Path
    control: NodeControl
    policy: Callable[[], Policy]
    secret: Callable[[SecretRef], str]
    storage: Callable[[], tuple[int, int]]
    """Used and whole size in bytes of what all projects share."""
    commons: Callable[[], Connection | None]
    """The connection to what all projects share; None at a NATS that gives us no credentials for it."""
    afar: Afar
    """The agents that are seen from other projects than their own."""
    post: Post
    """What is said from one project to another."""


@dataclass(frozen=True, slots=True)
class ProjectRooms:
    """The open rooms of one project."""

    work: Work
    view: View
    spinups: SpinUps
    flow: Flow
    triggers: Triggers
    crew: Crew
    sessions: Sessions
    talk: Talk
    memory: Remembering
    feed: Feed


@asynccontextmanager
async def open_rooms(around: Around, membership: Membership, works: dict[str, Work]) -> AsyncIterator[ProjectRooms]:
    """Open everything a project has; its work is put into `works` as soon as it is there, for our own record."""
    project, connection = membership.project, membership.connection
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        work = works[project] = await enter(
            open_work(
                connection, around.hosting, project=project, node=around.node, agents=membership.agents,
                lease_s=around.world.loaded.config.work.lease_s, membership=membership, gate=Gate(waits=True),
            )
        )  # fmt: skip
        stack.callback(works.pop, project)
        work.submitter.full = lambda: around.nats.server is not None and around.nats.server.full
        work.submitter.storage.shared = around.storage
        work.attached.changed = membership.changed
        view = await enter(open_view(around.keeper, around.view_file, project, connection))
        work.past, work.proofs.leads = view.has_ended, view.leads_to
        view.holds = work.holding.now
        spinups = await enter(
            open_capacity(around.world, membership, work, around.emitter, around.policy, nats=around.nats)
        )
        flow = await enter(
            open_flow(connection, work, node=around.node, keeps=lambda: ground.keeps(around.world.loaded.config))
        )
        triggers = await enter(
            open_triggers(
                connection, work, flow, node=around.node, read=around.secret,
                sources=lambda: around.world.triggers(project),
                said=lambda name, told: around.emitter.event(name, told, level="warning", project=project),
            )
        )  # fmt: skip
        group = await enter(background())
        instance = membership.instance
        sessions = await enter(
            open_sessions(connection, membership.directory, project=project, node=around.node, instance=instance)
        )
        sessions.afar = around.afar
        attending = Attending(sessions, work, group)
        stack.callback(attending.leave)
        work.meant.hides = lambda agent, asker: sessions.hides(agent, Who(asker.id, "", project, asker.owner))
        crew = await enter(
            open_crew(
                flow, work.values, around.view_file.parent / "crew", node=around.node,
                told=lambda record: _phase(around, sessions, record),
            )
        )  # fmt: skip
        work.gate.is_held = crew.is_held
        book = SessionBook(sessions, lambda: around.control.who(project, "").owner)
        post = around.post if around.commons() is not None else None
        talking = open_talk(connection, book, project=project, folder=around.view_file.parent / "talk", post=post)
        talk = await enter(talking)
        data = around.view_file.parent
        remembering = open_remembering(
            project, MemoryAround(around.world, data / "exports"), node=around.node,
            index=data / "memory" / f"{project}.db", common=lambda: around.commons() is not None,
        )  # fmt: skip
        memory = await enter(remembering)
        feed = await enter(open_feed(project, connection, around.control))
        await known_nodes.remember(connection, around.node)
        yield ProjectRooms(work, view, spinups, flow, triggers, crew, sessions, talk, memory, feed)


def _phase(around: Around, sessions: Sessions, record: Record) -> None:
    """Tell that an orchestration is in another phase: whoever wanted and spawned it, and those who look at events.

    Everybody may look at events, so nothing stands there of what not everybody in the project may see.
    """
    if record.scope in ("team", "public"):
        told = {"id": record.id, "phase": record.phase, "by": record.by.name}
        around.emitter.event("crew.phase", told, project=sessions.project)
    for agent in {record.by.id, record.spawner.id} - {""}:
        sessions.tell(agent, {"event": "orchestration", "id": record.id, "phase": record.phase})
