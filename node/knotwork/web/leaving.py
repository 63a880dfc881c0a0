"""What becomes of those who still wait when the node stops? Each is answered that it stops, and none by a torn link.

What is under way is ended only when the node has finished its calls: they are answered by themselves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pydantic_core

from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Unavailable
from knotwork.web import problem
from knotwork.web.guard import OPEN_PATHS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE_S = 0.1
"""For what is about to be answered, such as the very request to stop."""
END_S = 1.0
EVENTS = b"text/event-stream"
AGENTS_PATH = "/mcp"


class Leaving:
    """ASGI middleware that knows what is being answered."""

    def __init__(self) -> None:
        """Answer nothing yet."""
        self._app: ASGIApp | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self.begun = False

    def before(self, app: ASGIApp) -> ASGIApp:
        """Stand before `app`, and return what is to be asked instead."""
        self._app = app
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, unless we are leaving."""
        if self.begun and scope["path"] not in OPEN_PATHS:
            await problem.response(_stopping())(scope, receive, send)
            return
        started: list[Message] = []

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
            await send(message)

        task = asyncio.current_task()
        assert task is not None
        assert self._app is not None
        self._answering.add(task)
        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if not self.begun:
                raise
            task.uncancel()
            if not started:
                await problem.response(_stopping())(scope, receive, send)
            else:
                await _end(started[0], send, told=scope["path"] != AGENTS_PATH)
        finally:
            self._answering.discard(task)
            if not self._answering:
                self._done.set()

    async def leave(self) -> None:
        """Answer whoever waits, and from now on everybody who asks; returns when they are told."""
        self.begun = True
        if await self._empty(PATIENCE_S):
            return
        for task in self._answering:
            task.cancel()
        await self._empty(END_S)

    async def _empty(self, timeout_s: float) -> bool:
        """Return whether all that was under way is answered, after `timeout_s` seconds at most."""
        self._done.clear()
        return not self._answering or await set_within(self._done, timeout_s)


async def _end(start: Message, send: Send, *, told: bool) -> None:
    """End an answer that has begun; a stream of events says why, when that is `told` there."""
    if told and dict(start["headers"]).get(b"content-type", b"").startswith(EVENTS):
        data = pydantic_core.to_json(_stopping().to_wire())
        body = b"event: error\ndata: " + data + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _stopping() -> Unavailable:
    return Unavailable(
        "The node is stopping.", code="node.stopping", hint="Ask again when it is back, or another node.",
        retry_after_s=1.0,
    )  # fmt: skip
