"""One trace spans the caller, both nodes and what the executor runs; told to a real OTLP/HTTP receiver."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.e2e.agents_mcp import LEGACY, MODERN, http_agent, stdio_agent
from tests.e2e.conftest import WAIT_S, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{CALLER}-01"
CLIENT, SERVER = 3, 2  # SPAN_KIND_CLIENT, SPAN_KIND_SERVER
ERROR = 2  # STATUS_CODE_ERROR

HERE = """
[node]
name = "here"
[telemetry.collector]
type = "otlp"
endpoint = "{url}"
send = ["spans"]
[executors.near]
type = "rehearsal"
[executors.outer]
type = "python"
function = "./outer.py:outer"
"""
THERE = """
[node]
name = "there"
[nats]
mode = "join"
urls = ["{nats}"]
nkey_seed = {{file = "{seed}"}}
[telemetry.collector]
type = "otlp"
endpoint = "{url}"
send = ["spans"]
[executors.shell]
type = "process"
command = ["sh", "-c", "printenv TRACEPARENT"]
[executors.web]
type = "http"
url = "{url}/agent"
[executors.full]
type = "rehearsal"
concurrency = 1
queue_max = 0
steps = [{{delay_s = 30.0}}]
[executors.fails]
type = "rehearsal"
steps = [{{fail = "no", code = "agent.tired"}}]
[executors.picky]
type = "rehearsal"
input_schema = {{type = "string"}}
[executors.kept]
type = "rehearsal"
hosted = true
"""


class Collector:
    """An OTLP/HTTP receiver that is also a web agent: it answers with the traceparent it was called with."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, object]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer, kind = b"", "application/x-protobuf"
                if self.path == "/agent":
                    answer, kind = json.dumps(self.headers["traceparent"]).encode(), "application/json"
                else:
                    collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        for resource in message.resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(about["service.instance.id"], span) for span in scope.spans]

    def of(self, trace: str) -> dict[tuple[str, str], object]:
        """Return the spans of one trace by node and name."""
        return {(node, span.name): span for node, span in list(self.spans) if span.trace_id.hex() == trace}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def here(shared_nodes, collector):
    """Two joined nodes; returns the one that is asked."""
    here = shared_nodes.node(HERE.format(url=collector.url), "here")
    here.write(
        "from knotwork.sdk import Attempt\n\ndef outer(value, attempt: Attempt):\n    return attempt.traceparent\n",
        "outer.py",
    )
    here.up()
    seed = here.data / "keys" / "node-default.nk"
    there = shared_nodes.node(THERE.format(url=collector.url, nats=here.about["url"], seed=seed), "there").up()
    until(lambda: {"kept", "shell", "near", "outer"} <= set(here.agents()))
    here.other = there
    return here


def asked(node, traceparent, **fields):
    return node.http(
        "POST",
        "/api/agents/invoke",
        json.dumps(fields).encode(),
        authorization=f"Bearer {node.token}",
        content_type="application/json",
        traceparent=traceparent,
    )


def fresh(number: int) -> tuple[str, str]:
    """Return a trace id of its own and the traceparent of its caller."""
    trace = f"{number:032x}"
    return trace, f"00-{trace}-{CALLER}-01"


