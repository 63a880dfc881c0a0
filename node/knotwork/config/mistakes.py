"""What did somebody mean whose TOML is broken? From what the reader says and what stands there, in words of a person (pure).

The reader's own words tell what it wanted to see; a person wants to know what to type instead.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from knotwork.config import lookalikes


class Told(NamedTuple):
    """What is wrong and what to do; an empty message: the reader's own words."""

    message: str
    hint: str


LINES_MAX = 1000
"""So far back the beginning of an array is looked for."""
_TEXT = 'Text needs quotes: key = "text".'
_PAIR = "Write key = value, with quotes around text."
_STRAIGHT = "Type straight quotes: \"text\" or 'text'."
_CLOSE = 'Close the text with the quote it began with, on the same line; text of several lines stands in """ … """.'
_BACKSLASH = "In \"…\" a backslash begins an escape: write it twice, or use single quotes: 'C:\\Users'."
_WORDS = {"true": "true", "false": "false", "yes": "true", "on": "true", "no": "false", "off": "false"}
_NOTHING = ("null", "none", "nil", "undefined")
_NUMBER_END = re.compile(r"[+-]?[\d_.]+$")


def told(message: str, text: str, line: int, column: int) -> Told:
    """Return what to say of a break that the reader found at this place (counted from 1)."""
    written = text.split("\n")[line - 1] if 0 < line <= text.count("\n") + 1 else ""
    before, rest = written[: column - 1], written[column - 1 :]
    if strange := _strange(rest[:1]):
        return strange
    if message.startswith("Invalid value"):  # an array may have begun lines before
        above = "\n".join(one.split("#")[0] for one in text.split("\n")[max(0, line - LINES_MAX) : line - 1])
        before = f"{above}\n{before}"
    for start, explain in _BY_MESSAGE.items():
        if message.startswith(start):
            return explain(before, rest)
    return Told("", "")


def _strange(char: str) -> Told | None:
    """Return what to say of a character that only looks like another one, or like nothing."""
    if lookalikes.is_quote(char):
        return Told(f"{char} is no quote of TOML", _STRAIGHT)
    if lookalikes.is_invisible(char):
        return Told(f"an invisible character stands here (U+{ord(char):04X})", "Take it away, or type a plain space.")
    return None


def _value(before: str, rest: str) -> Told:  # noqa: PLR0911  one return per sort of mistake
    word = re.split(r"[\s,\]}#]", rest, maxsplit=1)[0]
    if rest.startswith(",") and _open_bracket(before) == "[":
        return Told("a comma too many", "Take it away: entries are separated by one comma.")
    if not rest.strip() or rest.lstrip().startswith("#") or rest[0] in ",]}":
        return _missing(before)
    if rest[0] in "=>:":
        return Told("more than = stands between key and value", _PAIR)
    if rest[0] == "(":
        return Told("TOML has no round brackets", "Write a list with square ones: [1, 2].")
    if re.match(r"[+-]?\.\d", rest):
        return Told("a number begins with its point", "Write a digit before it: 0.5.")
    if word.lower() in _NOTHING:
        return Told("TOML has no word for nothing", f"Leave the key out to get its default. {_TEXT}")
    meant = _WORDS.get(word.lower()) or next(
        iter(difflib.get_close_matches(word.lower(), ("true", "false"), 1, 0.75)), ""
    )
    if meant:
        return Told("this is no value", f"Write {meant}, small and without quotes, or put quotes around text.")
    return Told("this is no value", _TEXT)


def _missing(before: str) -> Told:
    opened = _open_bracket(before)
    if opened == "[":
        return Told("this array is not finished", "Close it with ]; entries are separated by commas.")
    if opened == "{" and not before.rstrip().endswith("="):
        return Told("this inline table is not finished", "Close it with } on the same line.")
    return Told("there is no value", 'Write one behind the =, or take the line away; text that is empty is "".')


def _open_bracket(before: str) -> str:
    """Return the innermost bracket that is open in a piece of a line, outside of quotes."""
    open_: list[str] = []
    for char in re.sub(r"\"(?:\\.|[^\"\\])*\"|'[^']*'", "", before):
        if char in "[{":
            open_.append(char)
        elif char in "]}" and open_:
            open_.pop()
    return open_[-1] if open_ else ""


def _pair(before: str, rest: str) -> Told:
    if rest.lstrip().startswith(":"):
        return Told("a colon stands where TOML has =", _PAIR)
    if before.strip() == "-":
        return Told("a line begins with a dash, as in YAML", 'Write a list in brackets: key = ["one", "two"].')
    if "=" in rest:
        name = (before + rest).split("=")[0].strip()
        return Told("this key has characters that need quotes", f'Write "{name[:60]}" = value, or another key.')
    return Told("a key without =", _PAIR)


