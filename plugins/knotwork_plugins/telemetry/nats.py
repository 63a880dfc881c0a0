"""How do other nodes and later readers learn what happened? From the project's TELEMETRY stream."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import Field

from knotwork.sdk import Context, Factory, KnotworkError, Metric, Record, Stream, Telemetry
from knotwork_plugins.telemetry import lines
from knotwork_plugins.telemetry.sink import SinkConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence


class NatsConfig(SinkConfig):
    """The stream TELEMETRY: subjects `telemetry.events`, `telemetry.spans`, `telemetry.metrics`."""

    message_max_bytes: int = Field(
        default=256 * 1024, ge=1024, le=4 * 1024 * 1024, description="size of one message; more records make more"
    )


class Nats:
    """The sink; each message is a JSON array of records of one kind."""

    def __init__(self, config: NatsConfig, stream: Stream) -> None:
        """Use `open_nats`."""
        self.wants = config.wants
        self._stream, self._max = stream, config.message_max_bytes
        self._line: Callable[[Record], bytes] = lines.encoder()

    async def emit(self, records: Sequence[Record]) -> None:
        """Publish the records of each project; raises `Unavailable` and `NotFound` when those of one are lost, and counted."""
        heaps: dict[tuple[str, str], list[bytes]] = {}
        for record in records:
            heaps.setdefault((lines.kind(record), project_of(record)), []).append(self._line(record))
        lost: KnotworkError | None = None
        for (topic, project), data in heaps.items():
            try:
                for message in self._messages(data):
                    await self._stream.publish(topic, message, project)
            except KnotworkError as error:  # that one is away, or left, is nothing to the others
                lost = error
        if lost is not None:
            raise lost

    def _messages(self, data: list[bytes]) -> Iterator[bytes]:
        """Pack lines into messages; a record that is too large for any is replaced by a note of its size."""
        batch: list[bytes] = []
        size = 2
        for line in data:
            fits = line if len(line) + 2 <= self._max else b'{"record":"oversized","bytes":%d}' % len(line)
            if batch and size + len(fits) + 1 > self._max:
                yield b"[" + b",".join(batch) + b"]"
                batch, size = [], 2
            batch.append(fits)
            size += len(fits) + 1
        yield b"[" + b",".join(batch) + b"]"


def project_of(record: Record) -> str:
    """Return the project a record belongs to, nothing for what belongs to the node as a whole."""
    labels: object = record.labels if isinstance(record, Metric) else {"project": record.project}
    project = labels.get("project", "") if isinstance(labels, Mapping) else ""
    return project if isinstance(project, str) else ""  # a plugin may have made the record of anything


@asynccontextmanager
async def open_nats(config: NatsConfig, context: Context) -> AsyncIterator[Telemetry]:
    """Open nothing: the node's connection is used."""
    yield Nats(config, context.stream)


FACTORY: Factory[Telemetry] = Factory(
    name="nats",
    config=NatsConfig,
    open=open_nats,
    summary="Publishes events, spans and metrics to the project's TELEMETRY stream.",
)
