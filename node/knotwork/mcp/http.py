"""How do clients come in by HTTP? At `/mcp`, by the SDK, in both revisions; loaded at the first request.

The guard of the HTTP door stands before it: the token, the names of hosts and origins. What a client may do here is
what an agent may do over `knotwork mcp`; each session is an agent of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from knotwork.mcp import labels
from knotwork.mcp.hanging_up import LEFT, Left
from knotwork.mcp.held import Held
from knotwork.ops.words import TOKEN
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from knotwork.mcp.guests import Door, Guests
    from knotwork.ops.ports import NodeControl

BODY_MAX_BYTES = 8 * 1024 * 1024
_token = re.compile(rf"\A{TOKEN}\Z").match


class HttpDoor:
    """The ASGI application at `/mcp`."""

    def __init__(
        self, node: NodeControl, held: Held, group: asyncio.TaskGroup, default_project: Callable[[], str]
    ) -> None:
        """Open nothing before somebody comes; sessions are held open in tasks of `group`."""
        self._node, self._held, self._group, self._default_project = node, held, group, default_project
        self._opening = asyncio.Lock()
        self._handle: Any = None
        self._guests: Guests | None = None
        self._end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._handle is None:
            async with self._opening:
                if self._handle is None:
                    await self._open()
        session = _header(scope, b"mcp-session-id")
        left = scope[LEFT] = Left()

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                left.tell()
            return message

        await self._handle(scope, heard, send)
        if scope["method"] == "DELETE" and session and self._guests is not None:
            self._guests.left(session)

    async def _open(self) -> None:
        """Load the SDK and begin to serve, until the node ends."""
        await asyncio.to_thread(_load)
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from knotwork.mcp.guests import Guests
        from knotwork.mcp.server import Served

        self._guests = Guests(self._node, self._held, self._group)
        served = Served(self._node, self._held, self._guests, self.door_of)
        manager = StreamableHTTPSessionManager(served.server(), max_request_body_size=BODY_MAX_BYTES)
        ready = asyncio.Event()

        async def run() -> None:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(manager.run())
                ready.set()
                await self._end.wait()

        self._group.create_task(run(), name="mcp")
        await ready.wait()
        self._handle = manager.handle_request

    def project(self, scope: Scope) -> str:
        """Return the project a request is about; raises `Invalid` (`web.bad_project`)."""
        named = _header(scope, b"knotwork-project") or self._default_project()
        if not _token(named):
            raise Invalid(
                f"{named[:64]!r} is no project name.", code="web.bad_project",
                hint="The header Knotwork-Project names a project of the configuration; without it it is the first.",
            )  # fmt: skip
        return named

    def door_of(self, request: Any, client: str) -> Door:
        """Return how a client came in; raises `Invalid` (`mcp.bad_label`)."""
        from knotwork.mcp.guests import Door  # loaded by now

        label = request.query_params.get("session", "")
        if label and not _token(label):
            raise Invalid(
                f"{label[:64]!r} is no label of a session.", code="mcp.bad_label",
                hint="Use lower-case letters, digits, - and _ for `session` in the address, or leave it out.",
            )  # fmt: skip
        session = request.headers.get("mcp-session-id", "")
        name = client[:200] or "agent"
        key = f"{labels.token_of(name)}/{label}" if label else session or f"{name}/"
        parent = request.headers.get("knotwork-parent", "")
        return Door(self.project(request.scope), name, key + parent, label, session, parent)


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _load() -> None:
    """Import what takes half a second, in a thread: the loop goes on meanwhile."""
    importlib.import_module("mcp.server.streamable_http_manager")
    importlib.import_module("knotwork.mcp.server")
