"""The bundled sinks against real files, a real OTLP receiver and the text that Prometheus would read."""

import asyncio
import gzip
import json
import logging
import math
import os
import re
import stat
import threading
import time
import tomllib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pydantic
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from knotwork.sdk import Context, Event, Metric, Scraped, SecretRef, Span, Unavailable
from knotwork.sdk.testing import TelemetryContract
from knotwork.telemetry import measure, scrape, spans, trace
from knotwork.telemetry.emitter import Emitter
from knotwork_plugins.telemetry import FACTORIES

TYPES = {factory.name: factory for factory in FACTORIES}
SPAN = Span("invoke", "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "53995c3f42cd8ad8", 1_000, 2_000)
EVENT = Event("node.ready", 5_000, "n1", "default", "info", {"port": 4222, "tags": ["a", {"b": None}]})
COUNTER = Metric("things_total", 2, "counter", {"agent": "a"}, "Things.")


class RecordingStream:
    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.projects: list[str] = []
        self.away = False
        self.away_from = ""

    async def publish(self, topic: str, payload: bytes, project: str = "") -> None:
        if self.away or (project and project == self.away_from):
            raise Unavailable("the bus is away")
        self.published.append((topic, payload))
        self.projects.append(project)


def secret(reference: SecretRef) -> str:
    assert reference.env == "TOKEN"
    return "Bearer s3cret"


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        id="sink",
        node="n1",
        log=logging.getLogger("knotwork.plugin.sink"),
        folder=tmp_path,
        emit=lambda record: None,
        clock=None,
        keep=None,
        stream=RecordingStream(),
        secrets=secret,
        child_env=dict,
    )


def opened(name: str, context: Context, **config):
    factory = TYPES[name]
    return factory.open(factory.config.model_validate(config), context)


# ---- every sink


class TestJsonl(TelemetryContract):
    factory = TYPES["jsonl"]
    config: ClassVar = {"max_bytes": 4096}
    bad_configs = ({"files": 0}, {"max_bytes": 1}, {"send": []}, {"send": ["logs"]})


class TestNats(TelemetryContract):
    factory = TYPES["nats"]
    bad_configs = ({"message_max_bytes": 64 * 1024 * 1024},)


class TestPrometheus(TelemetryContract):
    factory = TYPES["prometheus"]
    bad_configs = ({"series_max": 0}, {"send": ["spans"]})


class TestOtlpWithoutACollector(TelemetryContract):
    factory = TYPES["otlp"]
    config: ClassVar = {"endpoint": "http://127.0.0.1:9", "timeout_s": 0.3, "headers": {"x": "y"}}
    bad_configs = ({"endpoint": "localhost:4317"}, {"sample_ratio": 2}, {"headers": {"x": {"env": ""}}})
    loses = True


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("even this fails")

    __repr__ = __str__


HOSTILE = [
    Event("e", 1, data={"x": Odd()}),
    Event(Odd(), Odd(), data=Odd()),
    Span(Odd(), SPAN.trace_id, SPAN.span_id, "", 1, 2, attributes={"x": Odd()}),
    Metric("odd", 1, "gauge", {"x": Odd()}),
    Metric("odd", 1, "gauge", None, Odd()),
    Event("e" * 100_000, -5, level="shout", data={"x": object(), "y": {1, 2}, "\ud800": "\udfff", "big": 2**200}),
    Event("e", 2**80, data={"deep": [[[[[[[[[[1]]]]]]]]]], "bytes": b"\xff", 7: "number", "nan": math.nan}),
    Event("e", 1, traceparent="00-zz-qq-01"),
    Span("s", "not hex", "neither", "", 5, 1),
    Span("s", "", "", "", 5, 1),
    Span("s", "f" * 40, "f" * 16, "f" * 16, -1, 2**70, kind="odd", attributes={"a": [1], "b": 2**99}),
    Metric("", 1, "counter"),
    Metric("1 odd näme\n", 1, "gauge", {"le": "x", "__a": "y", "ü": "\ud800", "": "z", "n": 5}),
    Metric("things", math.nan, "counter"),
    Metric("things_total", -1, "counter"),
    Metric("things", 1, "gauge"),
    Metric("spread", math.inf, "histogram"),
    Metric("spread", 1, "histogram", bounds=(1.0, 0.5), counts=(1, 2, 3)),
    Metric("spread", 1, "histogram", bounds=(1.0,), counts=(1,)),
    Metric("kind", 1, "sort"),
    Metric("many", 1, "gauge", {f"l{number}": "x" for number in range(50)}),
    Metric("text", "seven", "gauge"),
    Metric("helpful", 1, "gauge", {}, "\ud800\nTYPE x"),
]


