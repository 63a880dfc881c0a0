"""What does a TOML text say, and where is it broken? Several breaks are found in one go.

tomllib stops at the first error. When the line it stopped at is a statement of its own (everything before it is
whole), that line is set aside and reading goes on, so that all broken lines of a file are told at once.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from knotwork.config import mistakes
from knotwork.config.files import place_of
from knotwork.config.problems import Problem

SYNTAX_SHOWN_MAX = 10
SEVERAL_MAX = 100_000  # characters; of a longer text only the first break is told, since each costs two more readings
DEPTH_MAX = 64
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_DROPPED = "knotwork-dropped-{}"
_TWICE = ("Cannot declare", "Cannot overwrite", "Cannot mutate")
_INLINE = re.compile(r"Duplicate inline table key '(.+)'$")
_TWICE_HINT = "Each id, table and key is written once: merge the two, or remove one."


@dataclass(frozen=True, slots=True)
class Parsed:
    """The tables of one text; after problems only those that could be read (`whole` is false then).

    `text` is the text that was read in the end: broken lines set aside, all others where they were.
    """

    data: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    text: str = ""

    @property
    def whole(self) -> bool:
        """Tell whether the whole text could be read."""
        return not self.problems


def parse(file: str, text: str) -> Parsed:
    """Return the tables of a TOML text and its syntax problems, each with line and column."""
    lines = text.split("\n")
    problems: list[Problem] = []
    while True:
        try:
            data = tomllib.loads("\n".join(lines))
        except RecursionError:
            return Parsed({}, [*problems, _too_deep(file)])
        except ValueError as error:  # TOMLDecodeError, and int() refusing numbers of thousands of digits
            message, line, column = _explain(str(error), text)
            problems.append(_broken(file, text, line, column, message))
            if (
                len(text) > SEVERAL_MAX
                or len(problems) >= SYNTAX_SHOWN_MAX
                or not _set_aside(lines, line, len(problems))
            ):
                return Parsed({}, problems)
        else:
            data = {key: value for key, value in data.items() if not key.startswith(_DROPPED.format(""))}
            if not problems and too_deep(data):
                return Parsed({}, [_too_deep(file)])
            return Parsed(data, problems, "\n".join(lines))


def _set_aside(lines: list[str], line: int, number: int) -> bool:
    """Blank the broken line if it is a statement of its own; a broken header becomes a table that is dropped later."""
    index = line - 1
    if not 0 <= index < len(lines):
        return False
    header = lines[index].lstrip().startswith("[")
    if not header and (
        any(lines[index].count(left) != lines[index].count(right) for left, right in ("[]", "{}"))
        or any(lines[index].count(quote) % 2 for quote in ('"""', "'''"))
    ):
        return False  # it may go on in the next line, which would then be taken for a second mistake
    try:
        tomllib.loads("\n".join(lines[:index]))
    except (ValueError, RecursionError):
        return False
    lines[index] = f"[{_DROPPED.format(number)}]" if header else ""
    return True


def _explain(message: str, text: str) -> tuple[str, int, int]:
    found = _WHERE.search(message)
    line, column = place_of(text, len(text.rstrip()))
    if found and found[1]:
        line, column = int(found[1]), int(found[2])
    if found:
        said = message[: found.start()]
        if inline := _INLINE.match(said):
            return f"duplicate: {inline[1]} is already there", line, _key_column(text, line, column, inline[1])
        message = _duplicate(said, text, line)
        column = _statement_column(text, line) if message.startswith("duplicate") else column
        return message, line, column
    if not found and (digits := re.search(r"\d{1000}", text)):
        line, column = place_of(text, digits.start())
        message = "this number has too many digits"
    return message, line, column


def _duplicate(message: str, text: str, line: int) -> str:
    """Say which table or key is there twice and where it was first, when tomllib only says that one is."""
    if not message.startswith(_TWICE):
        return message
    lines = [written.split("#")[0].strip() for written in text.split("\n")]
    what = lines[line - 1] if lines[line - 1].startswith("[") else lines[line - 1].split("=")[0].strip()
    first = next((i for i in range(line - 1) if lines[i] == what or lines[i].split("=")[0].strip() == what), None)
    return f"duplicate: {what} is already there" + ("" if first is None else f", at line {first + 1}")


def _statement_column(text: str, line: int) -> int:
    written = text.split("\n")[line - 1]
    return len(written) - len(written.lstrip()) + 1


def _key_column(text: str, line: int, column: int, key: str) -> int:
    """Return where a key stands in a line, the last time before `column`; `column` itself when it is written otherwise."""
    before = text.split("\n")[line - 1][: column - 1]
    found = list(re.finditer(rf"""(?<![\w-])["']?{re.escape(key)}["']?\s*=""", before))
    return found[-1].start() + 1 if found else column


def _broken(file: str, text: str, line: int, column: int, message: str) -> Problem:
    """Return the problem that a break is, in words of a person where there are some."""
    if message.startswith("duplicate"):
        return Problem(file, line, column, "", message, _TWICE_HINT, "config.duplicate")
    meant = mistakes.told(message, text, line, column)
    return Problem(file, line, column, "", f"broken TOML: {meant.message or message}", meant.hint, "config.syntax")


def _too_deep(file: str) -> Problem:
    return Problem(file, 1, 1, "", "tables or arrays are nested too deeply", "", "config.too_deep")


def too_deep(value: Any, depth: int = 0) -> bool:
    """Tell whether tables and arrays nest deeper than any reader here goes."""
    if depth > DEPTH_MAX:
        return True
    if isinstance(value, dict):
        return any(too_deep(part, depth + 1) for part in value.values())
    return isinstance(value, list) and any(too_deep(part, depth + 1) for part in value)
