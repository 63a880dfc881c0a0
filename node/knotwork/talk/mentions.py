"""Who is meant by a text? The names after an @, each once, in order (pure)."""

from __future__ import annotations

import re

from knotwork.talk.message import MENTIONS_MAX

_NAMED = re.compile(r"(?<![\w@./+-])@([a-z0-9][a-z0-9_-]{0,63})(?![\w@-])")


def named(text: str) -> list[str]:
    """Return the handles that a text mentions, the first `MENTIONS_MAX`; mail addresses and paths mention nobody."""
    if "@" not in text:
        return []
    return list(dict.fromkeys(found[1].rstrip("-_") for found in _NAMED.finditer(text)))[:MENTIONS_MAX]
