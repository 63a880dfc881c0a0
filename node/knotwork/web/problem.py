"""How does an error look over HTTP? As problem+json (RFC 9457), with our code, hint and detail beside it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pydantic_core
from starlette.responses import Response

from knotwork.sdk.errors import KnotworkError, from_wire
from knotwork.web import spoken

MEDIA_TYPE = "application/problem+json"
_CLIENT_CLOSED = 499  # not in the registry; what proxies write when the caller went away


def response(error: KnotworkError, status: int | None = None, **more: str) -> Response:
    """Return the response for an error; `status` overrides the class's own (401 has no class), `more` are members beside."""
    code = status or error.http_status
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if code == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="knotwork"'
    return Response(body(error, code, **more), status_code=code, media_type=MEDIA_TYPE, headers=headers)


def from_frame(data: bytes, *, shell: bool = True) -> Response:
    """Return the response for an `error` frame; without `shell` its hints name routes, not commands."""
    error = from_wire(pydantic_core.from_json(data))
    return response(error if shell else spoken.for_programs(error))


def body(error: KnotworkError, status: int, **more: str) -> bytes:
    """Return the JSON text: the members of RFC 9457, those of `KnotworkError.to_wire`, and `more`."""
    title = "Cancelled" if status == _CLIENT_CLOSED else HTTPStatus(status).phrase
    wire: dict[str, Any] = error.to_wire()
    members = {
        "type": f"urn:knotwork:error:{error.code}",
        "title": title,
        "status": status,
        "detail": wire.pop("message"),
        "problems": wire.get("detail", {}).get("problems", []),
        "data": wire.pop("detail", {}),
        **wire,
        **more,
    }
    members["data"].pop("problems", None)
    return pydantic_core.to_json({key: value for key, value in members.items() if value not in ([], {})}, fallback=str)
