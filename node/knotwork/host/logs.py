"""What does a node tell people while it runs? One line per thing that happened, on standard error, secrets redacted.

Whoever reads it may stop reading: a pager that is not scrolled, a terminal held by Ctrl-S, a collector that is stuck. A
node goes on then, so its lines are written by a thread, and nothing else waits for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from queue import SimpleQueue

from knotwork.config import secrets

NOISY = ("nats", "httpx", "httpcore", "watchfiles", "uvicorn")
STANDARD_ERROR = 2
WAITING_MAX = 10_000
"""So many lines wait for a reader; those beyond are counted, and not told."""
FLUSH_S = 1.0
"""How long the end of a process waits for what was not yet written."""


class Lines(logging.Handler):
    """Writes lines to a file descriptor without making anybody wait; `flush` waits, for `FLUSH_S` at most."""

    def __init__(self, descriptor: int) -> None:
        """Begin to write; the descriptor stays open."""
        super().__init__()
        self._descriptor = descriptor
        self._waiting: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._lost = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  a line that cannot be made must not end whoever wanted to log it
            self.handleError(record)
            return
        if self._waiting.qsize() >= WAITING_MAX:
            self._lost += 1
        else:
            self._waiting.put(f"{line}\n")

    def flush(self) -> None:
        """Wait until all that was said is written, or nobody reads it."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(FLUSH_S)

    def _run(self) -> None:
        told_lost = 0
        while True:
            taken = [self._waiting.get()]
            while not self._waiting.empty():  # many lines are one write: a thread gets its turn seldom on a busy node
                taken.append(self._waiting.get())
            lost = self._lost - told_lost
            told_lost += lost
            told = [one for one in taken if isinstance(one, str)]
            if lost:
                told.append(f"{lost} lines of the log were lost: nobody read it\n")
            self._write("".join(told).encode("utf-8", "backslashreplace"))
            for one in taken:
                if isinstance(one, threading.Event):
                    one.set()

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk, or a reader that went: the node goes on
            while text:
                text = text[os.write(self._descriptor, text) :]


def start(level: str, *, quiet: bool) -> None:
    """Log to standard error from now on; with `quiet` only warnings and errors."""
    handler = Lines(STANDARD_ERROR)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.addFilter(secrets.SecretLogFilter())
    logging.basicConfig(level="WARNING" if quiet else level.upper(), handlers=[handler], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_level(level: str, *, quiet: bool) -> None:
    """Log from this level on."""
    logging.getLogger().setLevel(logging.WARNING if quiet else level.upper())


def flush() -> None:
    """Wait until what was logged is written, `FLUSH_S` at most: before something is said beside it, and before the end."""
    for handler in logging.getLogger().handlers:
        handler.flush()