def attributes(span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


def test_two_nodes_and_a_command(here, collector) -> None:
    answer = asked(here, GIVEN, target="there/shell").json
    found = until(lambda: len(spans := collector.of(TRACE)) >= 2 and spans)
    client, server = found["here", "invoke shell"], found["there", "execute shell"]
    assert (client.kind, server.kind) == (CLIENT, SERVER)
    assert client.parent_span_id.hex() == CALLER
    assert server.parent_span_id == client.span_id
    assert answer["traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert answer["output"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    assert client.start_time_unix_nano <= server.start_time_unix_nano <= server.end_time_unix_nano
    assert server.end_time_unix_nano <= client.end_time_unix_nano
    assert attributes(server)["knotwork.node"] == "there"
    assert attributes(server)["knotwork.agent"] == "shell"
    assert attributes(server)["knotwork.executor"] == "process"
    assert ERROR not in (client.status.code, server.status.code)


@pytest.mark.parametrize(("number", "target", "node"), [(1, "there/web", "there"), (2, "here/outer", "here")])
def test_other_executors_are_told_their_span(here, collector, number, target, node) -> None:
    trace, given = fresh(number)
    output = asked(here, given, target=target).json["output"]
    name = target.split("/")[1]
    found = until(lambda: len(spans := collector.of(trace)) >= 2 and spans)
    assert output == f"00-{trace}-{found[node, f'execute {name}'].span_id.hex()}-01"
    assert found[node, f"execute {name}"].parent_span_id == found["here", f"invoke {name}"].span_id


def test_a_hosted_plugin_belongs_to_the_trace(here, collector) -> None:
    trace, given = fresh(3)
    assert asked(here, given, target="there/kept", input=1).json["output"] == 1
    found = until(lambda: len(spans := collector.of(trace)) >= 2 and spans)
    assert found["there", "execute kept"].parent_span_id == found["here", "invoke kept"].span_id


@pytest.mark.parametrize(
    ("number", "target", "code"), [(4, "there/fails", "agent.tired"), (5, "there/picky", "agent.bad_input")]
)
def test_failures_are_seen_on_both_sides(here, collector, number, target, code) -> None:
    trace, given = fresh(number)
    assert asked(here, given, target=target, input=1).json["code"] == code
    found = until(lambda: len(spans := collector.of(trace)) >= 2 and spans)
    for span in found.values():
        assert (span.status.code, span.status.message) == (ERROR, code)


def test_a_refused_call_is_seen_where_it_was_refused(here, collector) -> None:
    long, held = fresh(9)
    blocked = here.connect()
    blocked.request("POST", "/api/agents/invoke", json.dumps({"target": "there/full"}),
                    {"authorization": f"Bearer {here.token}", "traceparent": held})  # fmt: skip
    until(lambda: here.other.ask("agents.show", target="there/full")["running"] == 1)
    trace, given = fresh(6)
    answer = asked(here, given, target="there/full")
    assert (answer.status, answer.json["code"]) == (429, "agent.busy")
    blocked.close()
    found = until(lambda: len(spans := collector.of(trace)) >= 2 and spans)
    assert found["there", "execute full"].status.message == "agent.busy"
    assert found["there", "execute full"].parent_span_id == found["here", "invoke full"].span_id
    ended = until(lambda: collector.of(long).get(("there", "execute full")))
    assert ended.status.code == ERROR


def test_a_trace_nobody_wants_recorded_is_carried_on_and_not_told(here, collector) -> None:
    trace, _ = fresh(7)
    answer = asked(here, f"00-{trace}-{CALLER}-00", target="there/shell").json
    assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-00", answer["output"])
    later, given = fresh(8)
    asked(here, given, target="there/shell")
    until(lambda: len(collector.of(later)) == 2)
    assert collector.of(trace) == {}


@pytest.mark.parametrize("given", ["", "00-zz", f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01", "x" * 5000])
def test_a_bad_header_begins_a_new_trace(here, given) -> None:
    answer = asked(here, given, target="there/shell").json
    assert re.fullmatch("00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-01", answer["output"])
    assert TRACE not in answer["output"]


@pytest.mark.parametrize(
    ("number", "door", "mode"), [(10, stdio_agent, MODERN), (11, http_agent, MODERN), (12, http_agent, LEGACY)]
)
async def test_a_call_of_a_tool_belongs_to_the_trace_of_its_client(here, collector, number, door, mode) -> None:
    trace, given = fresh(number)
    async with door(here, mode=mode, name=f"traced-{number}") as agent:
        told = {"agent_name": "there/shell", "task": "go"}
        made = (await agent.client.call_tool("assign_work", told, meta={"traceparent": given})).structured_content
        found = await agent.call("await_work", work_id=made["work_id"], timeout_secs=WAIT_S)
    span = until(lambda: collector.of(trace).get(("there", "execute shell")))
    assert found["result"] == f"00-{trace}-{span.span_id.hex()}-01"
    assert attributes(span)["knotwork.node"] == "there"
