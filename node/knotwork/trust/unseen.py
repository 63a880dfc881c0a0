"""What of a text is not seen, or changes how the rest is seen? Written out, so that nothing hides in what others wrote (pure)."""

from __future__ import annotations

import re
import unicodedata

_ODD = re.compile(r"[^\x20-\x7e\xa0-\xac\xae-\u034e\n\t]")
"""What most text is not made of: only this is looked at one by one."""
_UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is not seen: controls, formats (bidi, zero width, tags), private, halves, separators."""
_JOINERS = {"\u200c", "\u200d", "\ufe0f", "\u180b", "\u180c", "\u180d", "\u180f"}
"""Zero width, and needed: Persian, Hindi and Mongolian are written with them, and families of emoji."""
_KEYCAP = "\u20e3"
_ALSO = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u034f"}
"""Letters and marks by name, and blank."""
_SELECTORS = re.compile(r"[\u17b4\u17b5\u2065\ufe00-\ufe0e\ufff0-\ufff8\U000e0000-\U000e0fff]")
"""They choose between shapes of the character before, or are kept free for the like (Unicode's
Default_Ignorable_Code_Point), and any number of them is not seen: a place to hide text."""


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
    named = unicodedata.category(char) in _UNSEEN or char in _ALSO or char in _JOINERS
    return named or _SELECTORS.fullmatch(char) is not None


def blank(text: str) -> bool:
    """Return whether there is nothing in a text that is seen: it is empty, or blanks and characters of no width."""
    if text[:1].isalnum() and text[0].isascii():
        return False  # nearly every text
    return all(char.isspace() or char == "\u2800" or _hides(char) for char in text)


def _joins(text: str, place: int) -> bool:
    """Return whether a joiner does its work: something beyond ASCII stands before it, or it makes a digit a key."""
    if place == 0:
        return False
    char, before = text[place], text[place - 1]
    if before.isascii():
        return char == "\ufe0f" and text[place + 1 : place + 2] == _KEYCAP
    return before not in _JOINERS or (before == "\ufe0f" and char != before)
