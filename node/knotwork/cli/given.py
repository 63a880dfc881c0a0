"""What does a word at the shell mean as JSON? Itself, a file, standard input, or plain text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from knotwork.sdk.errors import Invalid


def read_input(text: str) -> Any:
    """Return the JSON value meant by a word: `-` reads standard input, `@file` a file; bare words are text.

    Raises `Invalid` for what begins like JSON and is none.
    """
    if text == "-":
        return _value(sys.stdin.buffer.read(), "standard input")
    if text.startswith("@") and len(text) > 1:
        try:
            return _value(Path(text[1:]).read_bytes(), text[1:])
        except OSError as error:
            raise Invalid(f"{text[1:]} cannot be read: {error.strerror}.", code="cli.input_unreadable") from error
    return _value(text.encode("utf-8", "surrogateescape"), "the input")


def _value(raw: bytes, what: str) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{what} is not UTF-8 text: {error.reason} at byte {error.start}.", code="cli.not_text"
        ) from error
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise Invalid(f"{what} is nested too deeply.", code="wire.not_json") from error
    except ValueError as error:
        if text.lstrip()[:1] not in ("{", "[", '"'):
            return text
        raise Invalid(
            f"{what} begins like JSON and is none: {error}.",
            code="wire.not_json",
            hint="Check the quotes your shell took away, or put it into a file and give @file.",
        ) from error


def _no_constant(name: str) -> Any:
    raise ValueError(name)
