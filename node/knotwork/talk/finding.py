"""Where does a search for messages go on? Behind what was shown, in channels and in an inbox apart (pure).

The newest are shown first, and both lists only grow at their new ends: a cursor means the same whatever is sent meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from knotwork.bus import digits
from knotwork.sdk.errors import Invalid

_MARK = "s"
_DIGITS = 15


def places(cursor: str) -> tuple[int, int]:
    """Return before which places in channels, and in inboxes, a search goes on, 0 for no bound.

    Raises `Invalid` (`message.bad_cursor`).
    """
    if not cursor:
        return 0, 0
    channels, dash, inbox = cursor.removeprefix(_MARK).partition("-")
    found = digits.read(channels, _DIGITS), digits.read(inbox, _DIGITS)
    if cursor[0] != _MARK or not dash or found[0] is None or found[1] is None:
        raise Invalid(
            f"{cursor[:32]!r} is no cursor of a search.", code="message.bad_cursor",
            hint="Use `next` of an answer, or no cursor to begin.",
        )  # fmt: skip
    return found[0], found[1]


def behind(cursor: str, shown: Iterable[str]) -> str:
    """Return the cursor of what follows after messages with these ids, the newest first, which `cursor` led to."""
    channels, inbox = places(cursor)
    for one in shown:
        if one.startswith("m"):
            channels = int(one[1:])
        else:
            inbox = int(one[1:])
    return f"{_MARK}{channels}-{inbox}"
