"""What happens when a timer of a run is due? The next attempt is queued, or the deadline ends the task.

Fired messages stay in TIMERS until they are handled, by one node or another; handling one twice does no harm. What is
handled is removed in bulk, up to the first that is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from knotwork.bus import patterns, pulls, reading, streams, subjects
from knotwork.bus.background import begin_in
from knotwork.sdk.errors import Invalid, KnotworkError
from knotwork.work import records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.pulls import Delivery
    from knotwork.work.records import Task

log = logging.getLogger(__name__)
CONSUMER = "fired"
LEASE_S = 10.0
BATCH = 256
WAIT_S = 20.0
OnDue = Callable[[str, "Task"], Awaitable[None]]
OnFact = Callable[[str], Awaitable[None]]
FACT = "fact-"
"""What the name of a timer begins with that starts nothing: that it fired becomes a fact of its run."""


class Timers:
    """Takes fired timers of one project."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        on_due: OnDue,
        on_fact: OnFact,
        *,
        lease_s: float = LEASE_S,
    ) -> None:
        """Hand each to `on_due(name, task)` in a task of `group`; what fails is taken again after `lease_s` seconds.

        One that is to become a fact goes to `on_fact`, which is given the place of that fact.
        """
        self._group, self._connection, self._lease_s = group, connection, lease_s
        self._on_due, self._on_fact = on_due, on_fact
        self._pulls = pulls.Pulls(connection, subjects.TIMERS, self._arrived, self._no_more)
        self._asked_s = 0.0
        self._left = 0
        self._purged_to = 0

    async def open(self) -> None:
        """Make the consumer and listen."""
        config = {
            "filter_subject": patterns.FIRED, "ack_wait": int(self._lease_s * streams.NS), "max_deliver": -1,
            "max_ack_pending": 10_000, "deliver_policy": "all",
        }  # fmt: skip
        await pulls.ensure_consumer(self._connection, subjects.TIMERS, CONSUMER, config)
        await self._pulls.open()

    def look(self, *, anew: bool = False) -> None:
        """Keep a request open; call it every second or so, `anew` after a reconnect."""
        now_s = time.monotonic()
        if anew:
            self._pulls.forget()
            self._purged_to = 0
        if anew or self._left <= 0 or now_s - self._asked_s > WAIT_S + 2:
            self._left, self._asked_s = BATCH, now_s
            try:
                self._pulls.ask(CONSUMER, BATCH, wait_s=WAIT_S)
            except KnotworkError:
                self._left = 0

    async def forget_handled(self) -> None:
        """Remove what fired and was handled; call it every second or so. Raises `Unavailable` when NATS is away."""
        told = await streams.api(self._connection, f"CONSUMER.INFO.{subjects.TIMERS}.{CONSUMER}")
        floor = int((told.get("ack_floor") or {}).get("stream_seq", 0))
        if floor > self._purged_to:
            await reading.purge(self._connection, subjects.TIMERS, patterns.FIRED, floor + 1)
            self._purged_to = floor

    def _no_more(self, _consumer: str) -> None:
        self._left = 0
        self.look()

    def _arrived(self, delivery: Delivery) -> None:
        self._left -= 1
        if self._left <= 0:
            self.look()
        begin_in(self._group, self._handle(delivery))  # else another node takes it

    async def _handle(self, delivery: Delivery) -> None:
        name = delivery.subject.rpartition(".")[2]
        try:
            if name.startswith(FACT):
                run = delivery.subject.split(".")[2]
                await self._on_fact(f"{records.facts_of(run)}.fired.{name.removeprefix(FACT)}")
            else:
                await self._on_due(name, records.decode_task(delivery.data))
        except Invalid as error:
            log.error("a timer on %s makes no sense and is dropped: %s", delivery.subject, error)  # noqa: TRY400
        except KnotworkError as error:
            log.debug("the timer %s is handled again: %s", delivery.subject, error)
            return
        self._pulls.answer(delivery.reply, pulls.ACK)