def _statement(_before: str, rest: str) -> Told:
    if rest.startswith(("{", "<")):
        return Told("this is not TOML", 'Write [table], then key = value in lines below; JSON has { "key": value }.')
    if rest.startswith(("//", "/*", ";", "--")):
        return Told("this is neither a key nor a table", "A comment begins with #.")
    if rest.startswith("="):
        return Told("there is no key before the =", _PAIR)
    return Told(
        "this is neither a key nor a table", f"{_PAIR} A key of other characters than A-Z a-z 0-9 _ - needs quotes."
    )


def _key(before: str, rest: str) -> Told:
    if rest.startswith(","):
        return Told("a comma too many", "Take it away: entries are separated by one comma.")
    if before.lstrip().startswith("["):
        return Told("a table without a name", "Write [name]; parts of a name are separated by one dot.")
    if rest.startswith("}"):
        return Told("a comma stands before }", "Take it away: behind the last entry of { } there is none.")
    if not rest.strip():
        return Told("this inline table is not finished", "It stays on one line; for more lines write [table].")
    return Told("a key is missing here", _PAIR)


def _behind(before: str, rest: str) -> Told:  # noqa: PLR0911  one return per sort of mistake
    if before.lstrip().startswith("["):
        wrong = "one bracket too many" if rest.startswith("]") else "something stands behind the table"
        return Told(wrong, "A [table] or [[list of tables]] stands on a line of its own.")
    if rest.startswith("\r"):
        return Told("a line ends with CR alone", "Save the file with line ends LF or CRLF.")
    if rest.startswith(("//", "/*")):
        return Told("something stands behind the value", "A comment begins with #.")
    if rest.startswith(","):
        more = rest[1:].split("#", maxsplit=1)[0].strip()
        return Told(
            "a comma stands behind the value", "Write several in brackets: [1, 2]." if more else "Take it away."
        )
    if rest.startswith(";"):
        return Told("a semicolon stands behind the value", "Take it away: the value ends with the line.")
    number = _NUMBER_END.search(before)
    if number and rest[:1].strip():
        zeros = re.fullmatch(r"[+-]?0", number[0]) and rest[0].isdigit()
        point = rest[0] == "." and not rest[1:2].isdigit()
        if zeros or point:
            return Told("this is no number", "A number has no zeros before it, and a digit behind its point.")
        return Told("this is no number", 'What is more than a number needs quotes: "10s", "50%", "127.0.0.1".')
    if re.match(r"\S+\s*=", rest):
        return Told("two statements on one line", "Write each key = value on a line of its own.")
    return Told("something stands behind the value", "One value ends the line; text with quotes in it stands in '…'.")


def _array(before: str, rest: str) -> Told:
    if rest.startswith(("}", ")")):
        return Told(f"this array ends with {rest[0]}", "Close it with ].")
    if not rest.strip() or re.match(r"\s*([\w.-]+\s*=|\[)", rest) or not before.strip():
        return Told("this array is not closed", "Close it with ] before this line; entries are separated by commas.")
    return Told("a comma is missing in this array", "Write one between the entries: [1, 2].")


def _inline(_before: str, rest: str) -> Told:
    if not rest.strip():
        return Told(
            "this inline table is not closed", "Close it with } on the same line; for more lines write [table]."
        )
    if rest.startswith(("]", ")")):
        return Told(f"this inline table ends with {rest[0]}", "Close it with }.")
    return Told("a comma is missing in this inline table", "Write one between the entries: { a = 1, b = 2 }.")


def _header(before: str, rest: str) -> Told:
    brackets = "]]" if before.lstrip().startswith("[[") else "]"
    if not rest.strip() or rest.startswith(("]", "#")):
        return Told("", f"Close it with {brackets}")
    name = f"{before}{rest}".strip("[] ").split("]")[0]
    return Told("", f'A name with other characters than A-Z a-z 0-9 _ - needs quotes: ["{name[:60]}"].')


def _illegal(_before: str, rest: str) -> Told:
    return Told("text is not closed on its line" if not rest.strip("\r") else "", _CLOSE)


_BY_MESSAGE = {
    "Invalid value": _value,
    "Expected '='": _pair,
    "Invalid statement": _statement,
    "Invalid initial character": _key,
    "Expected newline or end of document": _behind,
    "Unclosed array": _array,
    "Unclosed inline table": _inline,
    "Expected ']": _header,
    "Illegal character": _illegal,
    "Unterminated string": lambda *_: Told("text is not closed", _CLOSE),
    "Expected \"'": lambda *_: Told("text is not closed", _CLOSE),
    "Invalid hex value": lambda *_: Told("", _BACKSLASH),
    "Unescaped '\\'": lambda *_: Told("", _BACKSLASH),
    "Escaped character": lambda *_: Told(
        "this escape is no character, half a pair perhaps", "Write the character itself, or \\U and its eight digits."
    ),
}
