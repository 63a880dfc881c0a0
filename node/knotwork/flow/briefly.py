"""What is kept of an error that says too much? Its texts, cut, and what was not undone (pure).

A worker may write anything as its error; one that fits into no message would never be recorded, or never be shown.
"""

from __future__ import annotations

from typing import Any

from knotwork.flow import expressions
from knotwork.sdk.errors import Invalid

LETTERS, UNDONE_LETTERS = 16_384, 1000
"""What is left of each text of an error, and of each error of what was not undone."""
UNDONE_MAX = 50
"""Of how many steps it is told that they were not undone."""


def kept(error: dict[str, Any], most_bytes: int) -> dict[str, Any]:
    """Return an error as it is when it has no more bytes as JSON, else in brief."""
    try:
        if len(expressions.as_json(error)) <= most_bytes:
            return error
    except Invalid:
        pass
    found = error.get("detail")
    detail = found if isinstance(found, dict) else {}
    told: dict[str, Any] = _brief(detail, LETTERS)
    if handler := _brief(detail.get("handler_error"), LETTERS):
        told["handler_error"] = handler
    undone = detail.get("not_undone")
    if isinstance(undone, list):  # else it is a worker's, who may write anything
        steps = [one for one in undone[:UNDONE_MAX] if isinstance(one, dict)]
        told["not_undone"] = [
            _brief(one, UNDONE_LETTERS) | {"error": _brief(one.get("error"), UNDONE_LETTERS)} for one in steps
        ]
    return {**_brief(error, LETTERS), "detail": told}


def _brief(error: object, letters: int) -> dict[str, Any]:
    told = error if isinstance(error, dict) else {}
    return {
        key: text if len(text) <= letters else f"{text[:letters]}…"
        for key in ("kind", "code", "message", "hint", "step")
        if isinstance(text := told.get(key), str)
    }
