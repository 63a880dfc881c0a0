"""Who may come in by HTTP? Host, Origin and bearer token are checked before anything else is looked at.

The Host check stops DNS rebinding, the Origin check stops web pages of others, the token stops other users of the
machine. Nothing is told about the node before they pass.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from knotwork.sdk.errors import Denied
from knotwork.web import problem

HEALTH_PATHS = frozenset({"/livez", "/readyz"})
OPEN_PATHS = HEALTH_PATHS | {"/openapi.json"}
"""Paths that need no token: a supervisor has none, and the description is public."""
OPEN_PREFIXES = ("/hooks/", "/run/", "/approve/")
"""What triggers and links are served under: each asks for a signature of its own."""

SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass
class Doorkeeper:
    """What is let in; `hosts` and `origins` may be replaced while the door is open (a reload does)."""

    token: str
    hosts: frozenset[str] = field(default_factory=frozenset)
    origins: frozenset[str] = field(default_factory=frozenset)

    def refusal(self, headers: Headers, path: str, scheme: str) -> tuple[int, Denied] | None:
        """Return status and reason when the request may not come in."""
        host = headers.get("host", "")
        if not self._knows(host):
            return HTTPStatus.MISDIRECTED_REQUEST, Denied(
                f"This node is not called {host[:256]!r}.",
                code="web.bad_host",
                hint="Use its address, or add the name to web.allowed_hosts.",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and origin != f"{scheme}://{host}":
            return HTTPStatus.FORBIDDEN, Denied(
                f"Pages of {origin[:256]!r} may not call this node.",
                code="web.bad_origin",
                hint="Add the origin to web.allowed_origins.",
            )
        if (
            path not in OPEN_PATHS
            and not path.startswith(OPEN_PREFIXES)
            and not self._proves(headers.get("authorization", ""))
        ):
            return HTTPStatus.UNAUTHORIZED, Denied(
                "A bearer token is needed.",
                code="web.no_token",
                hint="Send `Authorization: Bearer <token>`; it stands in keys/http.token of the node's data folder.",
            )
        return None

    def _knows(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in _LOOPBACK_NAMES or name in self.hosts or host.lower() in self.hosts

    def _proves(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self.token.encode()) and scheme.lower() == "bearer" and bool(self.token)


class Guard:
    """ASGI middleware: refuses what the doorkeeper refuses, and puts the safe headers on every response."""

    def __init__(self, app: ASGIApp, keeper: Doorkeeper) -> None:
        """Stand before `app`."""
        self._app = app
        self._keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            return  # no websockets: the server closes what is not accepted
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        foreign = origin in self._keeper.origins

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    out.setdefault(name, value)
                if foreign:
                    out["access-control-allow-origin"] = origin
                    out["access-control-expose-headers"] = "etag, link, location, mcp-session-id, retry-after"
                    out["cross-origin-resource-policy"] = "cross-origin"
                    out.add_vary_header("Origin")
            await send(message)

        if foreign and scope["method"] == "OPTIONS":
            await _preflight(safe)
            return
        refused = self._keeper.refusal(headers, scope["path"], scope["scheme"])
        if refused is not None:
            status, error = refused
            await problem.response(error, status)(scope, receive, safe)
            return
        await self._app(scope, receive, safe)


async def _preflight(send: Send) -> None:
    headers = {
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": "authorization, content-type, if-none-match, knotwork-parent, knotwork-project, last-event-id, "
        "mcp-method, mcp-name, mcp-protocol-version, mcp-session-id, traceparent",
        "access-control-max-age": "600",
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": HTTPStatus.NO_CONTENT, "headers": raw})
    await send({"type": "http.response.body", "body": b""})


def names_of(host: str, allowed: tuple[str, ...]) -> frozenset[str]:
    """Return the Host names to accept for a door bound to `host`: itself, unless it means every address, and `allowed`."""
    names = {name.lower() for name in allowed}
    try:
        everything = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everything = False
    return frozenset(names if everything else names | {host.lower()})
