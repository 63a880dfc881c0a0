"""In which form are texts compared? Keyboards and systems write the same letters in several (pure)."""

from __future__ import annotations

import unicodedata


def composed(text: str) -> str:
    """Return a text with letters and their marks as one, as most keyboards write them."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Return a text of which neither case nor form matters."""
    return composed(composed(text).casefold())


PIECE_MIN = 3
"""Letters of ASCII that a piece has at least: fewer stand in most words."""


def pieces_of(text: str) -> list[str]:
    """Return what of a text is looked for inside words: each piece of it, or the whole where one of them is too short."""
    pieces = list(dict.fromkeys(text.split()))
    is_short = any(len(one) < PIECE_MIN and one.isascii() for one in pieces)
    return [text] if is_short or not pieces else pieces
