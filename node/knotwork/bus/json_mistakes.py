"""What did somebody mean whose JSON is broken? Where it breaks, what stands there, and what to type instead (pure).

Asked only once a text was refused: the reader in use is quick and says little.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, NamedTuple

from knotwork.config import lookalikes

EXAMPLE = 'Send a JSON value, for example {} or "text".'
_HALF = re.compile(r"(?<!\\)(?:\\\\)*(\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F]..))")
_PAIR = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")
_WORDS = ("true", "false", "null")
_MEANT = {"none": "null", "nil": "null", "undefined": "null", "yes": "true", "no": "false"}
_CLOSE = "Close every quote, [ and {."
_QUOTES = 'Text stands in double quotes: "text".'
_COMMA = "Take it away: behind the last entry there is none."
_SHELL = """JSON has double quotes only; in a shell put single ones around the whole: '{"a": 1}'."""


class Told(NamedTuple):
    """What is wrong, with its place, and what to do."""

    message: str
    hint: str


def told(data: bytes, otherwise: str) -> Told:  # noqa: PLR0911  one return per sort of mistake
    """Return what to say of a text that is not JSON; `otherwise` when nothing better is known."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Told(f"byte {error.start} is not UTF-8", "Send it as UTF-8.")
    if text.startswith("\ufeff"):
        return Told("it begins with a byte order mark", "Save it as UTF-8 without one.")
    if not text.strip():
        return Told("it holds nothing but spaces", EXAMPLE)
    try:
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        told_ = _explained(error.msg, text, error.pos)
        return Told(f"{told_.message} (line {error.lineno}, column {error.colno})", told_.hint)
    except ValueError as error:
        return Told(str(error), "JSON has neither NaN nor Infinity: send null, or text.")
    except RecursionError:
        return Told(otherwise, EXAMPLE)
    half = _HALF.search(_PAIR.sub(lambda pair: "_" * len(pair[0]), text))
    if half:
        line, column = text.count("\n", 0, half.start(1)) + 1, half.start(1) - text.rfind("\n", 0, half.start(1))
        why = f"{half[1]} is half a character (line {line}, column {column})"
        return Told(why, "Write both halves, such as \\ud83d\\ude00, or the character itself.")
    return Told(otherwise, EXAMPLE)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _explained(message: str, text: str, at: int) -> Told:  # noqa: PLR0911  one return per sort of mistake
    before, rest = text[:at], text[at:]
    if message.startswith("Extra data"):
        return _behind(before, rest)
    for start, inside in _IN_TEXT.items():
        if message.startswith(start):
            return inside
    if strange := _strange(rest):
        return strange
    if message.startswith("Expecting property name"):
        if rest.startswith("}"):
            return Told("a comma stands before }", _COMMA)
        return Told("a key without double quotes", f'{_shown(rest)} must be "{_shown(rest)}". {_SHELL}')
    if message.startswith("Expecting ':'"):
        return Told("a colon is missing behind the key", 'Write {"key": value}.')
    if message.startswith("Expecting ','"):
        return Told("a comma is missing, or a closing bracket", 'Write [1, 2] or {"a": 1, "b": 2}.')
    return _value(before, rest)


def _strange(rest: str) -> Told | None:
    """Return what to say of what no JSON has anywhere, None when that is not it."""
    first = rest[:1]
    if not rest.strip():
        return Told("it ends too early", _CLOSE)
    if lookalikes.is_quote(first):
        return Told(f"{first} is no quote of JSON", 'Type straight ones: "text".')
    if first == "'":
        return Told("a single quote", _SHELL)
    if rest.startswith(("//", "/*", "#")):
        return Told("a comment", "JSON has none: take it away.")
    if lookalikes.is_invisible(first):
        return Told(f"an invisible character (U+{ord(first):04X})", "Take it away.")
    return None


def _value(before: str, rest: str) -> Told:
    """Return what to say where a value should be."""
    if rest[0] in "]},":
        if before.rstrip().endswith(","):
            return Told("a comma too many", _COMMA)
        return Told("a value is missing", "Write one, or null.")
    word = _shown(rest)
    meant = _MEANT.get(word.lower()) or next(iter(difflib.get_close_matches(word.lower(), _WORDS, 1, 0.7)), "")
    if meant:
        return Told(
            f"{word} is no value", f"Write {meant}, small and without quotes; {_QUOTES[0].lower()}{_QUOTES[1:]}"
        )
    if re.match(r"[+.]?\.?\d", rest):
        return Told("this is no number", "Write numbers as 5, -5, 0.5 or 5e3.")
    if rest[0] in "<=":
        return Told("this is not JSON", EXAMPLE)
    return Told("text without quotes", _QUOTES)


def _behind(before: str, rest: str) -> Told:
    if before.strip() in ("0", "-0") or rest[:1] == ".":
        return Told("this is no number", "Write numbers as 5, -5, 0.5 or 5e3, without zeros before.")
    return Told("something stands behind the value", "Send one value; several stand in an array: [1, 2].")


def _shown(rest: str) -> str:
    """Return the word that stands here, not too long."""
    return re.split(r"[\s,:\]}=]", rest, maxsplit=1)[0][:40]


_IN_TEXT = {
    "Unterminated string": Told("this text is not closed", _CLOSE),
    "Invalid control character": Told(
        "a line end or another control character stands in a text", "Write it as \\n, \\t or \\u and four digits."
    ),
    "Invalid \\": Told("a backslash begins no known escape", 'Write it twice: "C:\\\\Users".'),
}
