"""What is wrong with the configuration, where, and what would be right? All of it at once, never the values themselves.

Values are not repeated in messages: what was written by mistake may be a password.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from knotwork.sdk import ConfigInvalid

SHOWN_MAX = 100


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to mend. `line` and `column` count from 1; both are 0 where there is no text to point into."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""
    code: str = "config.invalid"

    def __str__(self) -> str:
        """Return `file:line:column: message hint` on one line."""
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.message}. {self.hint}" if self.hint else f"{where}: {self.message}"


def invalid(problems: Iterable[Problem]) -> ConfigInvalid:
    """Return the error that carries all problems: one per line in its text, as plain data in `detail["problems"]`.

    More than 100 are counted, not shown.
    """
    found = sorted(dict.fromkeys(problems))
    shown = [str(problem) for problem in found[:SHOWN_MAX]]
    if len(found) > SHOWN_MAX:
        shown.append(f"… and {len(found) - SHOWN_MAX} more")
    codes = {problem.code for problem in found}
    return ConfigInvalid(
        "\n".join(shown),
        code=codes.pop() if len(codes) == 1 else "config.invalid",
        detail={"problems": [asdict(problem) for problem in found[:SHOWN_MAX]], "total": len(found)},
    )


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the known word most like `word`, empty when none is alike by `cutoff` (1: the same)."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word[:256].lower().replace(" ", "_"), names, n=1, cutoff=cutoff)
    return names[found[0]] if found else ""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return a hint naming the nearest known word, or, when none is near, all that are known (if they are few)."""
    if near := nearest(word, known):
        return f'Did you mean "{near}"?'
    if known and len(known) <= 12:  # noqa: PLR2004 - a list longer than a line helps nobody
        return "Known: " + ", ".join(sorted(known)) + "."
    return ""


def standing(loc: Sequence[str | int], data: Any) -> Iterator[str | int]:
    """Yield the part of a place that stands in `data`, or is missing there: pydantic adds which of several models it tried."""
    at = data
    for number, part in enumerate(loc):
        if (isinstance(at, dict) and part in at) or (isinstance(at, list) and isinstance(part, int) and part < len(at)):
            at = at[part]  # type: ignore[index]  # one of the two, as just seen
            yield part
        elif number == len(loc) - 1 and isinstance(at, dict) and part != "[key]":
            yield part  # what is missing
