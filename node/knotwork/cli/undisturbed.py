"""How is something done to its end that Ctrl-C must not cut in two? Signals are held back, and act at the end of the block."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and requests to end back while the block runs; the first one acts after it, as it would have before.

    A process started inside has them as usual: handlers are not inherited. Elsewhere than in the main thread, which
    alone is disturbed by signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        came.append(number)

    held = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = [(number, signal.signal(number, remember)) for number in held]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        if came:
            os.kill(os.getpid(), came[0])


@contextmanager
def hangup_ignored() -> Iterator[None]:
    """Let a process that is started inside ignore SIGHUP from its very first moment, before a line of it has run.

    That is inherited, as from `nohup`; a node has its own handler soon. Elsewhere than in the main thread, which alone
    may change what a signal does, nothing is changed.
    """
    number = getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
