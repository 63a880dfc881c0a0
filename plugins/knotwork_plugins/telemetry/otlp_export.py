"""How do our records become OTLP requests? Through OpenTelemetry's exporters, with the ids that the records carry.

Blocking, and heavy to import: only used inside the thread of the otlp sink.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import export as points
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from knotwork.sdk import Unavailable
from knotwork_plugins.telemetry.series import Family, Spread

if TYPE_CHECKING:
    from knotwork.sdk import Event, Span

_log = logging.getLogger("knotwork.telemetry")
R = TypeVar("R")
T = TypeVar("T")
_NS_MAX, _INT_MAX, _TEXT_MAX, _DEPTH_MAX = 2**63 - 1, 2**63 - 1, 4000, 5
_SCOPE = InstrumentationScope("knotwork")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_KINDS = {kind.name.lower(): kind for kind in SpanKind}
_OK = Status(StatusCode.UNSET)  # as OpenTelemetry has it: OK is for a person who overrules an instrument
_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go and how; `ca`, `cert` and `key` are files, "" for none."""

    endpoint: str
    headers: Mapping[str, str]
    timeout_s: float
    gzip: bool
    ca: str
    cert: str
    key: str


class _Reasons(logging.Filter):
    """Keep what an exporter says in our threads, where it is the only account of what went wrong, out of the log.

    The emitter logs a failing sink itself, and less often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(self.last, "ours", False):
            return True
        self.last.text = record.getMessage()
        return False


_reasons = _Reasons()
for _name in ("trace_exporter", "_log_exporter", "metric_exporter"):
    # first, for one of them has a filter that hides what was said a moment ago
    logging.getLogger(f"opentelemetry.exporter.otlp.proto.http.{_name}").filters.insert(0, _reasons)


class Exports:
    """The three exporters of one target. Used in one thread; `close` may be called from another, to end a retry."""

    def __init__(self, target: Target, resource: Mapping[str, str]) -> None:
        """Prepare them; nothing is sent yet."""
        self._endpoint = target.endpoint
        self._resource = Resource.create(dict(resource))
        self._started_ns = time.time_ns()
        keywords: dict[str, Any] = {
            "headers": dict(target.headers),
            "timeout": target.timeout_s,
            "compression": Compression.Gzip if target.gzip else Compression.NoCompression,
            "certificate_file": target.ca or None,
            "client_certificate_file": target.cert or None,
            "client_key_file": target.key or None,
        }
        self._spans = OTLPSpanExporter(endpoint=f"{target.endpoint}/v1/traces", **keywords)
        self._logs = OTLPLogExporter(endpoint=f"{target.endpoint}/v1/logs", **keywords)
        self._metrics = OTLPMetricExporter(endpoint=f"{target.endpoint}/v1/metrics", **keywords)

    def send(self, spans: Sequence[Span], events: Sequence[Event]) -> None:
        """Send both; raises `Unavailable` when either was not taken, after trying the other."""
        made = _each(self._span, spans)
        logs = _each(self._log, events)
        self._check(
            {
                "spans": _sent(lambda: self._spans.export(made).name) if made else "",
                "events": _sent(lambda: self._logs.export(logs).name) if logs else "",
            }
        )

    def send_metrics(self, families: Sequence[Family], now_ns: int) -> None:
        """Send sums since the start of this sink; raises `Unavailable` when they were not taken."""
        metrics = [self._metric(family, now_ns) for family in families]
        scope = points.ScopeMetrics(_SCOPE, metrics, "")
        data = points.MetricsData([points.ResourceMetrics(self._resource, [scope], "")])
        self._check({"metrics": _sent(lambda: self._metrics.export(data).name)})

    def close(self) -> None:
        """End retries and close the connections."""
        for exporter in (self._spans, self._logs, self._metrics):
            exporter.shutdown()

    def _check(self, reasons: dict[str, str]) -> None:
        failed = {what: reason for what, reason in reasons.items() if reason}
        if failed:
            raise Unavailable(
                f"The collector at {self._endpoint} did not take {' and '.join(failed)}: {next(iter(failed.values()))}",
                code="telemetry.collector_away",
                hint="Start it, or mend `endpoint` and `headers`.",
            )

    def _span(self, span: Span) -> ReadableSpan | None:
        context = _context(span.trace_id, span.span_id, remote=False)
        if context is None:
            return None
        attributes = {_text(name): _value(value) for name, value in span.attributes.items()}
        attributes |= _whereabouts(span.node, span.project)
        start_ns = _time_ns(span.start_ns)
        return ReadableSpan(
            name=_text(span.name),
            context=context,
            parent=_context(span.trace_id, span.parent_id, remote=span.kind in {"server", "consumer"}),
            resource=self._resource,
            attributes=attributes,
            kind=_KINDS.get(span.kind, SpanKind.INTERNAL),
            status=_OK if span.ok else Status(StatusCode.ERROR, _text(span.error)),
            start_time=start_ns,
            end_time=max(start_ns, _time_ns(span.end_ns)),
            instrumentation_scope=_SCOPE,
        )

    def _log(self, event: Event) -> ReadableLogRecord:
        ids = event.traceparent.split("-")
        context = _context(ids[1], ids[2], remote=False) if len(ids) >= 4 else None  # noqa: PLR2004 - its four fields
        attributes = {_text(name): _value(value) for name, value in event.data.items()}
        attributes |= _whereabouts(event.node, event.project)
        record = LogRecord(
            timestamp=_time_ns(event.time_ns),
            observed_timestamp=_time_ns(event.time_ns),
            context=set_span_in_context(NonRecordingSpan(context), Context()) if context else Context(),
            severity_text=_text(event.level),
            severity_number=_SEVERITIES.get(event.level, SeverityNumber.INFO),
            body=_text(event.name),
            attributes=attributes,
            event_name=_text(event.name),
        )
        return ReadableLogRecord(record, self._resource, _SCOPE)

    def _metric(self, family: Family, now_ns: int) -> points.Metric:
        numbers = [
            points.NumberDataPoint(dict(labels), self._started_ns, now_ns, row)
            for labels, row in family.rows.items()
            if not isinstance(row, Spread)
        ]
        spreads = [
            points.HistogramDataPoint(
                dict(labels), self._started_ns, now_ns, sum(row.counts), row.total, row.counts, row.bounds, 0.0, 0.0
            )
            for labels, row in family.rows.items()
            if isinstance(row, Spread)
        ]
        data: points.Sum | points.Gauge | points.Histogram
        if family.kind == "counter":
            data = points.Sum(numbers, points.AggregationTemporality.CUMULATIVE, is_monotonic=True)
        elif family.kind == "gauge":
            data = points.Gauge(numbers)
        else:
            data = points.Histogram(spreads, points.AggregationTemporality.CUMULATIVE)
        name = family.name + ("_total" if family.kind == "counter" else "")
        return points.Metric(name, family.help, "s" if family.name.endswith("_seconds") else "", data)


def _each(convert: Callable[[R], T | None], records: Sequence[R]) -> list[T]:
    """Return what can be converted; the rest is left out, for one odd record must not cost its whole batch."""
    made = []
    for record in records:
        try:
            one = convert(record)
        except Exception:  # noqa: BLE001 - a plugin may put anything into a record
            _log.debug("a record could not be converted to OTLP", exc_info=True)
            continue
        if one is not None:
            made.append(one)
    return made


def _sent(export: Callable[[], str]) -> str:
    """Return "" when `export` answered SUCCESS, else why not."""
    _reasons.last.ours, _reasons.last.text = True, "the exporter gave no reason"
    try:
        return "" if export() == "SUCCESS" else str(_reasons.last.text)
    finally:
        _reasons.last.ours = False


def _whereabouts(node: str, project: str) -> dict[str, str]:
    where = {"knotwork.node": node, "knotwork.project": project}
    return {name: _text(value) for name, value in where.items() if value}


def _context(trace_id: str, span_id: str, *, remote: bool) -> SpanContext | None:
    """Return the context of these ids, None when they are absent or no ids."""
    try:
        context = SpanContext(int(trace_id, 16), int(span_id, 16), remote, _SAMPLED)
    except (ValueError, TypeError):
        return None
    return context if context.is_valid else None


def _time_ns(value: int) -> int:
    return max(0, min(int(value), _NS_MAX))


def _text(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return text[:_TEXT_MAX].encode("utf-8", "replace").decode()


def _value(value: Any, depth: int = 0) -> Any:
    """Return what OTLP can carry: text, numbers, and bounded lists and mappings of them."""
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_INT_MAX <= value <= _INT_MAX else str(value)
    if value is None or isinstance(value, str) or depth >= _DEPTH_MAX:
        return _text("" if value is None else value)
    if isinstance(value, Mapping):
        return {_text(key): _value(one, depth + 1) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [_value(one, depth + 1) for one in value]
    return _text(value)
