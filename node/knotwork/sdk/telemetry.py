"""What a telemetry sink is, and the three things it is told: events, spans and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `name` is `room.what`, `time_ns` nanoseconds since 1970, `data` plain data."""

    name: str
    time_ns: int
    node: str = ""
    project: str = ""
    level: Literal["debug", "info", "warning", "error"] = "info"
    data: Mapping[str, Any] = field(default_factory=dict)
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work with a beginning and an end; ids are lower-case hex as in W3C Trace Context."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    kind: Literal["internal", "client", "server", "producer", "consumer"] = "internal"
    ok: bool = True
    error: str = ""
    node: str = ""
    project: str = ""
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value. A counter's `value` is what is added, a gauge's what it is now, a histogram's one sample.

    Names follow Prometheus: base units (`seconds`, `bytes`), counters end in `_total`. A histogram may also come as
    many samples at once: `bounds` are the upper bounds of its buckets, ascending, `counts` the samples in each bucket
    and, last, above all bounds (one more than `bounds`); `value` is then the sum of the samples.
    """

    name: str
    value: float
    kind: Literal["counter", "gauge", "histogram"]
    labels: Mapping[str, str] = field(default_factory=dict)
    help: str = ""
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


Record = Event | Span | Metric


class Telemetry(Protocol):
    """The contract of a sink. It gets batches from a bounded queue of its own; what it loses, it alone loses.

    It may have an attribute `wants`, a frozenset of "events", "spans", "metrics", to get only these; read once.
    """

    async def emit(self, records: Sequence[Record]) -> None:
        """Take a batch. Raising marks the batch as lost and is counted, nothing else."""
        ...


@runtime_checkable
class Scraped(Protocol):
    """Optional ability of a sink: answer `GET /metrics` on the node's HTTP door."""

    def scrape(self) -> tuple[str, bytes]:
        """Return the content type and the body."""
        ...
