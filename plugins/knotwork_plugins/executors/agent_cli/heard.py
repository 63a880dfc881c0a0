"""What has a vendor's command line said so far?

`Heard` gathers the answer, the session, the usage and the trouble from a stream of events. The readers below take any
JSON value and never raise: events come from a program that changes weekly, and one odd field must not lose an answer.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knotwork_plugins.executors import trouble
from knotwork_plugins.executors.prompting import clean

NOTE_MAX = 200
_NOTES_WAITING = 100
_OVERHEARD_LINES, _OVERHEARD_MAX = 5, 500
_TELLING = ("command", "file_path", "path", "pattern", "query", "url", "description", "prompt")


@dataclass(slots=True)
class Heard:
    """One run as its events tell it. `text_max` bounds the kept answer in characters."""

    text_max: int = 4_000_000
    session: str = ""
    model: str = ""
    answer: str | None = None
    structured: Any = None
    usage: dict[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None
    turns: int | None = None
    resets_at_s: float | None = None
    ended: bool = False
    truncated: bool = False
    trouble: trouble.Trouble | None = None
    unread: int = 0
    overheard: deque[str] = field(default_factory=lambda: deque(maxlen=_OVERHEARD_LINES))
    spoken: list[str] = field(default_factory=list)
    chunks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    streaming: bool = False
    _size: int = 0

    def say(self, text: str) -> None:
        """Add live text of the answer."""
        if not text:
            return
        self.chunks.append(text)
        room = self.text_max - self._size
        if len(text) > room:
            self.truncated = True
            text = text[:room]
        self._size += len(text)
        self.spoken.append(text)

    def pause(self) -> None:
        """Start the answer anew: what was said before a tool ran was thinking aloud."""
        self.spoken.clear()
        self._size = 0

    def note(self, text: str) -> None:
        """Add a line about what it is doing."""
        if len(self.notes) < _NOTES_WAITING:
            self.notes.append(text[:NOTE_MAX])

    def overhear(self, line: bytes) -> None:
        """Count a line that is no event; the last ones are kept, for they may say why it fails."""
        self.unread += 1
        if text := line[:_OVERHEARD_MAX].decode("utf-8", "replace").strip():
            self.overheard.append(text)

    def settle(self, text: str) -> None:
        """Keep the final answer as the vendor states it."""
        if len(text) > self.text_max:
            self.truncated = True
        self.answer = text[: self.text_max]

    def fail(
        self, message: str, *, status: int | None = None, kind: str = "", retry_after_s: float | None = None
    ) -> None:
        """Keep a trouble; the first with a known cause stays, since what follows it is often only its echo."""
        found = trouble.sort(message, status=status, kind=kind, retry_after_s=retry_after_s)
        if self.trouble is None or self.trouble.code == trouble.FAILED:
            self.trouble = found

    @property
    def text(self) -> str:
        """Return the final answer, or what was said so far."""
        return self.answer if self.answer is not None else "".join(self.spoken)

    def output(self) -> dict[str, Any]:
        """Return the run as plain data: text, session, model, usage, cost; only what is known."""
        known = {
            "session": self.session,
            "model": self.model,
            "usage": self.usage,
            "cost_usd": self.cost_usd,
            "turns": self.turns,
            "structured": self.structured,
        }
        output = {"text": self.text, **{name: value for name, value in known.items() if value not in ("", None, {})}}
        if self.truncated:
            output["truncated"] = True
        return output


def event_of(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line, None when there is none."""
    if not line.startswith(b"{"):
        return None
    try:
        event = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _refuse(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def text_in(event: Any, *path: str) -> str:
    """Return the string at a path of keys, "" when there is none."""
    value = value_in(event, *path)
    return clean(value) if isinstance(value, str) else ""


def number_in(event: Any, *path: str) -> float | None:
    """Return the number at a path of keys, None when there is none."""
    value = value_in(event, *path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole_in(event: Any, *path: str) -> int | None:
    """Return the whole number at a path of keys, None when there is none."""
    number = number_in(event, *path)
    return int(number) if number is not None and number.is_integer() else None


def value_in(event: Any, *path: str) -> Any:
    """Return whatever stands at a path of keys, None when nothing does."""
    for key in path:
        if not isinstance(event, Mapping):
            return None
        event = event.get(key)
    return event


def plain(value: Any) -> Any:
    """Return a JSON value that every encoder takes: no infinite numbers, no lone surrogates; None when it cannot be."""
    try:
        return json.loads(clean(json.dumps(value, ensure_ascii=False, allow_nan=False)))
    except (ValueError, RecursionError):
        return None


def items_in(event: Any, *path: str) -> list[Any]:
    """Return the list at a path of keys, an empty one when there is none."""
    value = value_in(event, *path)
    return value if isinstance(value, list) else []


def numbers_in(event: Any, *path: str) -> dict[str, Any]:
    """Return the numbers directly in the object at a path: token counts and the like."""
    value = value_in(event, *path)
    if not isinstance(value, Mapping):
        return {}
    return {
        clean(key): number
        for key, number in list(value.items())[:50]
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 2**53
    }


def doing(tool: str, given: Any) -> str:
    """Return one line for a tool call: its name and the argument that tells most."""
    for key in _TELLING:
        if told := text_in(given, key):
            return f"{tool or 'tool'}: {' '.join(told[: 2 * NOTE_MAX].split())}"
    return tool or "tool"
