"""Which streams and buckets does a project have? All of them are asked for at once, so that no room waits for its own.

Each room makes sure of what is its own again when it opens, and says what is wrong then: a server that makes them one
after the other, each with a sync to disk, takes three times as long. Nothing depends on what is done here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from knotwork.bus import blobs, kv, streams, subjects
from knotwork.bus.connection import open_connection
from knotwork.flow import events, history, shards
from knotwork.flow.history import Keeps
from knotwork.mesh import presence
from knotwork.sdk.errors import KnotworkError
from knotwork.talk import stores as talk_stores
from knotwork.trigger import firings
from knotwork.work import stores as work_stores

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.streams import StreamSpec
    from knotwork.config.loaded import Loaded
    from knotwork.config.model import Config
    from knotwork.host.boot import Nats

log = logging.getLogger(__name__)
AHEAD_MAX_S = 10.0


def keeps(config: Config) -> Keeps:
    """Return how much is kept of runs that are over."""
    return Keeps(config.workflows.keep_s, config.workflows.keep_max)


def of(config: Config) -> tuple[StreamSpec, ...]:
    """Return everything that a project has from its first moment on, in the shape that its room gives it."""
    plain = (
        subjects.SETTINGS, subjects.AGENTS, subjects.CHANNELS, subjects.READS, subjects.CREW, subjects.CREW_CHECKPOINTS,
        subjects.DEFS, subjects.LIMITS, subjects.TRIGGERS, subjects.DELIVERIES, subjects.TARGETS, subjects.CHECKPOINTS,
    )  # fmt: skip
    return (
        streams.telemetry_stream(),
        *work_stores.ALL,
        blobs.SPEC,
        events.EVENTS,
        history.stream(keeps(config)),
        firings.STREAM,
        firings.COUNTS,
        talk_stores.TALK,
        talk_stores.INBOXES,
        kv.spec(subjects.NODES, **presence.SHAPE),
        kv.spec(subjects.ENGINES, **shards.SHAPE),
        kv.spec(subjects.MEMORY, allow_atomic=True),
        kv.spec(subjects.LEASES, allow_atomic=True),
        *map(kv.spec, plain),
    )


class Ground:
    """What was begun before the projects are opened: while the node still loads itself, its server is idle."""

    def __init__(self) -> None:
        """Have begun nothing."""
        self._begun: dict[str, asyncio.Task[None]] = {}

    def begin(self, group: asyncio.TaskGroup, nats: Nats, found: Loaded, node: str) -> None:
        """Begin with every project of our own server, each over a short connection of its own."""
        for project in found.config.project_names() if nats.server is not None else ():
            self._begun[project] = group.create_task(_ahead(nats, found, project, node), name=f"ground of {project}")

    async def lay(self, project: str, connection: Connection, config: Config) -> None:
        """Return when everything that a project has was asked for, over `connection` unless that was begun already."""
        begun = self._begun.pop(project, None)
        if begun is not None:
            await asyncio.wait([begun])
        else:
            await _lay(connection, config)


async def _ahead(nats: Nats, found: Loaded, project: str, node: str) -> None:
    try:
        endpoint = await asyncio.to_thread(nats.endpoint, found, project, f"{node}/{project}")
        async with asyncio.timeout(AHEAD_MAX_S), open_connection(endpoint) as connection:
            await _lay(connection, found.config)
    except (KnotworkError, OSError) as error:
        log.debug("project %s makes its streams itself: %s", project, error)


async def _lay(connection: Connection, config: Config) -> None:
    """Make sure of all of them, side by side; what cannot be had is left to the room that needs it."""
    async with asyncio.TaskGroup() as group:
        for spec in of(config):
            group.create_task(_made(connection, spec))


async def _made(connection: Connection, spec: StreamSpec) -> None:
    try:
        await streams.ensure(connection, spec)
    except KnotworkError as error:
        log.debug("stream %s is left to its room: %s", spec.name, error)
