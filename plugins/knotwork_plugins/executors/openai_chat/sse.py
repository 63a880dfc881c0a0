"""What are the events in a stream of server-sent events? Pure: bytes in, data texts out, with bounded memory."""

from __future__ import annotations

import codecs


class EventTooLarge(Exception):
    """One event has more bytes than allowed."""


class Events:
    """Cuts a byte stream into the `data` of its events; comments and other fields are dropped."""

    def __init__(self, event_max: int = 4_000_000) -> None:
        """Start empty. `event_max` bounds one event in bytes."""
        self._max = event_max
        self._parts: list[bytes] = []
        self._size = 0
        self._data: list[bytes] = []
        self._after_cr = False
        self._begun = False

    def push(self, chunk: bytes) -> list[str]:
        """Add a chunk and return the data of the events it completed; raises `EventTooLarge`."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a line end cut in two
        self._after_cr = chunk.endswith(b"\r") if chunk else self._after_cr
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        found: list[str] = []
        for line in lines:
            self._add(line)
            whole = b"".join(self._parts)
            self._parts = []
            if whole:
                self._field(whole)
            else:
                found += self.rest()
        self._add(rest)
        return found

    def rest(self) -> list[str]:
        """Take the data of an event that no empty line has ended; some servers leave the last one open."""
        if self._parts:
            self._field(b"".join(self._parts))
        data, self._data, self._parts, self._size = self._data, [], [], 0
        return [b"\n".join(data).decode("utf-8", "replace")] if data else []

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max:
            raise EventTooLarge
        if part:
            self._parts.append(part)

    def _field(self, line: bytes) -> None:
        if not self._begun:
            line, self._begun = line.removeprefix(codecs.BOM_UTF8), True
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
