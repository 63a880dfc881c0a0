"""What does the bridge tell its client? Results, refusals and progress, as the protocol writes them (pure)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from knotwork.mcp import dialect, spoken, wording
from knotwork.mcp.dialect import Asked, Json, Refusal
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, NotFound, TooLarge
from knotwork.telemetry import trace


def trace_of(asked: Asked) -> str:
    """Return the trace that a client's call belongs to (W3C Trace Context), "" for none."""
    return trace.clean(asked.meta.get("traceparent"))


def no_cursor(asked: Asked) -> None:
    """Raise `Refusal` for a cursor into a list that has one page."""
    if asked.params.get("cursor") not in (None, ""):
        raise Refusal(dialect.INVALID_PARAMS, "This list has one page only: there is no such cursor.")


def task_id(asked: Asked) -> str:
    """Return which task a request is about; raises `Refusal`."""
    found = asked.params.get("taskId")
    if not isinstance(found, str) or not found:
        raise Refusal(dialect.INVALID_PARAMS, "`taskId` is needed, a text.")
    return found


def teller(asked: Asked, send: Callable[[Json], None]) -> Callable[[Json], None]:
    """Return what tells the client how far its call is, which does nothing when it does not want to know."""
    token = asked.progress_token
    if token is None:
        return unheard
    last = 0.0

    def tell(piece: Json) -> None:
        nonlocal last
        percent = piece.get("percent")
        ahead = isinstance(percent, int | float) and percent > last
        last = float(percent) if ahead and percent is not None else last + 0.001  # it must grow
        params: Json = {"progressToken": token, "progress": round(last, 3)}
        if percent is not None:
            params["total"] = 100
        if piece.get("text"):
            params["message"] = str(piece["text"])
        send(dialect.notification("notifications/progress", params))

    return tell


def unheard(_: Json) -> None:
    """Take no pieces."""


def result(text: str, structured: Json, *, is_error: bool = False) -> Json:
    """Return the result of a tool."""
    return {"content": [{"type": "text", "text": text}], "structuredContent": structured, "isError": is_error}


def failed(error: KnotworkError) -> Json:
    """Return what an agent is told when the node could not be asked."""
    said, hint = wording.clean(spoken.for_agents(error.message)), wording.clean(spoken.for_agents(error.hint))
    text = f"Error: {said}" + (f"\n{hint}" if hint else "") + f"\n({error.code})"
    return result(text, {"error": {"code": error.code, "message": said, "hint": hint}}, is_error=True)


def code_of(error: KnotworkError) -> int:
    """Return the code of the protocol for an error: whether the request is wrong, or something is here."""
    theirs = isinstance(error, Invalid | Denied | NotFound | Conflict | TooLarge)
    return dialect.INVALID_PARAMS if theirs else dialect.INTERNAL


def as_refusal(error: KnotworkError, number: Any) -> Refusal:
    """Return an error of ours as one of the protocol."""
    return Refusal(code_of(error), wording.clean(spoken.for_agents(str(error))), {"code": error.code}, number)
