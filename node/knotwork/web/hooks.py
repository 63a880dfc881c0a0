"""How do requests reach triggers? `/hooks/<path>` and `/run/<path>`: no token, but the signature that the trigger asks for."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

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
            error = NotFound(f"Nothing is served at {request.url.path[:256]}.", code="trigger.no_such_path")
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
    headers = {"knotwork-run": found.run} if found.run else {}
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
