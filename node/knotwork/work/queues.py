"""Which queues are there, and how are they named? One durable consumer for each boundary, route and lane, built here.

A limits stream lets filters overlap, and an overlap would deliver a task twice: so the name and the filter of every
consumer on TASKS come from `Queue` and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from knotwork.bus import patterns, pulls, reading, streams, subjects
from knotwork.bus.subjects import LANES, Lane
from knotwork.sdk.errors import Invalid, NotFound

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

PENDING_MAX = 200_000
"""Tasks of one queue that may be with workers at once."""
LEASE_MIN_S = 1.0
"""The least that `work.lease_s` may be."""
_PLACE = {lane: place for place, lane in enumerate(LANES)}


class Queue(NamedTuple):
    """Where tasks of one boundary, route and lane wait. `routed` is a capability, `=agent` or `node=agent`."""

    boundary: str
    routed: str
    lane: Lane

    @property
    def consumer(self) -> str:
        """Return the name of its one consumer; tokens hold no '+'."""
        return f"{self.boundary}+{self.routed}+{self.lane}"

    @property
    def filter(self) -> str:
        """Return the subjects it takes from."""
        return f"{subjects.task_queue(self.boundary, self.routed, self.lane)}.>"

    @property
    def urgency(self) -> int:
        """Return 0 for the lane that is served first, then 1, 2."""
        return _PLACE[self.lane]


class Depth(NamedTuple):
    """How a queue stands: tasks that wait, tasks that workers have, up to which place all are finished, or delivered.

    A task of it that is not answered for `lease_s` seconds goes to somebody else.
    """

    queue: Queue
    pending: int
    taken: int
    floor: int
    delivered: int
    lease_s: float


class Patience:
    """How long each queue waits for a sign of life of a task: what the node said that opened it last, not what we would.

    Of a queue that was not seen yet the shortest is assumed that a node may be configured with.
    """

    def __init__(self) -> None:
        """Know of no queue."""
        self._lease_s: dict[str, float] = {}

    def swept(self, depths: Iterable[Depth]) -> None:
        """Take note of the queues there are."""
        self._lease_s = {depth.queue.consumer: depth.lease_s for depth in depths}

    def of(self, consumer: str) -> float:
        """Return seconds."""
        return self._lease_s.get(consumer, LEASE_MIN_S)


def from_consumer(name: str) -> Queue | None:
    """Return the queue of a consumer, None when it belongs to none."""
    parts = name.split("+")
    if len(parts) != 3 or parts[2] not in _PLACE:  # noqa: PLR2004
        return None
    boundary, routed, lane = parts
    return Queue(boundary, routed, lane)  # type: ignore[arg-type]  # one of the lanes, as just seen


def from_hint(subject: str) -> Queue | None:
    """Return the queue that a hint is about (`subjects.hint`), None when it is about none."""
    try:
        _, _, boundary, routed, lane = subject.split(".")
        sound = lane in _PLACE and subject == subjects.hint(boundary, routed, lane)
    except (ValueError, Invalid):
        return None
    return Queue(boundary, routed, lane) if sound else None  # type: ignore[arg-type]  # one of the lanes, as just seen


def routed(capability: str = "", agent: str = "", node: str = "") -> str:
    """Return what a task is routed by: the agent when one is named, on its node when one is, else the capability."""
    return f"{node}={agent}" if agent else capability


async def open_queue(connection: Connection, queue: Queue, lease_s: float) -> None:
    """Make sure that the queue can be taken from; a task not answered for `lease_s` seconds goes to somebody else."""
    config: dict[str, Any] = {
        "filter_subject": queue.filter,
        "ack_wait": int(lease_s * streams.NS),
        "max_deliver": -1,
        "max_ack_pending": PENDING_MAX,
        "max_waiting": 10_000,
        "deliver_policy": "all",
    }
    await pulls.ensure_consumer(connection, subjects.TASKS, queue.consumer, config)


async def sweep(connection: Connection) -> list[Depth]:
    """Return how every queue of the project stands."""
    found = []
    for row in await pulls.consumers(connection, subjects.TASKS):
        queue = from_consumer(str(row.get("name", "")))
        if queue is not None:
            found.append(_depth(queue, row))
    return found


async def stands(connection: Connection, queue: Queue) -> Depth | None:
    """Return how a queue stands, None when there is no such queue."""
    try:
        told = await streams.api(connection, f"CONSUMER.INFO.{subjects.TASKS}.{queue.consumer}")
    except NotFound:
        return None
    return _depth(queue, told)


def _depth(queue: Queue, row: dict[str, Any]) -> Depth:
    floor, delivered = row.get("ack_floor") or {}, row.get("delivered") or {}
    lease_ns = (row.get("config") or {}).get("ack_wait", LEASE_MIN_S * streams.NS)
    return Depth(
        queue, int(row.get("num_pending", 0)), int(row.get("num_ack_pending", 0)),
        int(floor.get("stream_seq", 0)), int(delivered.get("stream_seq", 0)), lease_ns / streams.NS,
    )  # fmt: skip


async def forget_finished(connection: Connection, depth: Depth) -> None:
    """Remove what is finished of a queue, up to the first that is not. What was handed back to it still comes at once."""
    await reading.purge(connection, subjects.TASKS, patterns.tasks_to_purge(*depth.queue), depth.floor + 1)


async def given_up_to(connection: Connection, queue: Queue) -> int | None:
    """Return the place in TASKS up to which a queue's tasks were given to workers, None when there is no such queue."""
    depth = await stands(connection, queue)
    return None if depth is None else depth.delivered
