"""What does a word at the shell mean as JSON? Itself, a file, standard input, or plain text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

from knotwork.sdk.errors import Invalid, TooLarge

READ_MAX_BYTES = 512 * 1024 * 1024
"""Of a file or standard input; exports are read whole, too."""


def read_input(text: str) -> Any:
    """Return the JSON value meant by a word: `-` reads standard input, `@file` a file; bare words are text.

    Raises `Invalid` for what begins like JSON and is none.
    """
    return _value(read_text(text), _what(text))


def is_no_name(word: str | None) -> bool:
    """Return whether a word names a file or standard input, or is a whole text, and so can be no id."""
    return word is not None and (word == "-" or word.startswith(("@", "{")) or "\n" in word)


def read_text(text: str) -> str:
    """Return the text meant by a word: of standard input for `-`, of a file for `@file`, else its own.

    Raises `Invalid` (`cli.not_text`, `cli.input_unreadable`).
    """
    try:
        return read_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{_what(text)} is not UTF-8 text: {error.reason} at byte {error.start}.",
            code="cli.not_text",
            hint="Encode it, for example as base64.",
        ) from error


def _what(text: str) -> str:
    """Return how people call what a word means."""
    return "standard input" if text == "-" else text[1:] if text.startswith("@") and len(text) > 1 else "the input"


def read_bytes(text: str) -> bytes:
    """Return the bytes meant by a word: of standard input for `-`, of a file for `@file`, else its own.

    Raises `Invalid` (`cli.input_unreadable`), and `TooLarge` (`cli.input_too_large`): a device may have no end.
    """
    if text == "-":
        return _bounded(sys.stdin.buffer, text)
    if text.startswith("@") and len(text) > 1:
        try:
            with Path(text[1:]).open("rb") as file:
                return _bounded(file, text)
        except OSError as error:
            raise Invalid(
                f"{text[1:]} cannot be read: {error.strerror}.",
                code="cli.input_unreadable",
                hint="@FILE is what stands in a file, - is standard input.",
            ) from error
    return text.encode("utf-8", "surrogateescape")


def _bounded(file: BinaryIO, text: str) -> bytes:
    found = file.read(READ_MAX_BYTES + 1)
    if len(found) > READ_MAX_BYTES:
        raise TooLarge(
            f"{_what(text)} has more than {READ_MAX_BYTES >> 20} MiB.", code="cli.input_too_large",
            hint="Give it in parts: a blob has 64 MiB at most.",
        )  # fmt: skip
    return found


def _value(text: str, what: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text.lower():  # nobody could write half a character
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise Invalid(f"{what} is nested too deeply.", code="wire.not_json") from error
    except ValueError as error:
        if text.lstrip()[:1] not in ("{", "[", '"'):
            return text
        from knotwork.bus import json_mistakes  # only for those who make some

        wrong = json_mistakes.told(text.encode("utf-8", "surrogatepass"), str(error))
        raise Invalid(
            f"{what} begins like JSON and is none: {wrong.message}.",
            code="wire.not_json",
            hint=f"{wrong.hint} Check the quotes your shell took away, or put it into a file and give @file.",
        ) from error
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)
