"""How does a message name what to do next, whatever door it is read at? As a command, which each door says its own way.

A message says `knotwork run list` in backquotes and nothing else for it: people type it, a door for others says there
what they call (pure).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

_command = re.compile(r"`knotwork ((?:-{0,2}[a-z][a-z-]*)[^`\n]{0,300})`")
WORDS_MAX = 4
T = TypeVar("T")


def said(text: str, say: Callable[[str], str]) -> str:
    """Return a text with each command in it as `say` puts it; it is given what stands behind `knotwork`."""
    return _command.sub(lambda found: say(found[1]), text) if "`knotwork " in text else text


def named(text: str) -> list[str]:
    """Return the commands that a text names, without `knotwork`."""
    return [found[1] for found in _command.finditer(text)]


def known(command: str, there: Mapping[str, T]) -> tuple[T, str] | None:
    """Return what a command is in a table by its words, and what stands behind them; None when it is not in there."""
    words = command.split(" ")
    for count in range(min(WORDS_MAX, len(words)), 0, -1):
        found = there.get(" ".join(words[:count]))
        if found is not None:
            return found, " ".join(words[count:])
    return None
