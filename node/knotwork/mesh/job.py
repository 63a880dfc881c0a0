"""What is one call on its way through this node, and one agent that takes it? The records `hosting` works with."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from knotwork.bus import codec, frames
from knotwork.config import secrets
from knotwork.mesh import late
from knotwork.sdk.errors import Failed, Invalid, KnotworkError, Unreachable
from knotwork.sockets import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.bus.frames import Envelope, Kind
    from knotwork.mesh.admission import Admission
    from knotwork.mesh.records import AgentRecord
    from knotwork.mesh.schemas import Schema
    from knotwork.sockets.slot import Slot
    from knotwork.telemetry import trace
    from knotwork.telemetry.measure import AgentMeter

log = logging.getLogger(__name__)


class Answering(Protocol):
    """The way back to a caller."""

    def frame(self, kind: Kind, data: bytes) -> None:
        """Send one frame.

        Raises `TooLarge`, and `Unreachable` for a frame that must be tried again: without it the answer had a hole.
        """

    def close(self) -> None:
        """Give up: nothing more will be sent."""


@dataclass(slots=True)
class Tally:
    """What happened at one endpoint (`micro.Counts`); `busy_ns` is nanoseconds of work."""

    requests: int = 0
    errors: int = 0
    busy_ns: int = 0
    last_error: str = ""


@dataclass(eq=False, slots=True)
class HostedAgent:
    """One agent of this node. `record` is what others see of it (without the load of the moment).

    `admission` and `counts` are handed over when a reload exchanges the agent, so that calls under way stay counted.
    """

    record: AgentRecord
    projects: frozenset[str]
    slot: Slot
    admission: Admission[Job]
    input_schema: Schema | None = None
    output_schema: Schema | None = None
    counts: Tally = field(default_factory=Tally)

    @property
    def key(self) -> str:
        """Return what it is known by among those who take tasks here."""
        return self.record.name

    @property
    def up(self) -> bool:
        """Return whether it can be given anything now."""
        return self.slot.state == "running"

    @property
    def places(self) -> int:
        """Return how much it can do at once."""
        return self.admission.concurrency

    @property
    def free(self) -> int:
        """Return how many places nobody has taken or waits for."""
        return self.admission.concurrency - self.admission.running - self.admission.queued


@dataclass(eq=False, slots=True)
class Job:
    """One call on its way through. `begun`: its executor was asked; `unsent`: pieces that wait, or were given up.

    `why` is the error that it ends with when its executor has obeyed: in any case when it is `late`. One that is
    `durable` is answered when its executor has ended.
    """

    agent: HostedAgent
    project: str
    envelope: Envelope
    data: bytes
    answer: Answering
    arrived_ns: int
    meter: AgentMeter
    allowed_s: float
    labels: Mapping[str, str]
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    over: bool = False
    why: KnotworkError | None = None
    late: bool = False
    durable: bool = False
    begun: bool = False
    told_s: float = 0.0
    span: trace.Child | None = None
    unsent: int = 0
    line: asyncio.Lock | None = None

    def progress(self, percent: float | None, text: str) -> None:
        """Tell the caller how far it is (`sdk.Reporter`)."""
        if not (self.over or self.envelope.plain):
            with contextlib.suppress(KnotworkError):  # what cannot be told is not worth the work
                self.answer.frame("progress", codec.encode({"percent": percent, "text": str(text)[:4096]}))

    async def stream(self, chunk: Any) -> None:
        """Send the caller a piece of output (`sdk.Reporter`); waits for room up to ten seconds.

        Raises `Busy` (`call.reader_too_slow`) when there is none; the call then ends with that error, not as done.
        """
        if self.over or self.envelope.plain:
            return
        data = codec.encode(chunk)
        if self.unsent or not self._sent(data):
            await self._wait_in_line(data)
        await asyncio.sleep(0)  # a fast producer must let the loop send

    def left_s(self) -> float | None:
        """Return how long the work may take from now on; None: as long as it likes."""
        if self.timer is None:
            return self.allowed_s if self.allowed_s < math.inf else None
        return max(0.0, self.timer.when() - asyncio.get_running_loop().time())

    def error_body(self, error: KnotworkError) -> bytes:
        """Return the body of an error that says whether the work had begun, whatever its executor wrote there.

        A call that had begun is never given to another agent by itself. What an executor failed with may quote a secret
        it was given: every known one is redacted.
        """
        error.message, error.hint = secrets.redact(error.message), secrets.redact(error.hint)
        detail = {key: value for key, value in error.detail.items() if key != "begun"}
        error.detail = secrets.redact_tree(detail)
        if not self.begun:
            return frames.error_body(error)
        error.detail["begun"] = True
        try:
            return codec.encode(error.to_wire())
        except Invalid:  # what cannot be said is left out, but not this
            return codec.encode({**codec.decode(frames.error_body(error)), "detail": {"begun": True}})

    def _sent(self, data: bytes) -> bool:
        try:
            self.answer.frame("chunk", data)
        except Unreachable:
            return False
        return True

    async def _wait_in_line(self, data: bytes) -> None:
        """Send a piece as soon as there is room and all before it are sent; one that is given up stays `unsent`."""
        self.unsent += 1
        self.line = self.line or asyncio.Lock()
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + late.WAIT_S
        async with self.line:
            while not (self.over or self._sent(data)):
                if loop.time() >= give_up_s:
                    raise late.too_slow()
                await asyncio.sleep(late.POLL_S)
        self.unsent -= 1


def crashed(job: Job, error: BaseException) -> Failed:
    """Return what a call ends with whose executor raised something that is none of our errors."""
    log.warning("agent %s raised", job.agent.record.name, exc_info=error)
    return Failed(said.crash(error), code="agent.crashed", detail={"retriable": True})
