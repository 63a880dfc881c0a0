"""When is a text from outside a number? When it is a few digits and nothing else; to Python `²` is a digit, too (pure)."""

from __future__ import annotations


def read(text: str, digits_max: int = 18) -> int | None:
    """Return the number that a text is, None for one that is none or has more digits than these."""
    return int(text) if 0 < len(text) <= digits_max and text.isascii() and text.isdigit() else None
