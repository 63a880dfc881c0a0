"""What is known of an attempt that an agent of this node works on? Where it came from, since when, and its last sign of life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from knotwork.bus import frames
from knotwork.work.queues import Queue

if TYPE_CHECKING:
    import asyncio

    from knotwork.bus.frames import Kind
    from knotwork.work.records import Task


class Works(Protocol):
    """Who has it carried out (`worker.Worker`)."""

    @property
    def now_s(self) -> float:
        """Return the time that signs of life are measured by."""
        ...

    def ended(self, running: Running, kind: Kind, data: bytes, /) -> None:
        """Settle and record the end of an attempt."""
        ...

    def tell(self, running: Running, kind: Kind, data: bytes, /) -> None:
        """Send progress or live output to whoever watches."""
        ...


@dataclass(eq=False, slots=True)
class Running:
    """One attempt that an agent of this node works on (`mesh.hosting.Answering`). `renewed_s` is monotonic."""

    worker: Works
    task: Task
    data: bytes
    reply: str
    agent: str
    delivery: int
    started_ns: int
    renewed_s: float
    over: bool = False
    withdrawn: bool = False
    timer: asyncio.TimerHandle | None = None
    told_s: float = 0.0
    alive_s: float = 0.0
    """When it gave its last sign of life by itself."""

    @property
    def consumer(self) -> str:
        """Return the consumer it was taken from (`queues.Queue.consumer`)."""
        return Queue(self.task.boundary, self.task.queue, self.task.lane).consumer

    def close(self) -> None:
        """Do nothing: there is no caller who could go away."""

    def frame(self, kind: Kind, data: bytes) -> None:
        """Take what the executor says."""
        if kind in frames.LAST:
            self.worker.ended(self, kind, data)
        elif kind != "alive":
            self.alive_s = self.worker.now_s
            self.worker.tell(self, kind, data)
