"""How does somebody answer a run's question by a link? `/approve/<link>`: GET shows what is asked, POST approves or rejects.

No token is asked for: the link is one. Looking at it spends nothing, so that whoever checks links in mails does no harm.
People are shown a plain page, programs JSON.
"""

from __future__ import annotations

import json
from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from knotwork.ops.ports import NodeControl
from knotwork.sdk.errors import Invalid, KnotworkError
from knotwork.web import problem
from knotwork.web.routes import body_of

if TYPE_CHECKING:
    from knotwork.ops.flow_replies import Question

PATH = "/approve/{link}"
BODY_MAX = 16 * 1024
COMMENT_MAX = 1024
DECISIONS = {"approve": True, "reject": False}


def route(node: NodeControl) -> Route:
    """Return the one route."""

    async def endpoint(request: Request) -> Response:
        link, page = str(request.path_params["link"]), _wants_page(request)
        try:
            if request.method == "POST":
                approve, comment = _decision(request, await body_of(request, BODY_MAX))
                question = await node.approvals().answer(link, comment, approve=approve)
            else:
                question = await node.approvals().question(link)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except KnotworkError as error:
            status = HTTPStatus.GONE if error.code == "flow.link_expired" else error.http_status
            return _page(_paragraph(error.message), status) if page else problem.response(error, status)
        if page:
            return _page(_shown(question))
        return Response(question.model_dump_json(), media_type="application/json")

    return Route(PATH, endpoint, methods=["GET", "HEAD", "POST"])


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _decision(request: Request, body: bytes) -> tuple[bool, str]:
    """Return what somebody decided, and the comment; raises `Invalid` (`web.bad_decision`)."""
    said: Any = None
    try:
        form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if form and not body.lstrip().startswith(b"{"):  # what curl says of whatever it sends
            said = {key: values[0] for key, values in parse_qs(body.decode(), max_num_fields=10).items()}
        else:
            said = json.loads(body)
    except (ValueError, RecursionError):
        pass
    said = said if isinstance(said, dict) else {}
    decision, comment = said.get("decision"), said.get("comment", "")
    if decision not in DECISIONS or not isinstance(comment, str) or len(comment) > COMMENT_MAX:
        raise Invalid(
            "This decides nothing.", code="web.bad_decision",
            hint=f'Send {{"decision": "approve" or "reject", "comment": a text of up to {COMMENT_MAX} characters}}.',
        )  # fmt: skip
    return DECISIONS[decision], comment


# -- the page --------------------------------------------------------------------------------------------------------


def _shown(question: Question) -> str:
    parts = [f"<h1>{escape(question.title or f'{question.workflow}: {question.step}')}</h1>"]
    told = json.dumps(question.input, indent=2, ensure_ascii=False)
    if question.state == "waiting":
        parts += [f"<pre>{escape(told)}</pre>"] if question.input is not None else []
        parts.append(
            '<form method="post"><p><label>Comment <input name="comment" maxlength="1024"></label></p>'
            '<p><button name="decision" value="approve">Approve</button> '
            '<button name="decision" value="reject">Reject</button></p></form>'
        )
        parts.append(_paragraph(f"You answer as {question.by}, until {question.expires_at}."))
    elif question.state == "gone":
        parts.append(_paragraph("Nobody asks this any more."))
    else:
        parts.append(_paragraph(f"{question.by or 'Somebody'} {question.state} it. {question.comment}".strip()))
    parts.append(_paragraph(f"{question.workflow}, {question.run}, {question.step}"))
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _page(body: str, status: int = HTTPStatus.OK) -> Response:
    whole = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Knotwork</title></head>\n<body>\n{body}\n</body></html>\n'
    return HTMLResponse(whole, status)


# -- the description -------------------------------------------------------------------------------------------------


def described(names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return how the route stands in OpenAPI."""
    from knotwork.ops.flow_replies import Question  # a model: only for the description

    answer = {
        "description": "What is asked, and how it was answered.",
        "content": {"application/json": {"schema": names[Question, "serialization"]}, "text/html": {"schema": {}}},
    }
    problem_of = {code: {"$ref": "#/components/responses/problem"} for code in ("404", "409", "410", "422", "default")}
    common: dict[str, Any] = {
        "tags": ["run"], "security": [], "responses": {"200": answer, **problem_of},
        "parameters": [{"name": "link", "in": "path", "required": True, "schema": {"type": "string"}}],
    }  # fmt: skip
    decision = {
        "type": "object", "required": ["decision"],
        "properties": {"decision": {"enum": [*DECISIONS]}, "comment": {"type": "string", "maxLength": COMMENT_MAX}},
    }  # fmt: skip
    media = ("application/json", "application/x-www-form-urlencoded")
    body = {"required": True, "content": {one: {"schema": decision} for one in media}}
    return {
        PATH: {
            "get": {**common, "operationId": "approve.show", "summary": "Show what a run asks by this link."},
            "post": {**common, "operationId": "approve", "summary": "Approve or reject, once.", "requestBody": body},
        }
    }
