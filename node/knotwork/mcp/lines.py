"""How do lines come in and go out over standard input and output, whatever stands behind them? By one thread each way.

A pipe, a file, a terminal: each can only be read and written without waiting in its own way, a thread does not care.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

LINE_MAX_BYTES = 8 * 1024 * 1024
_CHUNK = 1 << 16
UNWRITTEN_MAX_BYTES = 64 * 1024 * 1024
"""What a client may leave unread before we give it up."""
_FLUSH_S = 5.0
_EDGE = 1024


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line that is left out: how it begins and how it ends, where the id of a request stands."""

    begin: bytes
    end: bytes


class Splitter:
    """Cuts bytes into lines; one that is too long is left out and told of (pure)."""

    def __init__(self, most: int = LINE_MAX_BYTES) -> None:
        """Begin with nothing; a line has at most `most` bytes."""
        self._most = most
        self._parts: list[bytes] = []
        self._held = 0
        self._begin, self._tail = b"", b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes | TooLong]:
        """Return the lines that end in a chunk, `TooLong` for each that was."""
        *ended, rest = chunk.split(b"\n")
        found = [self._end(piece) for piece in ended]
        self._keep(rest)
        return [line for line in found if isinstance(line, TooLong) or line.strip()]

    def last(self) -> bytes | TooLong | None:
        """Return what stands behind the last line end, as a line."""
        return self._end(b"") or None

    def _keep(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held <= self._most:
            self._parts += [piece] if piece else []
            return
        if not self._skipping:
            whole = b"".join(self._parts)
            self._begin, self._tail = (whole + piece)[:_EDGE], whole[-_EDGE:]
            self._skipping, self._parts = True, []
        self._tail = (self._tail + piece)[-_EDGE:]

    def _end(self, piece: bytes) -> bytes | TooLong:
        self._keep(piece)
        line = TooLong(self._begin, self._tail) if self._skipping else b"".join(self._parts)
        self._parts, self._held, self._skipping = [], 0, False
        return line


class Lines:
    """Lines from one file descriptor, and to another."""

    def __init__(self, read_fd: int = 0, write_fd: int = 1) -> None:
        """Use standard input and output, unless other descriptors are given."""
        self._read_fd, self._write_fd = read_fd, write_fd
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unwritten = 0
        self._broken = False
        self._unread: Callable[[], object] = lambda: None
        self._writer = threading.Thread(target=self._write, name="stdout", daemon=True)

    def start(self, on_line: Callable[[bytes | TooLong], None], on_end: Callable[[], None]) -> None:
        """Begin; both are called in the running loop, `on_end` also when nobody reads any more."""
        loop = asyncio.get_running_loop()

        def tell(what: Callable[..., None], *given: bytes | TooLong) -> bool:
            try:
                loop.call_soon_threadsafe(what, *given)
            except RuntimeError:  # the loop is over
                return False
            return True

        def read() -> None:
            splitter = Splitter()
            while chunk := self._next():
                for line in splitter.feed(chunk):
                    if not tell(on_line, line):
                        return
            last = splitter.last()
            if last is not None and (isinstance(last, TooLong) or last.strip()):
                tell(on_line, last)
            tell(on_end)

        self._unread = lambda: tell(on_end)
        self._writer.start()
        threading.Thread(target=read, name="stdin", daemon=True).start()

    def _next(self) -> bytes:
        try:
            return os.read(self._read_fd, _CHUNK)
        except OSError:  # a terminal that is gone
            return b""

    def send(self, line: bytes) -> bool:
        """Write a line, after those before it; returns False when nobody reads any more."""
        if self._broken or self._unwritten > UNWRITTEN_MAX_BYTES:
            return False
        self._unwritten += len(line)
        self._out.put(line)
        return True

    def close(self) -> None:
        """Write what is left, for as long as makes sense."""
        self._out.put(None)
        self._writer.join(_FLUSH_S)

    def _write(self) -> None:
        while (line := self._out.get()) is not None:
            view = memoryview(line)
            try:
                while view:
                    view = view[os.write(self._write_fd, view) :]
            except OSError:  # nobody reads any more
                self._broken = True
                self._unread()
                return
            self._unwritten -= len(line)
