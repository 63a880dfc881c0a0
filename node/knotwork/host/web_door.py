"""How does a node open its HTTP door? When it is wanted; what it is made of is loaded early, and in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.mcp.http import HttpDoor

if TYPE_CHECKING:
    from knotwork.host.control import Control
    from knotwork.host.layout import Layout
    from knotwork.host.world import World
    from knotwork.web.serve import Web


class WebDoor:
    """The HTTP door of one node."""

    def __init__(
        self, group: asyncio.TaskGroup, layout: Layout, world: World, control: Control,
        metrics: Callable[[], Awaitable[tuple[str, bytes]]],
    ) -> None:  # fmt: skip
        """Answer by `control`; nothing is opened, or loaded, yet."""
        self._group, self._layout, self._world, self._control, self._metrics = group, layout, world, control, metrics
        self._loads: asyncio.Task[None] | None = None
        self._web: Web | None = None

    def load(self) -> None:
        """Begin to load what it is made of, when it is wanted: while others wait for NATS."""
        if self._world.loaded.config.web.enabled:
            self._loads = self._group.create_task(asyncio.to_thread(_load), name="web")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be open inside the block, when it is wanted."""
        table = self._world.loaded.config.web
        if not table.enabled:
            yield
            return
        if self._loads is not None:
            await self._loads
        from knotwork.web import serve  # 100 ms that a node without a web door need not spend

        settings = serve.WebSettings(
            self._layout.http_token(), table.host, table.port, table.allowed_hosts, table.allowed_origins,
            self._layout.http_port_file,
        )  # fmt: skip
        agents = HttpDoor(self._control, self._control.held, self._group, self._first_project)
        async with serve.run_web(settings, self._control, self._metrics, self._first_project, agents) as web:
            self._web, self._control.http_url = web, web.url
            yield
            self._web = None

    def changed(self) -> None:
        """Let in whom the configuration names now."""
        if self._web is not None:
            table = self._world.loaded.config.web
            self._web.allow(table.allowed_hosts, table.allowed_origins)

    def stand_in(self, turned: threading.Event, held_s: Callable[[], float]) -> None:
        """Answer what cannot wait until the loop has `turned`; called in a thread."""
        web = self._web
        if web is not None:
            web.standby.stand_in(turned, held_s)

    async def leave(self) -> None:
        """Answer whoever still waits that the node stops, and everybody who comes."""
        if self._web is not None:
            await self._web.leave()

    def _first_project(self) -> str:
        return self._world.loaded.config.project_names()[0]


def _load() -> None:
    import knotwork.web.serve  # noqa: F401  only loaded
