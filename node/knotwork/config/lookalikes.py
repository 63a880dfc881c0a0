"""Which characters only look like others, or like nothing? Those that people paste from word processors (pure)."""

from __future__ import annotations

QUOTES = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u00b4`"
"""Quotes that people and word processors write, and no format reads."""
_MARK = "\ufeff"


def is_quote(char: str) -> bool:
    """Return whether a character is a quote to a person alone; no character is none."""
    return char != "" and char in QUOTES


def is_invisible(char: str) -> bool:
    """Return whether nobody sees a character; tabs and line ends are not meant, no character is none."""
    return char != "" and (char == _MARK or not char.isprintable()) and char not in "\t\r\n"
