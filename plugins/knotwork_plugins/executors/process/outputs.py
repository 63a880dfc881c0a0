"""What did a command say: its answer, its progress, its last words? Pure: bytes in, values out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Form = Literal["text", "json", "jsonl"]
PROGRESS_TEXT_MAX = 500
LINE_MAX_BYTES = 65536  # of stderr; a longer line is cut in pieces
_PERCENT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*%?(?:\s+|$)")
# What the decoder raises for bytes that are no JSON, or no JSON that could be sent on: see its documentation.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class TooMuchOutput(Exception):
    """More than the allowed bytes of output."""


class NotJson(Exception):
    """The output is not what was promised; `str()` says where."""


@dataclass(frozen=True, slots=True)
class ProgressWords:
    """How progress looks: lines that begin with `prefix`, and JSON lines `{"progress": 40, "text": "…"}`.

    An empty `prefix` turns the first off, `json_lines=False` the second.
    """

    prefix: str
    json_lines: bool
    report: Callable[[float | None, str], None]

    def take(self, line: bytes, *, maybe_json: bool) -> bool:
        """Report the line when it is progress, and say whether it was."""
        if self.prefix and line.startswith(self.prefix.encode()):
            rest = line[len(self.prefix.encode()) :][: PROGRESS_TEXT_MAX * 4].decode(errors="replace").strip()
            percent = _PERCENT.match(rest)
            self._say(float(percent[1]) if percent else None, rest[percent.end() :] if percent else rest)
            return True
        if self.json_lines and maybe_json and line.startswith(b"{") and b'"progress"' in line[:LINE_MAX_BYTES]:
            try:
                value = msgspec.json.decode(line)
            except NOT_JSON:
                return False
            return self.take_value(value)
        return False

    def take_value(self, value: Any) -> bool:
        """Report a decoded JSON line when it is progress and nothing else, and say whether it was."""
        if not self.json_lines or not isinstance(value, dict) or "progress" not in value or value.keys() - _WORDS:
            return False
        percent, text = value["progress"], value.get("text", "")
        number = percent if isinstance(percent, int | float) and not isinstance(percent, bool) else None
        self._say(number, str(text if number is not None or text else percent or ""))
        return True

    def _say(self, percent: float | None, text: str) -> None:
        self.report(None if percent is None else min(max(float(percent), 0.0), 100.0), text[:PROGRESS_TEXT_MAX])


_WORDS = {"progress", "text"}


class Lines:
    """Bytes cut into lines; the unfinished last one is kept for the next piece."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._parts: list[bytes] = []
        self.pending = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield every finished line, without its line end."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._parts:
                self._parts.append(line)
                whole = b"".join(self._parts)
                self._parts.clear()
                self.pending = 0
                yield whole
            else:
                yield line
        if rest:
            self._parts.append(rest)
            self.pending += len(rest)

    def rest(self) -> bytes:
        """Return the unfinished line and forget it."""
        whole = b"".join(self._parts)
        self._parts.clear()
        self.pending = 0
        return whole


class Sieve:
    """Takes progress lines out of a stream of bytes; looks at single lines only where there may be progress."""

    def __init__(self, words: ProgressWords, *, maybe_json: bool) -> None:
        """Begin at the start of a line. `maybe_json`: JSON lines may be progress too."""
        self._words = words
        self._prefix = words.prefix.encode()
        self._json = maybe_json and words.json_lines
        self._held = b""
        self._inside = False  # in the middle of a line that is no progress

    def feed(self, data: bytes) -> bytes:
        """Take a piece, report its progress lines and return the rest of it."""
        data, before = self._held + data, b""
        self._held = b""
        if self._inside:
            end = data.find(b"\n") + 1
            if not end:
                return data
            before, data = data[:end], data[end:]
        start = data.rfind(b"\n") + 1
        whole, tail = data[:start], data[start:]
        if (self._prefix and self._prefix in whole) or (self._json and b'"progress"' in whole):
            lines = whole.split(b"\n")[:-1]
            whole = b"".join(line + b"\n" for line in lines if not self._words.take(line, maybe_json=self._json))
        if tail and len(tail) <= LINE_MAX_BYTES and self._may_become_progress(tail):
            self._held, tail = tail, b""
        self._inside = bool(tail)
        return before + whole + tail

    def finish(self) -> bytes:
        """Return what is left at the end, unless it is progress."""
        held, self._held = self._held, b""
        return b"" if held and self._words.take(held, maybe_json=self._json) else held

    def _may_become_progress(self, tail: bytes) -> bool:
        begins = bool(self._prefix) and self._prefix.startswith(tail[: len(self._prefix)])
        return begins or (self._json and tail.startswith(b"{"))


