"""How does a node stop without dropping work? It takes nothing new, lets calls finish, says who still runs, then ends them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus import clock
from knotwork.sdk.errors import Unavailable

if TYPE_CHECKING:
    from knotwork.mesh.hosting import Hosting, Job
    from knotwork.ops.replies import NodeState

log = logging.getLogger(__name__)
TELL_EVERY_S = 5.0
SHOWN_MAX = 20


class Drain:
    """Whether this node takes work."""

    def __init__(self, hosting: Hosting, on_change: Callable[[], None]) -> None:
        """Take work; `on_change` is called whenever that changes."""
        self._hosting = hosting
        self._on_change = on_change
        self._deadline: asyncio.TimerHandle | None = None
        self.state: NodeState = "starting"

    def open(self) -> None:
        """Take work from now on."""
        self._move("running")

    def begin(self, deadline_s: float) -> None:
        """Take nothing new from now on; what still runs after `deadline_s` seconds is ended (`node.draining`)."""
        if self.state not in ("running", "draining"):
            return
        if self.state == "running":
            self._move("draining")
        self._no_deadline()
        self._deadline = asyncio.get_running_loop().call_later(deadline_s, self._end_rest, "draining")

    def resume(self) -> None:
        """Take work again, unless the node is stopping."""
        if self.state == "draining":
            self._no_deadline()
            self._move("running")

    def shut(self) -> None:
        """Take nothing new from now on, for good."""
        self._no_deadline()
        if self.state != "stopping":
            self._move("stopping")

    async def finish(self, deadline_s: float, *, now: asyncio.Event) -> None:
        """Wait until all calls are over, `deadline_s` seconds at most, or until `now` is set; then end the rest.

        Every five seconds it says who is still running. Calls that are ended are answered with `node.stopping`, so
        that their callers can go elsewhere.
        """
        self.shut()
        end_s = time.monotonic() + deadline_s
        while not (self._hosting.idle.is_set() or now.is_set()) and (left_s := end_s - time.monotonic()) > 0:
            await _first_of(self._hosting.idle, now, min(left_s, TELL_EVERY_S))
            if not self._hosting.idle.is_set() and not now.is_set():
                log.info(
                    "still running, %.0f s left: %s", max(0.0, end_s - time.monotonic()), _who(self._hosting.running())
                )
        if self._end_rest("stopping"):
            await _first_of(self._hosting.idle, now, 2.0)

    def _end_rest(self, what: str) -> bool:
        """End every call that is still here; return whether there was one."""
        rest = self._hosting.running()
        if rest:
            log.warning("ending %d calls: %s", len(rest), _who(rest))
        for job in rest:
            why = f"The node is {what}; the call was ended."
            self._hosting.end(job, Unavailable(why, code=f"node.{what}", retry_after_s=1.0))
        return bool(rest)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _move(self, state: NodeState) -> None:
        self.state = state
        self._hosting.draining = state != "running"
        self._on_change()


async def _first_of(one: asyncio.Event, other: asyncio.Event, timeout_s: float) -> None:
    """Return when either is set, or after `timeout_s`."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(one.wait()), group.create_task(other.wait())]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _who(jobs: list[Job]) -> str:
    told = [f"{job.agent.record.name} ({(clock.now_ns() - job.arrived_ns) / 1e9:.0f} s)" for job in jobs[:SHOWN_MAX]]
    return ", ".join(told) + (f" and {len(jobs) - SHOWN_MAX} more" if len(jobs) > SHOWN_MAX else "")
