"""What does the HTTP door answer? The API of the ops table, its description, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pydantic_core
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

import knotwork
from knotwork.ops.ports import NodeControl
from knotwork.sdk.errors import Internal, KnotworkError, NotFound
from knotwork.web import approvals, hooks, problem, resources, routes, workers
from knotwork.web.guard import Doorkeeper, Guard

Metrics = Callable[[], Awaitable[tuple[str, bytes]]]
"""Returns content type and body; raises `NotFound` when no sink can be scraped."""


async def no_metrics() -> tuple[str, bytes]:
    """Say that there is nothing to scrape: what a door answers that was given no metrics."""
    raise NotFound(
        "No telemetry sink can be scraped.",
        code="web.no_metrics",
        hint='Add [telemetry.metrics] with type = "prometheus".',
    )


def make(
    node: NodeControl,
    keeper: Doorkeeper,
    metrics: Metrics,
    default_project: Callable[[], str] = lambda: "default",
    agents: ASGIApp | None = None,
    *,
    within: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> ASGIApp:
    """Return the ASGI application, behind its guard; `agents` answers at `/mcp`. What passes the guard goes by `within`."""
    app = Starlette(
        routes=[
            *routes.api(node, default_project),  # first: the verb of an op is no name of a thing
            *resources.routes(node, default_project),
            *workers.routes(node, default_project),
            *hooks.routes(node),
            approvals.route(node),
            *_plain(node, metrics),
            *([Route("/mcp", agents)] if agents is not None else []),
        ],
        exception_handlers={HTTPException: _http_error, KnotworkError: _our_error, Exception: _bug},
    )
    app.router.redirect_slashes = False
    return Guard(within(app), keeper)


def _plain(node: NodeControl, metrics: Metrics) -> list[Route]:
    described: list[bytes] = []
    describing = asyncio.Lock()

    async def livez(_: Request) -> Response:
        health = await node.health()
        return health_answer("live", good=health.live)

    async def readyz(_: Request) -> Response:
        health = await node.health()
        return health_answer("ready", good=health.ready)

    async def scrape(_: Request) -> Response:
        kind, body = await metrics()
        return Response(body, media_type=kind)

    async def describe(_: Request) -> Response:
        async with describing:  # whoever asks meanwhile waits for the same
            if not described:
                described.append(await asyncio.to_thread(_description))
        return Response(described[0], media_type="application/json")

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", scrape),
        Route("/openapi.json", describe),
    ]


def _description() -> bytes:
    """Return the API's description as JSON; takes a second the first time, with every op and its models to be loaded."""
    from knotwork.web import openapi

    return pydantic_core.to_json(openapi.document(knotwork.__version__))


def health_answer(word: str, *, good: bool) -> Response:
    """Answer yes or no. Why not is for those who have the token: `node.health` tells."""
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(pydantic_core.to_json({word: good}), status_code=status, media_type="application/json")


def _http_error(request: Request, error: Any) -> Response:
    """Answer what Starlette refuses by itself (no such path, wrong method) as a problem, too."""
    hint = "See /openapi.json for every path."
    made = NotFound(f"{request.method} {request.url.path[:256]}: {error.detail}.", code="web.no_such_path", hint=hint)
    response = problem.response(made, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _our_error(_: Request, error: Any) -> Response:
    return problem.response(error)


def _bug(_: Request, error: Exception) -> Response:
    return problem.response(Internal(f"{type(error).__name__}: {error}"))
