"""How do programs in any language do durable work? Three routes under `/v1`, each of which is a call of an op.

`connect` is `work.connect` as server-sent events, `poll` is `work.claim`, and `resolve` is whichever op its `action`
means, about the task in the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from knotwork.bus import codec
from knotwork.ops import serve
from knotwork.ops.listed import LISTED
from knotwork.ops.ports import NodeControl
from knotwork.sdk.errors import Invalid
from knotwork.web.routes import OpEndpoint, fields_of

ACTIONS = {
    "complete": "work.complete",
    "fail": "work.fail",
    "retry": "work.fail",
    "continue": "work.continue",
    "checkpoint": "work.checkpoint",
    "heartbeat": "work.extend",
    "progress": "work.progress",
    "stream": "work.stream",
    "release": "work.release",
    "signal": "work.signal",
    "wait_signal": "work.wait_signal",
}
RETRY = {"retriable": True, "message": "The worker asked for another attempt."}
CONNECT, POLL, RESOLVE = "/v1/workers/connect", "/v1/tasks/poll", "/v1/tasks/{id}/resolve"


def routes(node: NodeControl, default_project: Callable[[], str]) -> list[Route]:
    """Return the three routes."""
    return [
        Route(CONNECT, Connect(LISTED["work.connect"], node, default_project), methods=["POST"]),
        Route(POLL, OpEndpoint(LISTED["work.claim"], node, default_project), methods=["POST"]),
        Route(RESOLVE, Resolve(LISTED["work.complete"], node, default_project), methods=["POST"]),
    ]


class Connect(OpEndpoint):
    """The line to a worker: what it is told has a name of its own, and silence has a heartbeat."""

    def streams(self, request: Request) -> bool:  # noqa: ARG002  there is no other way to answer
        """Return True."""
        return True

    def event(self, frame: serve.Frame) -> tuple[bytes, bytes]:
        """Return what a worker is told under the name of what happened."""
        if frame.kind != "chunk":
            return frame.kind.encode(), frame.data
        told = codec.decode(frame.data)["data"]
        return str(told.pop("event")).encode(), codec.encode(told)

    def sign_of_life(self) -> bytes:
        """Return a heartbeat."""
        return b"event: heartbeat\ndata: {}\n\n"


class Resolve(OpEndpoint):
    """What a worker says about one task."""

    async def asked(self, request: Request) -> tuple[str, bytes]:
        """Return the op that the action means, and its request; raises `Invalid` (`web.bad_action`) for no action."""
        raw = await fields_of(request)
        fields: Any = codec.decode(raw)
        action = fields.pop("action", None) if isinstance(fields, dict) else None
        if not isinstance(action, str) or action not in ACTIONS:
            raise Invalid(
                "The body must be a JSON object with an action.",
                code="web.bad_action",
                hint=f"Actions are {', '.join(ACTIONS)}.",
            )
        if action == "retry":
            fields = {**RETRY, **fields}
        return ACTIONS[action], codec.encode({**fields, "id": request.path_params["id"]})
