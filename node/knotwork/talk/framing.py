"""How is a message shown so that nobody takes it for more than what somebody said? Framed, and made harmless (pure).

A message is data from its sender, whatever it says. Shown as text, each of its lines stands behind a bar, below a line
that only the node writes; and what could move a cursor, turn text around or hide in it is written out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import msgspec

BAR = "| "
ONE_LINE_CHARS = 256
"""So long a part of a heading is at most."""
_ODD = re.compile(r"[^\x20-\x7e\xa0-\xac\xae-\u034e\n\t]")
"""What most text is not made of: only this is looked at one by one."""
_UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is not seen: controls, formats (bidi, zero width, tags), private, halves, separators."""
_JOINERS = {"\u200c", "\u200d", "\ufe0f"}
"""Zero width, and needed: Persian and Hindi are written with them, and families of emoji."""
_ALSO = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u034f"}
"""Letters and marks by name, and blank."""
_SELECTORS = re.compile(r"[\ufe00-\ufe0e\U000e0100-\U000e01ef]")
"""They choose between shapes of the character before, and any number of them is not seen: a place to hide text."""


def harmless(text: str) -> str:
    r"""Return text with what is not seen, or changes how the rest is seen, as `\u{202e}`; lines and tabs stay."""
    return _ODD.sub(_shown, text.replace("\r\n", "\n"))


def _shown(found: re.Match[str]) -> str:
    """Return one character, written out when it is not seen."""
    char = found[0]
    if (char in _JOINERS and _joins(found.string, found.start())) or not _hides(char):
        return char
    return f"\\u{{{ord(char):x}}}"


def _hides(char: str) -> bool:
    unseen = unicodedata.category(char) in _UNSEEN or char in _ALSO or char in _JOINERS
    return unseen or _SELECTORS.fullmatch(char) is not None


def blank(text: str) -> bool:
    """Return whether there is nothing in a text that is seen: it is empty, or blanks and characters of no width."""
    if text[:1].isalnum() and text[0].isascii():
        return False  # nearly every text
    return all(char.isspace() or char == "\u2800" or _hides(char) for char in text)


def _joins(text: str, place: int) -> bool:
    """Return whether something beyond ASCII stands before a joiner: there it does its work."""
    return place > 0 and not text[place - 1].isascii() and text[place - 1] not in _JOINERS - {"\ufe0f"}


def one_line(text: str, limit: int = ONE_LINE_CHARS) -> str:
    """Return text made harmless on one line, `limit` characters at most."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text  # ids, times, handles: nearly everything that stands in a heading
    shown = harmless(text[: limit + 1]).replace("\n", "\\n").replace("\t", " ")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def framed(head: str, text: str, data: Any = None, *, blob: str = "") -> str:
    """Return a message as text: a line about it, then what was said, each line behind a bar."""
    lines = [one_line(head, 1024)]
    lines += [BAR + line for line in harmless(text).split("\n")] if text else []
    if data is not None:
        lines += [f"{BAR}data: {harmless(msgspec.json.encode(data).decode())}"]
    if blob:
        lines += [f"{BAR}blob: {one_line(blob)}"]
    return "\n".join(lines)


def heading(fields: Iterable[tuple[str, str]]) -> str:
    """Return the line above a message from its parts; those without a value are left out."""
    given = [(name, value) for name, value in fields if value]
    whole = "  ".join([f"{name} {value}".strip() for name, value in given])
    if len(whole) <= ONE_LINE_CHARS and whole.isascii() and whole.isprintable():
        return whole  # nearly every one: looked at once, not part by part
    return "  ".join([f"{name} {one_line(value)}".strip() for name, value in given])
