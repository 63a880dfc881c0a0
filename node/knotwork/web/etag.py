"""Has what is asked for changed since the caller saw it? ETags (RFC 9110), and links to the page that follows (RFC 8288).

The tag is a hash of the answer itself, so it is strong, and changes when and only when the answer does. Nothing is kept
here: the op is carried out all the same, and what is saved is the way.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

JSON = "application/json"


class _Page(msgspec.Struct):
    next: str = ""


_page = msgspec.json.Decoder(_Page)


def answer(request: Request, data: bytes) -> Response:
    """Return an answer with its tag, or that nothing changed, when the caller has it already."""
    tag = of(data)
    headers = {"etag": tag, "vary": "Knotwork-Project"}
    if has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if link := _following(request, data):
        headers["link"] = link
    return Response(data, media_type=JSON, headers=headers)


def of(data: bytes) -> str:
    """Return the tag of an answer (pure)."""
    return f'"{hashlib.blake2b(data, digest_size=16).hexdigest()}"'


def has(if_none_match: str, tag: str) -> bool:
    """Return whether a tag is among those a caller has; for this question a weak one is as good (RFC 9110, 13.1.2; pure)."""
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in given or tag in given


def _following(request: Request, data: bytes) -> str:
    """Return the link to the following page, "" when there is none."""
    try:
        cursor = _page.decode(data).next
    except msgspec.DecodeError:  # `next` of something that is no list
        return ""
    if not cursor:
        return ""
    query = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
    return f'<{request.url.path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'
