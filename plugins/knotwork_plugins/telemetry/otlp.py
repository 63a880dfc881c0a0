"""How does an OpenTelemetry collector learn what happened? By OTLP over HTTP: spans, events as logs, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from knotwork.sdk import Context, Event, Factory, Metric, Record, SecretRef, Span, Telemetry, Unavailable
from knotwork_plugins.telemetry import thread
from knotwork_plugins.telemetry.series import Series
from knotwork_plugins.telemetry.sink import SinkConfig

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Sequence

    from knotwork_plugins.telemetry.otlp_export import Exports

CLOSE_TIMEOUT_S = 2.0


class OtlpConfig(SinkConfig):
    """A collector, or a service that speaks OTLP over HTTP."""

    endpoint: str = Field(
        default="http://localhost:4318",
        max_length=2048,
        description="base address; /v1/traces, /v1/logs and /v1/metrics are added",
    )
    headers: dict[str, SecretRef | str] = Field(
        default={}, max_length=32, description='HTTP headers; values may be secrets: {Authorization = {env = "TOKEN"}}'
    )
    service_name: str = Field(default="knotwork", min_length=1, max_length=255, description="service.name")
    attributes: dict[str, str] = Field(default={}, max_length=64, description="further attributes of the resource")
    timeout_s: float = Field(default=10.0, gt=0, le=20, description="seconds for one export, with its retries")
    compression: bool = Field(default=True, description="compress with gzip")
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="share of traces sent, chosen by trace id: the same on every node"
    )
    metrics_every_s: float = Field(default=10.0, ge=0.1, le=3600, description="seconds between two sends of metrics")
    series_max: int = Field(default=10_000, ge=1, le=1_000_000, description="metric series kept")
    ca: str = Field(default="", max_length=4096, description='file of trusted certificates; "": those of the system')
    cert: str = Field(default="", max_length=4096, description="client certificate file")
    key: str = Field(default="", max_length=4096, description="client key file")

    @field_validator("endpoint")
    @classmethod
    def _http(cls, endpoint: str) -> str:
        if not endpoint.startswith(("http://", "https://")):
            msg = "must begin with http:// or https://"
            raise ValueError(msg)
        return endpoint.rstrip("/")


class Otlp:
    """The sink; everything is encoded and sent in a thread of its own."""

    def __init__(self, config: OtlpConfig, exports: Exports, worker: thread.Worker, log: logging.Logger) -> None:
        """Use `open_otlp`."""
        self.wants = config.wants
        self._exports, self._worker, self._log = exports, worker, log
        self._series = Series(config.series_max)
        self._every_s = config.metrics_every_s
        self._sample_below = int(config.sample_ratio * 2**64)

    async def emit(self, records: Sequence[Record]) -> None:
        """Send spans and events, add up metrics; raises `Unavailable` when the collector does not take them."""
        spans = [record for record in records if isinstance(record, Span) and self._sampled(record)]
        events = [record for record in records if isinstance(record, Event)]
        for record in records:
            if isinstance(record, Metric):
                self._series.add(record)
        if spans or events:
            await self._worker.run(lambda: self._exports.send(spans, events))

    async def send_metrics(self) -> None:
        """Send the metrics that changed since the last time."""
        families = self._series.snapshot(changed_only=True)
        if families:
            await self._worker.run(lambda: self._exports.send_metrics(families, time.time_ns()))

    async def send_metrics_forever(self) -> None:
        """Send them every `metrics_every_s` seconds; they are sums, so the next time makes up for one that failed."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.send_metrics()
            except (Unavailable, OSError) as error:
                self._log.warning("%s", error)

    def _sampled(self, span: Span) -> bool:
        if self._sample_below >= 2**64:
            return True
        try:
            return int(span.trace_id[16:], 16) < self._sample_below
        except ValueError:
            return False


@asynccontextmanager
async def open_otlp(config: OtlpConfig, context: Context) -> AsyncIterator[Telemetry]:
    """Prepare the exporters; a collector that is away is no reason not to open."""
    headers = {
        name: context.secrets(value) if isinstance(value, SecretRef) else value
        for name, value in config.headers.items()
    }
    worker = thread.Worker(f"telemetry {context.id}")
    try:
        exports = await worker.run(lambda: _exports(config, headers, context.node))
        try:
            sink = Otlp(config, exports, worker, context.log)
            async with asyncio.TaskGroup() as group:
                metrics = group.create_task(sink.send_metrics_forever())
                try:
                    yield sink
                finally:
                    metrics.cancel()
            with contextlib.suppress(Unavailable, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await sink.send_metrics()
        finally:
            exports.close()
    finally:
        worker.close()


def _exports(config: OtlpConfig, headers: dict[str, str], node: str) -> Exports:
    from knotwork_plugins.telemetry import otlp_export  # half a second of OpenTelemetry: in the thread, when opened

    return otlp_export.Exports(
        otlp_export.Target(
            endpoint=config.endpoint,
            headers=headers,
            timeout_s=config.timeout_s,
            gzip=config.compression,
            ca=config.ca,
            cert=config.cert,
            key=config.key,
        ),
        resource={"service.name": config.service_name, "service.instance.id": node, **config.attributes},
    )


FACTORY: Factory[Telemetry] = Factory(
    name="otlp",
    config=OtlpConfig,
    open=open_otlp,
    summary="Sends spans, events (as logs) and metrics to an OpenTelemetry collector by OTLP over HTTP.",
)