@pytest.mark.parametrize("name", TYPES)
async def test_a_sink_takes_odd_records_without_losing_the_good_ones(name, context, receiver) -> None:
    config: ClassVar = {"endpoint": receiver.url, "metrics_every_s": 0.1} if name == "otlp" else {}
    async with opened(name, context, **config) as sink:
        await sink.emit([*HOSTILE, SPAN, EVENT, COUNTER])
        if isinstance(sink, Scraped):
            found = sink.scrape()[1]
        elif name == "nats":
            found = b"".join(payload for _, payload in context.stream.published)
        elif name == "jsonl":
            found = (context.folder / "telemetry.jsonl").read_bytes()
        else:
            await receiver.until(lambda: receiver.metrics() and receiver.spans())
            found = repr((receiver.metrics(), receiver.logs())).encode()
            assert SPAN.trace_id in {span.trace_id.hex() for span in receiver.spans()}
        assert b"things" in found
        assert name == "prometheus" or b"node.ready" in found


@pytest.mark.parametrize("name", TYPES)
async def test_a_sink_opens_and_closes_again_and_again_and_two_at_once(name, context, receiver) -> None:
    config: ClassVar = {"endpoint": receiver.url} if name == "otlp" else {}
    for _ in range(2):
        async with opened(name, context, **config) as one, opened(name, context, **config) as two:
            await one.emit([EVENT, SPAN, COUNTER])
            await two.emit([])


@pytest.mark.parametrize("name", TYPES)
async def test_no_thread_is_left_behind(name, context, receiver) -> None:
    before = set(threading.enumerate())
    async with opened(name, context, **({"endpoint": receiver.url} if name == "otlp" else {})) as sink:
        await sink.emit([EVENT])
    async with asyncio.timeout(30):
        while {thread for thread in threading.enumerate() if thread.name.startswith("telemetry")} - before:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("name", TYPES)
def test_unknown_keys_are_refused(name) -> None:
    with pytest.raises(pydantic.ValidationError):
        TYPES[name].config.model_validate({"pth": "x"})


def test_every_key_is_described_and_has_a_default() -> None:
    for factory in FACTORIES:
        assert factory.config()
        for key, field in factory.config.model_fields.items():
            assert field.description, f"{factory.name}.{key}"


def test_the_tables_of_the_user_page_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    shown = {}
    for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL):
        for table in tomllib.loads(block)["telemetry"].values():
            shown[table.pop("type")] = table
    assert shown.keys() == TYPES.keys()
    for name, table in shown.items():
        TYPES[name].config.model_validate(table)
        told = set(re.findall(r"\w+", page))
        assert set(TYPES[name].config.model_fields) <= told


# ---- jsonl


async def test_jsonl_writes_one_object_per_line_for_its_owner_alone(context) -> None:
    async with opened("jsonl", context) as sink:
        await sink.emit([EVENT, SPAN])
        await sink.emit([COUNTER])
    file = context.folder / "telemetry.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    event, span, metric = map(json.loads, file.read_text().splitlines())
    assert event == {
        "record": "event", "name": "node.ready", "time_ns": 5000, "node": "n1", "project": "default", "level": "info",
        "data": {"port": 4222, "tags": ["a", {"b": None}]}, "traceparent": "",
    }  # fmt: skip
    assert (span["record"], span["trace_id"], span["parent_id"]) == ("span", SPAN.trace_id, SPAN.parent_id)
    assert (metric["record"], metric["value"], metric["labels"]) == ("metric", 2, {"agent": "a"})


async def test_jsonl_gets_only_the_kinds_it_is_sent(context) -> None:
    async with opened("jsonl", context, send=["spans"]) as sink:
        assert sink.wants == {"spans"}


