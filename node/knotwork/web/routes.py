"""How does an HTTP request become a call of an op, and its frames a response?

`POST /api/<room>/<verb>` takes JSON; read ops also answer `GET` with query parameters, and then with an ETag (paths named
after things are in `resources`). A streaming op answers with
server-sent events (event name = frame kind) when asked by `Accept: text/event-stream`, else with its result alone; a
request that is wrong in itself has a status of its own before the first event.
When the caller goes away the op's generator is closed, which cancels the work.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from knotwork.bus import codec
from knotwork.bus.frames import LAST
from knotwork.bus.request_size import REQUEST_MAX_BYTES, too_large
from knotwork.ops import serve
from knotwork.ops.form import Row
from knotwork.ops.listed import LISTED
from knotwork.ops.op import Caller, Op
from knotwork.ops.op import Request as Asked
from knotwork.ops.ports import NodeControl
from knotwork.ops.words import TOKEN
from knotwork.sdk.errors import Invalid, KnotworkError, TimedOut
from knotwork.web import etag, problem

BODY_TIMEOUT_S = 30.0
KEEPALIVE_S = 15.0
EVENT_STREAM = "text/event-stream"
READING = frozenset({"GET", "HEAD"})
_project = re.compile(rf"\A{TOKEN}\Z").match
_traceparent = re.compile(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z").match


class Place(Route):
    """A path that belongs to one route alone: a wrong method is refused, and asked of no pattern that fits, too."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return a full match whatever the method; `handle` refuses those that are not allowed."""
        match, found = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), found


def api(node: NodeControl, default_project: Callable[[], str]) -> list[Route]:
    """Return one route for each op there is."""
    return [
        Place(f"/api/{op.name.replace('.', '/')}", OpEndpoint(op, node, default_project), methods=methods(op))
        for op in LISTED.values()
    ]


def methods(op: Row | Op) -> list[str]:
    """Return the HTTP methods of an op."""
    return ["GET", "POST"] if op.effect == "read" else ["POST"]


class OpEndpoint:
    """The ASGI application of one op."""

    def __init__(self, op: Row, node: NodeControl, default_project: Callable[[], str]) -> None:
        """Serve `op` of `node`."""
        self._op = op
        self._node = node
        self._default_project = default_project

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        streaming = self.streams(request)
        try:
            if self._op.live and not streaming:
                raise Invalid(
                    f"{self._op.name} has no end to wait for.",
                    code="web.stream_only",
                    hint=f"Send Accept: {EVENT_STREAM}.",
                )
            caller = self._caller(request)
            name, raw = await self.asked(request)
        except KnotworkError as error:
            await problem.response(error)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        asked: bytes | Asked = raw
        if streaming:  # once the events have begun there is no status to tell it by
            try:
                asked = serve.admitted(serve.find(name), raw, caller)
            except KnotworkError as error:
                await _problem(serve.failed(error), request)(scope, receive, send)
                return
        frames = serve.dispatch(name, asked, caller, self._node)
        answering = self._stream(frames, caller, send) if streaming else self._single(frames, caller, request, send)
        await until_gone(receive, answering)
        caller.take_back()

    def streams(self, request: Request) -> bool:
        """Return whether the answer is a stream of events."""
        return self._op.streams and EVENT_STREAM in request.headers.get("accept", "")

    async def asked(self, request: Request) -> tuple[str, bytes]:
        """Return the op that is asked, and its request as JSON text; raises what is wrong with it."""
        if request.method in READING:
            return self._op.name, codec.encode(from_query(self._op, request.query_params))
        return self._op.name, await fields_of(request)

    def answer(self, request: Request, data: bytes) -> Response:
        """Return the response that carries a result."""
        return etag.answer(request, data) if request.method in READING else Response(data, media_type=etag.JSON)

    def event(self, frame: serve.Frame) -> tuple[bytes, bytes]:
        """Return the name and the data of the event that stands for a frame; a name may be followed by more lines."""
        return frame.kind.encode(), frame.data

    def sign_of_life(self) -> bytes:
        """Return what is sent when nothing was for a while."""
        return b": still here\n\n"

    def _caller(self, request: Request) -> Caller:
        project = request.headers.get("knotwork-project") or self._default_project()
        if not _project(project):
            hint = "Knotwork-Project names one of the projects of the configuration; leave it out for the first."
            raise Invalid(f"{project[:64]!r} is no project name.", code="web.bad_project", hint=hint)
        traceparent = request.headers.get("traceparent", "")
        session = request.headers.get("knotwork-session", "")[:128]
        return Caller(
            name="local",
            project=project,
            door="http",
            may="write" if session else "admin",
            who=self._node.who(project, session),
            traceparent=traceparent if _traceparent(traceparent) else "",
        )

    async def _single(
        self, frames: AsyncGenerator[serve.Frame, None], caller: Caller, request: Request, send: Send
    ) -> None:
        async with aclosing(frames):
            async for frame in frames:
                await _still_there()
                if frame.kind == "error":
                    await _problem(frame, request)(request.scope, request.receive, send)
                elif frame.kind == "result":
                    try:
                        made = self.answer(request, frame.data)
                    except KnotworkError as error:
                        await problem.response(error)(request.scope, request.receive, send)
                    else:
                        await made(request.scope, request.receive, send)
                        caller.received()

    async def _stream(self, frames: AsyncGenerator[serve.Frame, None], caller: Caller, send: Send) -> None:
        headers = [
            (b"content-type", EVENT_STREAM.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
        ]  # fmt: skip
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})

        async def keep_alive() -> None:
            while True:
                await asyncio.sleep(KEEPALIVE_S)
                await send({"type": "http.response.body", "body": self.sign_of_life(), "more_body": True})

        async with asyncio.TaskGroup() as group:
            alive = group.create_task(keep_alive())
            async with aclosing(frames):
                async for frame in frames:
                    name, data = self.event(frame)
                    # JSON has no raw line breaks, so one data line is enough
                    body = b"event: " + name + b"\ndata: " + data + b"\n\n"
                    await _still_there()
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    if frame.kind in LAST:  # he may leave now: he has all that he asked for
                        caller.received()
            alive.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _problem(frame: serve.Frame, request: Request) -> Response:
    """Return the response for an error frame: our own command line is told by commands, programs by routes."""
    return problem.from_frame(frame.data, shell=EVENT_STREAM in request.headers.get("accept", ""))


