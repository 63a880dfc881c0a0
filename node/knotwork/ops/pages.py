"""How is a list cut into pages when it is held in memory? Sorted by a key that no two rows share (pure).

A cursor is the key of the last row of a page, so it stays good whatever comes, goes or changes meanwhile.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TypeVar

from knotwork.sdk.errors import Invalid

Row = TypeVar("Row")


def page(rows: Sequence[Row], key: Callable[[Row], str], cursor: str, limit: int) -> tuple[list[Row], str]:
    """Return up to `limit` rows behind a cursor, and the cursor of the page that follows, "" when there is none.

    Raises `Invalid` (`ops.bad_cursor`) for a cursor that is none of ours.
    """
    behind = _read(cursor) if cursor else ""
    found = sorted((row for row in rows if key(row) > behind), key=key)
    more = len(found) > limit
    return found[:limit], _write(key(found[limit - 1])) if more else ""


def _write(key: str) -> str:
    return base64.urlsafe_b64encode(b"k1 " + key.encode()).decode().rstrip("=")


def _read(cursor: str) -> str:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    if not text.startswith("k1 "):
        raise Invalid(
            "This is no cursor of ours.", code="ops.bad_cursor",
            hint="Use `next` of the page before, or no cursor to begin.",
        )  # fmt: skip
    return text[3:]