async def test_jsonl_rotates_by_size_keeps_so_many_files_and_loses_no_line(context) -> None:
    path = context.folder / "deep" / "down" / "log.jsonl"
    async with opened("jsonl", context, path=str(path), max_bytes=4096, files=3) as sink:
        for number in range(8):
            await sink.emit([Event(f"event.{number}.{part}", 1) for part in range(10)])
        await sink.emit([Event("large", 1, data={"text": "x" * 10_000}), Event("last", 1)])
    assert sorted(file.name for file in path.parent.iterdir()) == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    texts = [file.read_text() for file in (path, path.with_name("log.jsonl.1"), path.with_name("log.jsonl.2"))]
    assert [json.loads(line)["name"] for line in texts[0].splitlines()] == ["last"]
    assert [json.loads(line)["name"] for line in texts[1].splitlines()] == ["large"]
    kept = [json.loads(line)["name"] for line in texts[2].splitlines()]
    assert len(texts[2]) <= 4096
    assert kept[-1] == "event.7.9"
    numbers = [int(name.split(".")[1]) * 10 + int(name.split(".")[2]) for name in kept]
    assert numbers == list(range(numbers[0], 80)), "lines are whole, in order, and none is missing"


async def test_jsonl_goes_on_after_the_file_was_moved_or_removed(context) -> None:
    file = context.folder / "telemetry.jsonl"
    async with opened("jsonl", context) as sink:
        await sink.emit([EVENT])
        file.rename(context.folder / "moved")
        await sink.emit([SPAN])
        assert json.loads(file.read_text())["record"] == "span"
        file.unlink()
        await sink.emit([COUNTER])
        assert json.loads(file.read_text())["record"] == "metric"


