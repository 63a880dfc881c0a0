"""How does Prometheus read the metrics of this node? From `GET /metrics` on the node's HTTP door."""

from __future__ import annotations

import importlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from knotwork.sdk import Context, Factory, Metric, PluginConfig, Record, Telemetry
from knotwork_plugins.telemetry import thread
from knotwork_plugins.telemetry.series import Family, Series, Spread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PrometheusConfig(PluginConfig):
    """Metrics for `GET /metrics`; events and spans are not for Prometheus."""

    series_max: int = Field(
        default=10_000, ge=1, le=1_000_000, description="series kept; records of more are refused and counted"
    )
    process: bool = Field(default=True, description="also tell memory, processor time and open files of the node")


class Prometheus:
    """The sink; `scrape` may be called from any thread."""

    wants = frozenset({"metrics"})

    def __init__(self, config: PrometheusConfig, client: Any) -> None:
        """Use `open_prometheus`; `client` is the module prometheus_client."""
        self._client = client
        self._series = Series(config.series_max)
        self._registry = client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        if config.process:
            client.ProcessCollector(registry=self._registry)

    async def emit(self, records: Sequence[Record]) -> None:
        """Add up the metrics."""
        for record in records:
            if isinstance(record, Metric):
                self._series.add(record)

    def scrape(self) -> tuple[str, bytes]:
        """Return content type and body in Prometheus' text format."""
        return CONTENT_TYPE, self._client.generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """Yield the families as prometheus_client's registry asks for them."""
        for family in self._series.snapshot():
            yield self._shown(family)
        refused = self._client.metrics_core.CounterMetricFamily(
            "knotwork_prometheus_refused", "Metric records that did not fit and were left out."
        )
        refused.add_metric([], self._series.refused)
        yield refused

    def _shown(self, family: Family) -> Any:
        # samples are added one by one, each with labels of its own: families with fixed label names would raise when
        # two records of one name differ in their labels
        shown = self._client.Metric(family.name, family.help or family.name, family.kind)
        for labels, row in family.rows.items():
            if isinstance(row, Spread):
                _add_buckets(shown, dict(labels), row)
            else:
                shown.add_sample(family.name + ("_total" if family.kind == "counter" else ""), dict(labels), row)
        return shown


def _add_buckets(shown: Any, labels: dict[str, str], row: Spread) -> None:
    below = 0
    for bound, count in zip((*map(repr, row.bounds), "+Inf"), row.counts, strict=True):
        below += count
        shown.add_sample(f"{shown.name}_bucket", {**labels, "le": bound}, below)
    shown.add_sample(f"{shown.name}_count", labels, below)
    shown.add_sample(f"{shown.name}_sum", labels, row.total)


@asynccontextmanager
async def open_prometheus(config: PrometheusConfig, context: Context) -> AsyncIterator[Telemetry]:
    """Open nothing: the node's HTTP door asks when it is asked."""
    worker = thread.Worker(f"telemetry {context.id}")
    try:
        client = await worker.run(lambda: importlib.import_module("prometheus_client"))
    finally:
        worker.close()
    yield Prometheus(config, client)


FACTORY: Factory[Telemetry] = Factory(
    name="prometheus",
    config=PrometheusConfig,
    open=open_prometheus,
    summary="Answers GET /metrics on the node's HTTP door, in Prometheus' text format.",
    abilities=("scraped",),
)
