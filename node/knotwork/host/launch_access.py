"""Who lets the agents in that targets start, and out again? A key for each launch of one project, taken back at its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from knotwork.bus.background import begin_in
from knotwork.host import launch_keys
from knotwork.sdk.errors import KnotworkError
from knotwork.spinup.records import LIVE

if TYPE_CHECKING:
    from collections.abc import Collection

    from knotwork.host.boot import Nats
    from knotwork.spinup.records import Launch
    from knotwork.spinup.registry import Registry

log = logging.getLogger(__name__)


class LaunchAccess:
    """The keys of one project's launches."""

    def __init__(self, group: asyncio.TaskGroup, nats: Nats, project: str) -> None:
        """Take keys back in tasks of `group`."""
        self._group, self._nats, self._project = group, nats, project

    async def seed(self, launch: Launch) -> str:
        """Return the seed of a launch's own key; "" where we cannot make one. Raises what the server says against it."""
        return await self._nats.admit(self._project, launch.id)

    def changed(self, launch: Launch) -> None:
        """Take note of a launch's new state."""
        if launch.state not in LIVE:
            begin_in(self._group, self._dismiss({launch.id}))

    async def tidy(self, registry: Registry) -> None:
        """Take back the keys of launches whose end we did not see to the end ourselves."""
        await registry.current.wait()
        known = await asyncio.to_thread(
            launch_keys.known, self._nats.layout, self._project
        )  # before: what begins now stays
        kept = {launch.id for launch in registry.launches.values() if launch.state in LIVE}
        if gone := known - kept:
            await self._dismiss(gone)

    async def _dismiss(self, launches: Collection[str]) -> None:
        try:
            await self._nats.dismiss(self._project, launches)
        except (
            KnotworkError,
            OSError,
        ) as error:  # the next change of the server's users takes it along, or the next start
            log.warning("launches that are over may connect a little longer: %s", error)
