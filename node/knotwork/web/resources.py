"""Which paths are named after things? One table: each row is an op by another name, and says nothing the op says itself.

`/api/work/{id}` reads like other systems of the kind; what it does is what the op does (docs/rest.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from knotwork.bus import codec
from knotwork.ops import serve
from knotwork.ops.listed import LISTED
from knotwork.ops.ports import NodeControl
from knotwork.sdk.errors import Invalid, from_wire
from knotwork.web import etag
from knotwork.web.routes import READING, OpEndpoint, Place, fields_of, from_query

NODE = "node"
"""The query parameter that says whose agent or target is meant, when several nodes have one of that name."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One row. `fills` says which field of the op's request each part of the path is, where they are called differently.

    With `of_node` the part may be narrowed by `?node=`. `created` answers 201 with the place of what is new. `each` is the
    list in the op's answer whose only row is the answer here, or the error.
    """

    method: Literal["GET", "POST"]
    path: str
    op: str
    fills: Mapping[str, str] = field(default_factory=dict)
    of_node: bool = False
    created: str = ""
    each: str = ""

    @property
    def parts(self) -> dict[str, str]:
        """Return which field each part of the path fills."""
        names = [part[1:-1] for part in self.path.split("/") if part.startswith("{")]
        return {name: self.fills.get(name, name) for name in names}


def _agent(method: Literal["GET", "POST"], path: str, op: str) -> Resource:
    return Resource(method, f"/api/agents/{{agent}}{path}", op, {"agent": "target"}, of_node=True)


def _held(verb: str) -> Resource:
    return Resource("POST", f"/api/work/{{id}}/{verb}", f"work.{verb}")


def _target(path: str, op: str, name: str = "target") -> Resource:
    return Resource("POST", f"/api/targets/{{target}}/{path}", op, {"target": name}, of_node=True)


RESOURCES: tuple[Resource, ...] = (
    Resource("GET", "/api/agents", "agents.list"),
    _agent("GET", "", "agents.show"),
    _agent("POST", "/invoke", "agents.invoke"),
    Resource("GET", "/api/nodes", "nodes.list"),
    Resource("GET", "/api/work", "task.list"),
    Resource("POST", "/api/work", "task.submit", created="/api/work/{id}"),
    Resource("POST", "/api/work/cancel-batch", "task.cancel"),
    Resource("GET", "/api/work/{id}", "task.get"),
    Resource("GET", "/api/work/{id}/await", "task.await"),
    Resource("GET", "/api/work/{id}/watch", "task.watch"),
    Resource("GET", "/api/work/{id}/history", "task.history"),
    Resource("GET", "/api/work/{id}/why", "task.why"),
    Resource("POST", "/api/work/{id}/cancel", "task.cancel", {"id": "ids"}, each="tasks"),
    Resource("POST", "/api/work/{id}/retry", "task.retry", created="/api/work/{id}"),
    *(
        _held(verb)
        for verb in ("complete", "continue", "fail", "extend", "progress", "stream", "checkpoint", "release")
    ),
    Resource("POST", "/api/work/{id}/signal", "work.signal"),
    Resource("GET", "/api/dead", "task.dead_list"),
    Resource("GET", "/api/dead/{id}", "task.dead_show"),
    Resource("POST", "/api/dead/redrive-batch", "task.redrive"),
    Resource("POST", "/api/dead/drop-batch", "task.drop"),
    Resource("GET", "/api/targets", "targets.list"),
    Resource("GET", "/api/targets/{target}", "targets.show", of_node=True),
    _target("test", "targets.test"),
    _target("spin-up", "targets.spin_up"),
    _target("enable", "targets.enable", "targets"),
    _target("disable", "targets.disable", "targets"),
    Resource("POST", "/api/targets/enable-batch", "targets.enable"),
    Resource("POST", "/api/targets/disable-batch", "targets.disable"),
    Resource("GET", "/api/launches", "targets.launches"),
    Resource("POST", "/api/launches/{id}/stop", "targets.stop"),
    Resource("GET", "/api/channels", "channel.list"),
    Resource("GET", "/api/channels/{name}/messages", "channel.read", {"name": "channel"}),
    Resource("POST", "/api/channels/{name}/messages", "channel.send", {"name": "channel"}),
    Resource("GET", "/api/stats", "project.stats"),
    Resource("GET", "/api/stats/projects", "project.list"),
    Resource("GET", "/api/events", "project.watch"),
)
EVENTS = "/api/events"


def routes(node: NodeControl, default_project: Callable[[], str]) -> list[Route]:
    """Return one route for each path; those without parts stand first, so that no part is taken for their last word."""
    paths: dict[str, dict[str, OpEndpoint]] = {}
    for row in sorted(RESOURCES, key=lambda one: "{" in one.path):
        made = Feed if row.path == EVENTS else ResourceEndpoint
        paths.setdefault(row.path, {})[row.method] = made(row, node, default_project)
    return [Place(path, _Methods(found), methods=list(found)) for path, found in paths.items()]


class _Methods:
    """One path: an endpoint for each method."""

    def __init__(self, endpoints: Mapping[str, OpEndpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._endpoints[method](scope, receive, send)


class ResourceEndpoint(OpEndpoint):
    """The ASGI application of one row."""

    def __init__(self, row: Resource, node: NodeControl, default_project: Callable[[], str]) -> None:
        """Serve `row` of `node`."""
        super().__init__(LISTED[row.op], node, default_project)
        self._row = row
        self._lists = {one.name for one in self._op.fields if one.shape == "list"}

    async def asked(self, request: Request) -> tuple[str, bytes]:
        """Return the op, and its request made of path, query and body; raises `Invalid` (`web.said_twice`)."""
        node = request.query_params.get(NODE) if self._row.of_node else None
        if request.method in READING:
            pairs = [pair for pair in request.query_params.multi_items() if node is None or pair[0] != NODE]
            given: Any = from_query(self._op, QueryParams(pairs))
        else:
            raw = await fields_of(request, NODE if self._row.of_node else "")
            given = codec.decode(raw) if raw else {}
            if not isinstance(given, dict):
                return self._op.name, raw  # the op says what is wrong with it
        for name, filled in self._row.parts.items():
            value = request.path_params[name]
            if node is not None:
                value = f"{node}/{value}"
            wanted = [value] if filled in self._lists else value
            if given.setdefault(filled, wanted) != wanted:
                raise Invalid(
                    f"{filled} is said by the path, and otherwise beside it.", code="web.said_twice",
                    hint=f"Leave {filled} out.",
                )  # fmt: skip
        return self._op.name, codec.encode(given)

    def answer(self, request: Request, data: bytes) -> Response:
        """Return the response that carries a result."""
        if self._row.each:
            (found,) = codec.decode(data)[self._row.each]
            if found.get("error"):
                raise from_wire(found["error"])
            return Response(codec.encode(found), media_type=etag.JSON)
        if self._row.created:
            made = codec.decode(data)
            if made["new"]:
                place = self._row.created.replace("{id}", quote(made["id"]))
                return Response(data, HTTPStatus.CREATED, {"location": place}, etag.JSON)
        return super().answer(request, data)


class Feed(ResourceEndpoint):
    """What happens, as server-sent events named after their topic."""

    def streams(self, request: Request) -> bool:  # noqa: ARG002  there is no other way to answer
        """Return True."""
        return True

    async def asked(self, request: Request) -> tuple[str, bytes]:
        """Return the op and its request: topics may stand in one word, and what was last is said by a header."""
        given = from_query(self._op, request.query_params)
        given["topics"] = [one for text in given.get("topics", []) for one in text.split(",") if one]
        if last := request.headers.get("last-event-id"):
            given.setdefault("after", last)
        return self._op.name, codec.encode(given)

    def event(self, frame: serve.Frame) -> tuple[bytes, bytes]:
        """Return what happened under the name of its topic, with its id."""
        if frame.kind != "chunk":
            return (b"end" if frame.kind == "result" else frame.kind.encode()), frame.data
        told = codec.decode(frame.data)["data"]
        return f"{told['topic']}\nid: {told['id']}".encode(), codec.encode(told)