async def test_jsonl_says_why_a_file_can_not_be_written(context) -> None:
    (context.folder / "file").write_text("")
    with pytest.raises(Unavailable) as caught:
        async with opened("jsonl", context, path=str(context.folder / "file" / "below")):
            pass
    assert caught.value.code == "telemetry.file_unwritable"
    assert "[telemetry.sink]" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_jsonl_writes_to_a_pipe_that_is_read_and_waits_for_no_other(context) -> None:
    pipe = context.folder / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Unavailable):
        async with opened("jsonl", context, path=str(pipe)):
            pass
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with opened("jsonl", context, path=str(pipe), max_bytes=4096, files=3) as sink:
            for _ in range(3):
                await sink.emit([EVENT] * 20)  # more than `max_bytes` in all
                assert len(os.read(reading, 65536).splitlines()) == 20
    finally:
        os.close(reading)
    assert [path.name for path in context.folder.iterdir()] == ["pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_jsonl_on_a_full_disk_raises_and_lives(context) -> None:
    async with opened("jsonl", context, path="/dev/full") as sink:
        for _ in range(3):
            with pytest.raises(OSError, match="space"):
                await sink.emit([EVENT])


# ---- nats


async def test_nats_publishes_arrays_of_one_kind_per_topic(context) -> None:
    async with opened("nats", context) as sink:
        await sink.emit([EVENT, SPAN, COUNTER, EVENT])
    found = {topic: json.loads(payload) for topic, payload in context.stream.published}
    assert list(found) == ["events", "spans", "metrics"]
    assert [record["record"] for record in found["events"]] == ["event", "event"]
    assert found["spans"][0]["span_id"] == SPAN.span_id


async def test_nats_keeps_its_messages_small(context) -> None:
    async with opened("nats", context, message_max_bytes=2048) as sink:
        await sink.emit(
            [Event(f"e{number}", number) for number in range(100)] + [Event("huge", 1, data={"x": "y" * 5000})]
        )
    payloads = [payload for _, payload in context.stream.published]
    assert len(payloads) > 1
    assert max(map(len, payloads)) <= 2048
    records = [record for payload in payloads for record in json.loads(payload)]
    assert [record.get("name") for record in records[:100]] == [f"e{number}" for number in range(100)]
    assert records[100]["record"] == "oversized"
    assert records[100]["bytes"] > 5000


async def test_nats_raises_when_the_bus_is_away(context) -> None:
    async with opened("nats", context) as sink:
        context.stream.away = True
        with pytest.raises(Unavailable):
            await sink.emit([EVENT])


async def test_nats_that_is_away_for_one_project_tells_the_others(context) -> None:
    context.stream.away_from = "lab"
    async with opened("nats", context) as sink:
        with pytest.raises(Unavailable):
            await sink.emit([replace(EVENT, project="lab"), EVENT, replace(SPAN, project="lab"), COUNTER])
    assert [topic for topic, _ in context.stream.published] == ["events", "metrics"]


# ---- prometheus


def parsed(page: tuple[str, bytes]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    content_type, body = page
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_prometheus_adds_up_what_it_is_told(context) -> None:
    async with opened("prometheus", context) as sink:
        assert sink.wants == {"metrics"}
        await sink.emit([COUNTER, COUNTER, Metric("level", 5, "gauge"), Metric("level", 3, "gauge")])
        await sink.emit([Metric("wait_seconds", 4.6, "histogram", {}, "Waits.", (0.5, 1.0), (2, 1, 1))])
        await sink.emit([Metric("wait_seconds", 0.7, "histogram"), EVENT, SPAN])
        found = parsed(sink.scrape())
    assert found[key("things_total", agent="a")] == 4
    assert found[key("level")] == 3
    assert found[key("wait_seconds_bucket", le="0.5")] == 2
    assert found[key("wait_seconds_bucket", le="1.0")] == 4
    assert found[key("wait_seconds_bucket", le="+Inf")] == found[key("wait_seconds_count")] == 5
    assert found[key("wait_seconds_sum")] == pytest.approx(5.3)
    assert key("process_resident_memory_bytes") in found or not Path("/proc/self/stat").exists()


async def test_prometheus_takes_labels_that_differ_and_refuses_what_contradicts(context) -> None:
    async with opened("prometheus", context, process=False) as sink:
        await sink.emit([
            Metric("things_total", 1, "counter"),
            Metric("things_total", 1, "counter", {"agent": "a"}),
            Metric("things_total", 1, "counter", {"agent": "a", "node": "n"}),
            Metric("things_total", 1, "gauge"),
            Metric("things", 1, "gauge"),
            Metric("wait", 1, "histogram"),
            Metric("wait_sum", 1, "gauge"),
            Metric("wait_count_total", 1, "counter"),
        ])  # fmt: skip
        found = parsed(sink.scrape())
    assert len([name for name, _ in found if name == "things_total"]) == 3
    assert found[key("knotwork_prometheus_refused_total")] == 4
    assert found[key("wait_count")] == 1


async def test_prometheus_bounds_its_series(context) -> None:
    async with opened("prometheus", context, process=False, series_max=10) as sink:
        await sink.emit([Metric("things_total", 1, "counter", {"id": str(number)}) for number in range(1000)])
        await sink.emit([Metric("things_total", 1, "counter", {"id": "3"})])
        found = parsed(sink.scrape())
    assert len([name for name, _ in found if name == "things_total"]) == 10
    assert found[key("things_total", id="3")] == 2
    assert found[key("knotwork_prometheus_refused_total")] == 990


async def test_histograms_with_other_buckets_are_poured_into_the_first(context) -> None:
    async with opened("prometheus", context, process=False) as sink:
        await sink.emit([
            Metric("wait", 3, "histogram", {}, "", (1.0, 2.0), (1, 1, 0)),
            Metric("wait", 9, "histogram", {}, "", (0.5, 5.0), (1, 1, 1)),
        ])  # fmt: skip
        found = parsed(sink.scrape())
    assert [found[key("wait_bucket", le=le)] for le in ("1.0", "2.0", "+Inf")] == [2, 3, 5]


async def test_an_invocation_is_seen_on_the_page_at_once(context) -> None:
    emitter = Emitter("n1")
    meter = measure.Meter(emitter)
    agent = measure.AgentMeter(meter, "reviewer")
    async with opened("prometheus", context) as sink, asyncio.TaskGroup() as group:
        group.create_task(emitter.run())
        emitter.attach("metrics", sink)
        agent.began()
        agent.ended("done", 0.02)
        found = parsed(await scrape.scrape(emitter, meter, 30.0))
        await emitter.close()
    assert found[key("knotwork_invocations_total", agent="reviewer", project="default", outcome="done")] == 1
    assert found[key("knotwork_invocation_seconds_bucket", agent="reviewer", project="default", le="0.025")] == 1
    assert found[key("knotwork_invocations_in_flight", agent="reviewer", project="default")] == 0


# ---- otlp


DECODERS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


class Receiver:
    """A collector: an HTTP server in a thread that decodes what OTLP says; `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, dict[str, str], object]] = []
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.hold.wait(120)
                if receiver.status == 200:
                    if self.headers.get("Content-Encoding") == "gzip":
                        body = gzip.decompress(body)
                    message = DECODERS[self.path]()
                    message.ParseFromString(body)
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.requests.append((self.path, headers, message))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def of(self, path: str) -> list[object]:
        return [message for found, _, message in self.requests if found == path]

    def spans(self) -> list[object]:
        return [span for message in self.of("/v1/traces") for resource in message.resource_spans
                for scope in resource.scope_spans for span in scope.spans]  # fmt: skip

    def logs(self) -> list[object]:
        return [log for message in self.of("/v1/logs") for resource in message.resource_logs
                for scope in resource.scope_logs for log in scope.log_records]  # fmt: skip

    def metrics(self) -> list[object]:
        return [metric for message in self.of("/v1/metrics") for resource in message.resource_metrics
                for scope in resource.scope_metrics for metric in scope.metrics]  # fmt: skip

    async def until(self, true) -> None:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0.005)


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def values(attributes) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


async def test_otlp_sends_spans_with_their_own_ids(context, receiver) -> None:
    span = Span("invoke reviewer", SPAN.trace_id, SPAN.span_id, SPAN.parent_id, 1_000, 2_000, "server", ok=False,
                error="agent.failed", node="n1", project="p", attributes={"agent": "reviewer", "number": 2})  # fmt: skip
    headers = {"Authorization": {"env": "TOKEN"}, "x-team": "blue"}
    async with opened(
        "otlp", context, endpoint=receiver.url + "/", headers=headers, attributes={"deployment": "d"}
    ) as sink:
        await sink.emit([span, Span("root", SPAN.trace_id, SPAN.parent_id, "", 500, 3_000)])
    [(path, sent_headers, message)] = receiver.requests
    assert path == "/v1/traces"
    assert (sent_headers["authorization"], sent_headers["x-team"]) == ("Bearer s3cret", "blue")
    assert sent_headers["content-encoding"] == "gzip"
    resource = values(message.resource_spans[0].resource.attributes)
    assert (resource["service.name"], resource["service.instance.id"], resource["deployment"]) == (
        "knotwork",
        "n1",
        "d",
    )
    got, root = receiver.spans()
    assert (got.trace_id.hex(), got.span_id.hex(), got.parent_span_id.hex()) == (
        span.trace_id,
        span.span_id,
        span.parent_id,
    )
    assert (got.name, got.start_time_unix_nano, got.end_time_unix_nano) == ("invoke reviewer", 1_000, 2_000)
    assert (got.kind, got.status.code, got.status.message) == (2, 2, "agent.failed")
    assert values(got.attributes) == {"agent": "reviewer", "number": 2, "knotwork.node": "n1", "knotwork.project": "p"}
    assert (root.parent_span_id, root.status.code) == (b"", 0)


async def test_otlp_sends_events_as_logs_of_their_trace(context, receiver) -> None:
    event = Event("plugin.failed", 7_000, "n1", "p", "error", {"id": "x", "tries": 3, "more": {"a": [1, "b"]}},
                  f"00-{SPAN.trace_id}-{SPAN.span_id}-01")  # fmt: skip
    async with opened("otlp", context, endpoint=receiver.url, compression=False) as sink:
        await sink.emit([event, EVENT])
    log, other = receiver.logs()
    assert (log.trace_id.hex(), log.span_id.hex(), log.time_unix_nano) == (SPAN.trace_id, SPAN.span_id, 7_000)
    assert (log.severity_text, log.severity_number, log.body.string_value) == ("error", 17, "plugin.failed")
    found = values(log.attributes)
    assert (found["id"], found["tries"], found["knotwork.project"]) == ("x", 3, "p")
    assert (other.trace_id, other.body.string_value) == (b"", "node.ready")


async def test_otlp_sends_metrics_as_sums_at_an_interval_and_at_the_end(context, receiver) -> None:
    histogram = Metric("wait_seconds", 4.5, "histogram", {}, "Waits.", (0.5, 1.0), (2, 1, 1))
    async with opened("otlp", context, endpoint=receiver.url, metrics_every_s=0.1) as sink:
        await sink.emit([COUNTER, Metric("level", 5, "gauge"), histogram])
        await receiver.until(receiver.metrics)
        found = {metric.name: metric for metric in receiver.metrics()}
        point = found["things_total"].sum.data_points[0]
        assert (point.as_double, values(point.attributes)) == (2, {"agent": "a"})
        assert (found["things_total"].sum.aggregation_temporality, found["things_total"].sum.is_monotonic) == (2, True)
        assert found["level"].gauge.data_points[0].as_double == 5
        spread = found["wait_seconds"].histogram.data_points[0]
        assert (list(spread.bucket_counts), list(spread.explicit_bounds), spread.count, spread.sum) == (
            [2, 1, 1],
            [0.5, 1.0],
            4,
            4.5,
        )
        assert found["wait_seconds"].unit == "s"
        receiver.requests.clear()
        await sink.emit([COUNTER])
    *_, metric = (one for one in receiver.metrics() if one.name == "things_total")
    assert metric.sum.data_points[0].as_double == 4


async def test_otlp_samples_whole_traces_the_same_everywhere(context, receiver) -> None:
    children = [trace.child_of(trace.child_of("").traceparent) for _ in range(400)]
    made = [Span("s", child.trace_id, child.span_id, child.parent_id, 1, 2) for child in children]
    async with opened("otlp", context, endpoint=receiver.url, sample_ratio=0.5) as one:
        await one.emit(made)
        first = {span.trace_id for span in receiver.spans()}
        receiver.requests.clear()
        async with opened("otlp", context, endpoint=receiver.url, sample_ratio=0.5) as two:
            await two.emit(made)
    assert first == {span.trace_id for span in receiver.spans()}
    assert 100 < len(first) < 300


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_otlp_says_who_did_not_take_it_and_why_without_a_second_log_line(
    context, receiver, status, caplog
) -> None:
    async with opened("otlp", context, endpoint=receiver.url) as sink:
        receiver.status = status
        with caplog.at_level(logging.DEBUG, "opentelemetry"), pytest.raises(Unavailable) as caught:
            await sink.emit([SPAN, EVENT])
        assert receiver.url in caught.value.message
        assert "spans and events" in caught.value.message
        assert str(status) in caught.value.message
        assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
        receiver.status = 200
        await sink.emit([SPAN])
        assert len(receiver.spans()) == 1


async def test_otlp_opens_and_closes_while_the_collector_is_away(context, receiver) -> None:
    receiver.close()
    async with asyncio.timeout(30), opened("otlp", context, endpoint=receiver.url, timeout_s=0.5) as sink:
        with pytest.raises(Unavailable):
            await sink.emit([SPAN])
        await sink.emit([COUNTER])


async def test_a_collector_that_hangs_stops_neither_the_loop_nor_the_end(context, receiver) -> None:
    emitter = Emitter("n1")
    begin = time.monotonic()
    async with opened("otlp", context, endpoint=receiver.url, timeout_s=20.0) as sink:
        receiver.hold.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(emitter.run())
            emitter.attach("otlp", sink)
            for _ in range(2000):
                emitter.emit(SPAN)
            await asyncio.sleep(0)
            await emitter.close(0.2)
    assert time.monotonic() - begin < 18  # the collector hangs for minutes, one export may take 20 s
    stats = emitter.stats()
    assert stats == {}


async def test_one_trace_spans_two_nodes(context, receiver) -> None:
    """What a caller, its node, the other node and the executor tell is one tree at the collector."""
    here, there = Emitter("here"), Emitter("there")
    async with opened("otlp", context, endpoint=receiver.url) as sink, asyncio.TaskGroup() as group:
        for emitter in (here, there):
            group.create_task(emitter.run())
            emitter.attach("otlp", sink)
        with spans.working(here, "call", kind="client") as call:
            header = {trace.HEADER: call.traceparent}

            async def other_node() -> None:
                trace.current.set("")
                with (
                    spans.working(there, "invoke", kind="server", parent=header[trace.HEADER]),
                    spans.working(there, "execute"),
                ):
                    there.event("agent.busy")

            await group.create_task(other_node())
        await here.close(30.0)
        await there.close(30.0)
    found = {span.name: span for span in receiver.spans()}
    assert len({span.trace_id for span in found.values()}) == 1
    assert found["invoke"].parent_span_id == found["call"].span_id
    assert found["execute"].parent_span_id == found["invoke"].span_id
    assert receiver.logs()[0].span_id == found["execute"].span_id
    assert values(found["invoke"].attributes)["knotwork.node"] == "there"


@pytest.mark.parametrize("bad", ["", "localhost:4318", "ftp://x", "x" * 3000])
def test_otlp_refuses_an_endpoint_that_is_none(bad) -> None:
    with pytest.raises(pydantic.ValidationError):
        TYPES["otlp"].config.model_validate({"endpoint": bad})


# ---- cost


def test_importing_the_sinks_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, knotwork_plugins.telemetry; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert not re.search(r"\b(opentelemetry|prometheus_client|requests|google)\b", loaded)
