"""How is a message shown so that nobody takes it for more than what somebody said? Framed, and made harmless (pure).

A message is data from its sender, whatever it says. Shown as text, each of its lines stands behind a bar, below a line
that only the node writes; and what could move a cursor, turn text around or hide in it is written out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from knotwork.trust.unseen import harmless

BAR = "| "
ONE_LINE_CHARS = 256
"""So long a part of a heading is at most."""


def one_line(text: str, limit: int = ONE_LINE_CHARS) -> str:
    """Return text made harmless on one line, `limit` characters at most."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text  # ids, times, handles: nearly everything that stands in a heading
    shown = harmless(text[: limit + 1]).replace("\n", "\\n").replace("\t", " ")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def framed(head: str, text: str, data: Any = None, *, blob: str = "") -> str:
    """Return a message as text: a line about it, then what was said, each line behind a bar."""
    lines = [one_line(head, 1024)]
    lines += [BAR + line for line in harmless(text).split("\n")] if text else []
    if data is not None:
        lines += [f"{BAR}data: {harmless(msgspec.json.encode(data).decode())}"]
    if blob:
        lines += [f"{BAR}blob: {one_line(blob)}"]
    return "\n".join(lines)


def heading(fields: Iterable[tuple[str, str]]) -> str:
    """Return the line above a message from its parts; those without a value are left out."""
    given = [(name, value) for name, value in fields if value]
    whole = "  ".join([f"{name} {value}".strip() for name, value in given])
    if len(whole) <= ONE_LINE_CHARS and whole.isascii() and whole.isprintable():
        return whole  # nearly every one: looked at once, not part by part
    return "  ".join([f"{name} {one_line(value)}".strip() for name, value in given])
