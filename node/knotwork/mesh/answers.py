"""How does an answer get to its caller? At once, or later when there is no room for it or no link now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus.pauses import Pauses
from knotwork.mesh import late
from knotwork.sdk.errors import KnotworkError, TooLarge, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.frames import Kind
    from knotwork.mesh.job import Job

log = logging.getLogger(__name__)


class Answers:
    """The answers of this node; `waiting` are those that could not be sent yet."""

    def __init__(self, group: asyncio.TaskGroup, sent: Callable[[], None]) -> None:
        """Send in tasks of `group` what cannot be sent at once; `sent()` is called when one of those is sent, or given up."""
        self._group, self._sent = group, sent
        self.waiting = 0

    def send(self, job: Job, kind: Kind, data: bytes) -> None:
        """Send the last frame of a call, later when it cannot be now; raises `TooLarge`."""
        try:
            job.answer.frame(kind, data)
        except TooLarge:
            raise
        except Unreachable as error:
            keep_s = late.WAIT_S if late.is_full(error) else late.keep_s(job.envelope.timeout_s, job.arrived_ns)
            sending = self._send_late(job, kind, data, keep_s)
            try:
                self._group.create_task(sending)
            except RuntimeError:  # the group is closing
                sending.close()
                job.answer.close()
            else:
                self.waiting += 1
        except KnotworkError as lost:
            log.warning("the answer of %s could not be sent: %s", job.agent.record.name, lost)

    async def _send_late(self, job: Job, kind: Kind, data: bytes, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + within_s
        pauses = Pauses(late.POLL_S, late.POLL_MAX_S)
        try:
            while True:
                await pauses.wait()
                try:
                    job.answer.frame(kind, data)
                except Unreachable:
                    if loop.time() < give_up_s:
                        continue
                    raise
                return
        except KnotworkError as lost:
            log.warning("the answer of %s could not be sent: %s", job.agent.record.name, lost)
        finally:
            job.answer.close()
            self.waiting -= 1
            self._sent()
