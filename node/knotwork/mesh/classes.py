"""Which boundary does work belong to that names none? Patterns for its path and its labels, the most specific wins (pure)."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

PATH_MAX = 4096
"""Characters of a path that are looked at."""
_END = re.compile(r"(?!)")  # behind the last part of a pattern nothing fits
_WILD = re.compile(r"\*+|\?|\[[^]]*\]")


class Classified(NamedTuple):
    """The boundary that work was found to belong to, and why in words."""

    boundary: str
    why: str


class _Pattern(NamedTuple):
    """One pattern of a boundary, ready to fit; `rank` is smaller the more specific it is.

    `parts` are those between the separators of a path, None for `**`; a pattern for a label has one.
    """

    rank: tuple[int, int, str, str]
    boundary: str
    written: str
    parts: tuple[re.Pattern[str] | None, ...]

    def fits(self, text: Sequence[str]) -> bool:
        """Return whether it fits the parts of a path, in time that grows no faster than their product.

        Only the last `**` ever has to take more: whatever an earlier one could take, the later one can, too.
        """
        at = place = 0
        again = restart = -1
        while place < len(text):
            part = self.parts[at] if at < len(self.parts) else _END
            if part is None:
                at += 1
                again, restart = at, place
            elif part.match(text[place]):
                at, place = at + 1, place + 1
            elif again >= 0:
                restart += 1
                at, place = again, restart
            else:
                return False
        return all(part is None for part in self.parts[at:])


class Classes:
    """All patterns of a policy. It never changes."""

    def __init__(self, paths: Iterable[tuple[str, str]], labels: Iterable[tuple[str, str]], *, home: str = "") -> None:
        """Take patterns as (boundary, pattern); one for a label is `key=pattern`. `~/` stands for the folder `home`."""
        self._home = home.rstrip("/")
        self._paths = _sorted((name, written, _path_parts(normal(written, self._home))) for name, written in paths)
        self._labels = _sorted((name, written, (_glob(written.partition("=")[2]),)) for name, written in labels)
        self.by_path = bool(self._paths)
        """Whether it is worth finding out the path of work."""

    def find(self, path: str = "", labels: Mapping[str, str] | None = None) -> Classified | None:
        """Return the boundary of work, None when no pattern fits.

        A pattern for the path decides before one for a label, because the path says where the data lies. Of those that
        fit, the one with the most characters that are no wildcards wins, then the one with fewer wildcards, then the
        boundary that comes first in the alphabet.
        """
        if path and self._paths:
            parts = normal(path[:PATH_MAX], self._home).split("/")
            for pattern in self._paths:
                if pattern.fits(parts):
                    return Classified(pattern.boundary, f"the path {path[:200]} fits {pattern.written}")
        for pattern in self._labels if labels else ():
            key = pattern.written.partition("=")[0]
            value = (labels or {}).get(key)
            if value is not None and pattern.fits((value,)):
                return Classified(pattern.boundary, f"the label {key}={value[:200]} fits {pattern.written}")
        return None


def normal(path: str, home: str = "") -> str:
    """Return a path as it is compared: with `/` only, without `.`, `..`, doubled or trailing separators.

    Links are not followed: the file may be on another machine.
    """
    plain = path.replace("\\", "/")
    if home and (plain == "~" or plain.startswith("~/")):
        plain = home + plain[1:]
    plain = posixpath.normpath(plain)
    return plain[1:] if plain.startswith("//") else plain


def path_in(value: Any) -> str:
    """Return the path that an input names, "" when it names none."""
    path = value.get("path") if isinstance(value, dict) else None
    return path if isinstance(path, str) else ""


def _path_parts(plain: str) -> tuple[re.Pattern[str] | None, ...]:
    """Return what fits a path or any folder around it; a pattern that is not absolute may begin at any folder."""
    absolute = plain.startswith("/") or re.match(r"[A-Za-z]:/", plain) is not None
    parts = [None if part == "**" else _glob(part) for part in plain.split("/")]
    return (*(() if absolute else (None,)), *parts, None)


def _glob(written: str) -> re.Pattern[str]:
    """Return a pattern with `*`, `?` and `[…]` as a regular expression that needs no backtracking."""
    return re.compile(fnmatch.translate(written))


def _vague(written: str) -> tuple[int, int]:
    """Return how unspecific a pattern is: fewer plain characters first told, then more wildcards."""
    return -len(_WILD.sub("", written)), len(_WILD.findall(written))


def _sorted(found: Iterable[tuple[str, str, tuple[re.Pattern[str] | None, ...]]]) -> tuple[_Pattern, ...]:
    made = (_Pattern((*_vague(written), name, written), name, written, parts) for name, written, parts in found)
    return tuple(sorted(made, key=lambda one: one.rank))
