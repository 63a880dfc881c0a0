"""What stands where `{input…}` was written in a URL or a query? Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

_PLACE = re.compile(r"\{input((?:\.[A-Za-z0-9_-]+)*)\}")
_ODD = re.compile(r"[{}]")


class NoSuchPart(Exception):
    """The input has nothing at a place that the template names, or something that may not stand there."""


def check(template: str) -> None:
    """Raise ValueError for braces that are no `{input}` or `{input.key…}`."""
    if _ODD.search(_PLACE.sub("", template)):
        raise ValueError(f"in {template!r}: only {{input}} and {{input.key}} may stand in braces")


def fill(template: str, value: Any) -> str:
    """Return the template with every place filled; a string as it is, all else as JSON."""
    return _PLACE.sub(lambda place: _text(value, place), template)


def fill_url(template: str, value: Any) -> str:
    """Return the URL with every place filled and percent-encoded, so that it stays within its segment.

    Raises `NoSuchPart` also for `.` and `..`, which would lead to another path.
    """

    def filled(place: re.Match[str]) -> str:
        text = _text(value, place)
        if text in {"", ".", ".."}:
            raise NoSuchPart(f"{text!r} may not stand in the URL in place of {place[0]}")
        return quote(text, safe="", errors="replace")

    return _PLACE.sub(filled, template)


def _text(value: Any, place: re.Match[str]) -> str:
    for key in place[1].split(".")[1:]:
        if not isinstance(value, dict) or key not in value:
            raise NoSuchPart(f"the input has nothing at {place[0]}")
        value = value[key]
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