@dataclass(slots=True)
class Answer:
    """Standard output on its way to a value. Holds at most `limit_bytes` of it, then raises `TooMuchOutput`.

    `trim` takes white space off the end of a text; `live` lets `feed` and `finish` return what is worth streaming:
    whole lines with their ends, so that a reader has the text by putting them together, or JSON values.
    """

    form: Form
    limit_bytes: int
    words: ProgressWords
    trim: bool = True
    live: bool = False
    _lines: Lines = field(default_factory=Lines)
    _sieve: Sieve = field(init=False)
    _kept: bytearray = field(default_factory=bytearray)
    _values: list[Any] = field(default_factory=list)
    _values_bytes: int = 0
    _number: int = 0
    _problem: str = ""

    def __post_init__(self) -> None:
        self._sieve = Sieve(self.words, maybe_json=False)

    def feed(self, data: bytes) -> list[Any]:
        """Take a piece; return what became complete by it when `live`: lines of text, or values of JSON lines."""
        if self.form != "jsonl":
            return self._keep(self._sieve.feed(data))
        fresh = [value for line in self._lines.feed(data) for value in self._take_value(line)]
        self._check(self._values_bytes + self._lines.pending)
        return fresh

    def finish(self) -> list[Any]:
        """Take the last, unfinished line."""
        if self.form == "jsonl":
            return self._take_value(self._lines.rest())
        fresh = self._keep(self._sieve.finish())
        rest = self._lines.rest()
        return [*fresh, _text(rest)] if rest else fresh

    def value(self) -> Any:
        """Return the answer; raises `NotJson` when it is not what `form` promises."""
        if self.form == "jsonl":
            if self._problem:
                raise NotJson(self._problem)
            return self._values
        whole = bytes(self._kept)
        if self.form == "text":
            text = whole.decode(errors="replace")
            return text.rstrip() if self.trim else text
        if not whole.strip():
            raise NotJson("there was no output at all")
        try:
            return msgspec.json.decode(whole)
        except NOT_JSON as error:
            raise NotJson(f"{_short(error)}; it begins with {start_of(whole)}") from error

    def _keep(self, data: bytes) -> list[Any]:
        self._check(len(self._kept) + len(data))
        self._kept += data
        return [_text(line) + "\n" for line in self._lines.feed(data)] if self.live and self.form == "text" else []

    def _take_value(self, line: bytes) -> list[Any]:
        self._number += 1
        if not line.strip() or self.words.take(line, maybe_json=False):
            return []
        try:
            value = msgspec.json.decode(line)
        except NOT_JSON as error:
            self._problem = self._problem or f"line {self._number}: {_short(error)}; it begins with {start_of(line)}"
            self._values_bytes += len(line) + 1  # not kept, but it counts: a flood must come to an end
            self._check(self._values_bytes)
            return []
        if self.words.take_value(value):
            return []
        self._values_bytes += len(line) + 1
        self._check(self._values_bytes)
        self._values.append(value)
        return [value] if self.live else []

    def _check(self, size: int) -> None:
        if size > self.limit_bytes:
            raise TooMuchOutput


class LastWords:
    """The end of standard error: at most `limit_bytes`, progress lines taken out."""

    def __init__(self, limit_bytes: int, words: ProgressWords) -> None:
        """Start with nothing."""
        self._limit_bytes = limit_bytes
        self._sieve = Sieve(words, maybe_json=True)
        self._kept = b""

    def feed(self, data: bytes) -> None:
        """Take a piece and forget what is too old."""
        self._kept = (self._kept + self._sieve.feed(data))[-self._limit_bytes :] if self._limit_bytes else b""

    def text(self) -> str:
        """Return what is left of it."""
        self._kept += self._sieve.finish()
        return self._kept[-self._limit_bytes :].decode(errors="replace").strip() if self._limit_bytes else ""


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def start_of(data: bytes, most: int = 80) -> str:
    """Return the beginning of `data` as a quoted string for a message."""
    text = data[:most].decode(errors="replace")
    return repr(text + "…" if len(data) > most else text)


def _short(error: BaseException) -> str:
    return str(error) or type(error).__name__