async def body_of(request: Request, max_bytes: int = REQUEST_MAX_BYTES) -> bytes:
    """Return the body; raises `TooLarge` as soon as it is clear, `TimedOut` when the sender dawdles, `Invalid` when packed."""
    packed = request.headers.get("content-encoding", "identity")
    if packed.lower() != "identity":
        raise Invalid(f"The body is packed ({packed[:64]!r}).", code="web.encoding", hint="Send it as it is.")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > max_bytes:
        raise too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
    except TimeoutError as error:
        raise TimedOut(
            f"The body did not arrive within {BODY_TIMEOUT_S:g} s.", code="web.slow_body", hint="Send it in one go."
        ) from error
    return bytes(body)


async def fields_of(request: Request, beside: str = "") -> bytes:
    """Return the body of a request that has all its fields there; raises `Invalid` (`web.said_in_query`) for others.

    What was ignored in a query might have been `dry_run`. `beside` is the one parameter that may stand there.
    """
    if said := [key for key in request.query_params if key != beside]:
        raise Invalid(
            f"{said[0][:64]} stands in the query, and {request.method} takes its fields in the body.",
            code="web.said_in_query", hint="Put it into the JSON object of the body.",
        )  # fmt: skip
    return await body_of(request)


def from_query(op: Row, query: QueryParams) -> dict[str, Any]:
    """Return the request that query parameters stand for; a list field may be given many times."""
    shapes = {field.name: field.shape for field in op.fields}
    request: dict[str, Any] = {}
    for key in query:
        values = query.getlist(key)
        if shapes.get(key) == "list":
            request[key] = values
        elif len(values) > 1:
            raise Invalid(
                f"{key[:64]} is given {len(values)} times.", code="ops.bad_request", hint="Give it once: it is no list."
            )
        else:
            request[key] = values[0]
    return request


async def _still_there() -> None:
    """Let `until_gone` stop us first, when the caller has gone away by now."""
    for _ in range(2):  # it is told in one turn of the loop, and cancels in the next
        await asyncio.sleep(0)


async def until_gone(receive: Receive, answering: Any) -> None:
    """Answer, and stop when the caller goes away: cancelling closes the frames, which cancels the work."""

    async def watch(answer: asyncio.Task[None]) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        answer.cancel()

    async with asyncio.TaskGroup() as group:
        answer = group.create_task(answering)
        watcher = group.create_task(watch(answer))
        answer.add_done_callback(lambda _: watcher.cancel())
