"""In which form are texts compared? Keyboards and systems write the same letters in several (pure)."""

from __future__ import annotations

import unicodedata


def composed(text: str) -> str:
    """Return a text with letters and their marks as one, as most keyboards write them."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Return a text of which neither case nor form matters."""
    return composed(composed(text).casefold())
