"""What did the operator's signals ask for? Caught from the first moment on, acted upon when the node can.

`early` comes before everything else in `knotwork up`: a SIGHUP that finds no handler kills the process. The handlers
are plain ones that stay to the very end: those of an event loop are gone as soon as it closes. From the first request
to stop on an alarm clock runs: a plugin that blocks the loop for ever must not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from knotwork.host import logs

log = logging.getLogger(__name__)

HANGUP = getattr(signal, "SIGHUP", None)
ALARM = getattr(signal, "SIGALRM", None)
STOPPING = tuple(number for name in ("SIGTERM", "SIGINT") if (number := getattr(signal, name, None)) is not None)
PATIENCE_S = 30.0
"""What ending may take besides the drain, until the process is ended by force."""
NOW_S = 10.0
TERMINATED = 143


class Signals:
    """Counts what came; `attach` calls back for what comes, and at once for what came before.

    `limit_s` returns how long a stop may take, in seconds, before the process is ended by force.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.stops = 0
        self.hangups = 0
        self.limit_s: Callable[[], float] = lambda: PATIENCE_S
        self._forced_at_s = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_stop: Callable[[int], None] | None = None
        self._on_hangup: Callable[[], None] | None = None

    def early(self) -> Signals:
        """Catch signals from now on; they are only counted until `attach`."""
        for number in STOPPING:
            signal.signal(number, self._stop)
        if HANGUP is not None:
            signal.signal(HANGUP, self._hang_up)
        if ALARM is not None:
            signal.signal(ALARM, _end_by_force)
        return self

    def attach(self, on_stop: Callable[[int], None], on_hangup: Callable[[], None]) -> None:
        """Deliver signals inside the running loop from now on; `on_stop` gets how many came."""
        self._on_stop, self._on_hangup, self._loop = on_stop, on_hangup, asyncio.get_running_loop()
        if self.stops:
            self._loop.call_soon(on_stop, self.stops)
        elif self.hangups:
            self._loop.call_soon(on_hangup)

    def over(self) -> None:
        """Ignore SIGHUP from now on, the last moments of the interpreter included."""
        if HANGUP is not None:
            signal.signal(HANGUP, signal.SIG_IGN)

    def end_within(self, seconds: float) -> None:
        """End the process by force when it is still there after so many seconds; a shorter limit holds."""
        at_s = time.monotonic() + seconds
        if ALARM is not None and at_s < self._forced_at_s:  # signals that keep coming do not put it off
            self._forced_at_s = at_s
            signal.alarm(max(1, math.ceil(seconds)))

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stops += 1
        self.end_within(self.limit_s() if self.stops == 1 else NOW_S)
        if self._on_stop is not None:
            self._call(self._on_stop, self.stops)

    def _hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self.hangups += 1
        if self._on_hangup is not None:
            self._call(self._on_hangup)

    def _call(self, callback: Callable[..., None], *arguments: int) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near anyway
            self._loop.call_soon_threadsafe(callback, *arguments)


def _end_by_force(_number: int, _frame: FrameType | None) -> None:
    """Leave at once; the warden takes care of what we started."""
    logs.flush()
    if select.select([], [2], [], 0)[1]:  # nobody may be reading
        os.write(2, b"the node did not end in time; ended by force\n")
    os._exit(TERMINATED)


class Stopping:
    """When and how to end: the first signal drains, the second does not wait."""

    def __init__(self, caught: Signals) -> None:
        """Take over the signals, those that came before included; needs the running loop."""
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self.drain_s: float | None = None
        self.caught = caught
        self._reload: Callable[[], None] | None = None
        caught.attach(self._signal, self._hung_up)

    def on_hangup(self, reload: Callable[[], None]) -> None:
        """Call `reload` at every SIGHUP, and now when one came before: the configuration may have been read already."""
        self._reload = reload
        if self.caught.hangups:
            reload()

    async def before(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, and cancel it when the node is told to stop before it is done."""
        async with asyncio.TaskGroup() as group:
            doing, asked = group.create_task(work), group.create_task(self.asked.wait())
            await asyncio.wait([doing, asked], return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            doing.cancel()

    def stop(self, drain_s: float | None) -> None:
        """Stop because an op asked for it; work gets `drain_s` seconds, None: as configured."""
        self.drain_s = drain_s
        self.caught.end_within(self.caught.limit_s() if drain_s is None else PATIENCE_S + drain_s)
        self.asked.set()

    def _hung_up(self) -> None:
        if self._reload is not None:
            self._reload()

    def _signal(self, count: int) -> None:
        if count > 1:
            log.info("stopping now")
            self.now.set()
        else:
            log.info("stopping; a second signal stops now")
        self.asked.set()
