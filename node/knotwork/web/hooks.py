"""How do requests reach triggers? `/hooks/<path>` and `/run/<path>`: no token, but the signature that the trigger asks for."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from knotwork.ops.ports import NodeControl
from knotwork.ops.trigger_ports import Hook, HookRequest
from knotwork.sdk.errors import Denied, Invalid, KnotworkError, NotFound
from knotwork.web import problem
from knotwork.web.routes import body_of, until_gone

PREFIXES = {"/hooks/": "webhook", "/run/": "http"}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
PATH_MAX = 1024
_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED)
"""Answers that cannot have a body: a client would take it for the beginning of the next answer."""


def routes(node: NodeControl) -> list[Route]:
    """Return the two routes; which paths there are is looked up with each request."""
    return [
        Route(f"{prefix}{{path:path}}", _Endpoint(node, kind), methods=METHODS) for prefix, kind in PREFIXES.items()
    ]


class _Endpoint:
    """The ASGI application of all triggers of one kind."""

    def __init__(self, node: NodeControl, kind: str) -> None:
        self._node, self._kind = node, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; who goes away is not waited for, and what was started goes on."""
        request = Request(scope, receive)
        path = str(request.path_params["path"])[:PATH_MAX]
        hooks = self._node.hooks().methods(self._kind, path)
        if not hooks:
            error = NotFound(
                f"Nothing is served at {request.url.path[:256]}.",
                code="trigger.no_such_path",
                hint="Triggers say their paths in `knotwork trigger list`.",
            )
            await problem.response(error)(scope, receive, send)
        elif request.method not in hooks:
            await _wrong_method(hooks, request)(scope, receive, send)
        else:
            await self._fire(hooks[request.method], path, request, send)

    async def _fire(self, hook: Hook, path: str, request: Request, send: Send) -> None:
        try:
            body = await body_of(request, hook.max_body)
        except KnotworkError as error:
            await problem.response(error)(request.scope, request.receive, send)
            return
        except ClientDisconnect:
            return
        headers = {name.lower(): value for name, value in request.headers.items()}
        wanted = HookRequest(self._kind, request.method, path, headers, dict(request.query_params), body)

        async def answer() -> None:
            await (await _answered(hook, wanted))(request.scope, request.receive, send)

        await until_gone(request.receive, answer())


async def _answered(hook: Hook, wanted: HookRequest) -> Response:
    try:
        found = await hook.answer(wanted)
    except Denied as error:
        refused = problem.response(error, HTTPStatus.UNAUTHORIZED)
        del refused.headers["www-authenticate"]  # no bearer token is asked for here
        return refused
    except KnotworkError as error:
        return problem.response(error)
    if found.error is not None:
        failed = problem.response(found.error, found.status, run=found.run)
        failed.headers["knotwork-run"] = found.run
        return failed
    headers = {"knotwork-run": found.run} if found.run else {}
    if found.status in _WITHOUT_BODY:
        return Response(b"", found.status, headers)
    return Response(found.body, found.status, headers, media_type="application/json")


def _wrong_method(hooks: Mapping[str, Hook], request: Request) -> Response:
    allowed = ", ".join(sorted(hooks))
    error = Invalid(
        f"{request.method} is not served there.", code="trigger.wrong_method", hint=f"Use {allowed}.",
        detail={"allowed": sorted(hooks)},
    )  # fmt: skip
    response = problem.response(error, HTTPStatus.METHOD_NOT_ALLOWED)
    response.headers["allow"] = allowed
    return response


def described() -> dict[str, Any]:
    """Return how the two routes stand in OpenAPI; which paths and methods are served, and what fits, say the triggers."""
    return {
        "/hooks/{path}": {"post": _operation("hooks", "Fire a webhook trigger.", {"202": _STARTED}, ("401", "413", "422"))},
        "/run/{path}": {
            method.lower(): _operation(
                f"run.{method.lower()}", "Fire an http trigger, and be answered by its run.", {"200": _ANSWERED, "202": _STARTED},
                ("401", "405", "409", "413", "422", "429", "500", "503", "504"), body=method not in ("GET", "HEAD"),
            )
            for method in METHODS
        },
    }  # fmt: skip


_JSON = "application/json"
_STARTED = {
    "description": "Taken: the run is durable. Asked again with the same key, `new` is false.",
    "content": {
        _JSON: {
            "schema": {
                "type": "object",
                "properties": {"run": {"type": "string"}, "new": {"type": "boolean"}},
                "required": ["run", "new"],
            }
        }
    },
}
_ANSWERED = {
    "description": "What the run gave: its first `respond` step, with the status of that, or its output.",
    "headers": {"Knotwork-Run": {"description": "The run.", "schema": {"type": "string"}}},
    "content": {_JSON: {"schema": {}}},
}


def _operation(
    name: str, summary: str, answers: dict[str, Any], refusals: tuple[str, ...], *, body: bool = True
) -> dict[str, Any]:
    problem_of = {status: {"$ref": "#/components/responses/problem"} for status in (*refusals, "default")}
    path = {
        "name": "path", "in": "path", "required": True, "schema": {"type": "string", "maxLength": PATH_MAX},
        "description": "That of the trigger; it may hold slashes.",
    }  # fmt: skip
    found: dict[str, Any] = {
        "operationId": f"trigger.{name}", "tags": ["trigger"], "summary": summary, "security": [],
        "description": "No token is asked for, but the signature or secret that the trigger names (docs/triggers.md).",
        "parameters": [path], "responses": {**answers, **problem_of},
    }  # fmt: skip
    if body:
        found["requestBody"] = {"required": False, "content": {_JSON: {"schema": {}}}}
    return found
