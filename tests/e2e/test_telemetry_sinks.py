"""What a real node tells its sinks, and that no sink can hold up work."""

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager

import nats
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.conftest import WAIT_S, until

AGENT = '[executors.echo]\ntype = "rehearsal"\n'
STUCK = """
import asyncio
from contextlib import asynccontextmanager

from knotwork.sdk import Factory, PluginConfig, hookimpl


class Config(PluginConfig):
    how: str


class Bad:
    def __init__(self, how):
        self.how = how

    async def emit(self, records):
        if self.how == "hang":
            await asyncio.Event().wait()
        if self.how == "deaf":
            while True:
                try:
                    await asyncio.sleep(0.2)
                except asyncio.CancelledError:
                    continue
        if self.how == "cancel":
            raise asyncio.CancelledError
        if self.how == "exit":
            raise SystemExit(3)
        raise ValueError("no")


@asynccontextmanager
async def opened(config, context):
    yield Bad(config.how)


@hookimpl
def telemetry():
    yield Factory(name="bad", config=Config, open=opened)
"""


def metrics(node):
    """Return the samples of the page as {(name, sorted labels): value}."""
    answer = node.http("GET", "/metrics", authorization=f"Bearer {node.token}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.body.decode())
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def sample(node, name, **labels):
    return metrics(node).get((name, tuple(sorted(labels.items()))))


# ---- prometheus


@pytest.fixture(scope="module")
def shared(shared_nodes):
    more = (
        AGENT.replace("echo", "other") + '[telemetry.stream]\ntype = "nats"\n[telemetry.metrics]\ntype = "prometheus"\n'
    )
    return shared_nodes.node(AGENT + more, "shared").up()


def test_the_page_is_behind_the_token_and_up_to_date(shared) -> None:
    for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": f"Basic {shared.token}"}):
        assert shared.http("GET", "/metrics", **headers).status == 401
    done = {"agent": "echo", "project": "default", "outcome": "done"}
    for count in (1, 2, 3):
        shared.invoke("echo")
        until(lambda count=count: sample(shared, "knotwork_invocations_total", **done) == count)
    found = metrics(shared)
    assert found["knotwork_invocation_seconds_count", (("agent", "echo"), ("project", "default"))] == 3
    assert found["knotwork_invocations_in_flight", (("agent", "echo"), ("project", "default"))] == 0
    assert found["knotwork_bus_up", (("project", "default"),)] == 1
    assert found["process_resident_memory_bytes", ()] > 1_000_000


def test_the_bus_is_told_for_each_project_as_long_as_it_is_served(nodes) -> None:
    two = '[projects.a]\n[projects.b]\n[telemetry.metrics]\ntype = "prometheus"\n'
    node = nodes.node(two).up()
    assert [sample(node, "knotwork_bus_up", project=name) for name in ("a", "b")] == [1, 1]
    node.write(two.replace("[projects.b]\n", "[projects.c]\n"))
    until(lambda: sample(node, "knotwork_bus_up", project="c") == 1)
    until(lambda: sample(node, "knotwork_bus_up", project="b") == 0)
    assert sample(node, "knotwork_bus_up", project="a") == 1


def test_the_bus_is_down_when_nats_is_gone(nodes) -> None:
    first = nodes.node("", "first").up()
    answer = first.http("GET", "/metrics", authorization=f"Bearer {first.token}")  # it has no such sink, and says so
    assert (answer.status, answer.json["code"]) == (404, "telemetry.no_scrape")
    seed = first.data / "keys" / "node-default.nk"
    joined = (
        f'[nats]\nmode = "join"\nurls = ["{first.about["url"]}"]\nnkey_seed = {{file = "{seed}"}}\n'
        f'{AGENT}[telemetry.metrics]\ntype = "prometheus"\n'
    )
    second = nodes.node(joined, "second").up()
    assert sample(second, "knotwork_bus_up", project="default") == 1
    first.stop()
    until(lambda: sample(second, "knotwork_bus_up", project="default") == 0)


# ---- jsonl


def test_a_file_tells_the_life_of_a_node(nodes) -> None:
    node = nodes.node(AGENT + '[telemetry.log]\ntype = "jsonl"\npath = "told.jsonl"\n').up()
    answer = node.ask("agents.invoke", target="echo", input=1)
    node.call("agents.invoke", target="nobody")
    assert node.stop() == 0
    rows = [json.loads(line) for line in (node.folder / "told.jsonl").read_text().splitlines()]
    events = [row["name"] for row in rows if row["record"] == "event"]
    assert events.index("node.ready") < events.index("node.stopped")
    spans = [row for row in rows if row["record"] == "span"]
    trace = answer["traceparent"].split("-")[1]
    assert {row["name"] for row in spans if row["trace_id"] == trace} == {"invoke echo", "execute echo"}
    assert [row["error"] for row in spans if row["name"] == "invoke nobody"] == ["agent.not_found"]
    counted = [
        row["value"] for row in rows
        if row["record"] == "metric" and row["name"] == "knotwork_invocations_total" and row["labels"]["agent"] == "echo"
    ]  # fmt: skip
    assert sum(counted) == 1


# ---- nats


@asynccontextmanager
async def told_in(node):
    """Yield what reads the stream TELEMETRY of a node: its records by subject."""
    seed = (node.data / "keys" / "node-default.nk").read_text().strip()
    client = await nats.connect(node.about["url"], nkeys_seed_str=seed)
    stream = client.jetstream()

    async def read() -> dict[str, list]:
        found: dict[str, list] = {}
        info = await stream.stream_info("TELEMETRY")
        for number in range(1, info.state.last_seq + 1):
            message = await stream.get_msg("TELEMETRY", number)
            found.setdefault(message.subject, []).extend(json.loads(message.data))
        return found

    try:
        yield read
    finally:
        await client.close()


async def test_the_stream_holds_what_happened(shared) -> None:
    node = shared
    trace = node.ask("agents.invoke", target="other", input=1)["traceparent"].split("-")[1]
    metrics(node)  # asking for the page also tells the other sinks, which otherwise happens every five seconds
    async with told_in(node) as read, asyncio.timeout(WAIT_S):
        while True:
            found = await read()
            names = {row["name"] for row in found.get("telemetry.spans", ()) if row["trace_id"] == trace}
            if {"telemetry.events", "telemetry.spans", "telemetry.metrics"} <= set(found) and len(names) >= 2:
                break
            await asyncio.sleep(0.05)
    assert names == {"invoke other", "execute other"}
    assert "node.ready" in {row["name"] for row in found["telemetry.events"]}
    assert {row["record"] for row in found["telemetry.metrics"]} == {"metric"}


async def test_the_stream_holds_what_happened_last(nodes) -> None:
    node = nodes.node(AGENT + '[telemetry.stream]\ntype = "nats"\n').up()
    node.invoke("echo", 1)
    assert node.stop() == 0
    assert "NotFound" not in node.log
    async with told_in(node.up()) as read:
        found = await read()
    assert "node.stopped" in {row["name"] for row in found["telemetry.events"]}
    counted = [row for row in found["telemetry.metrics"] if row["name"] == "knotwork_invocations_total"]
    assert [(row["labels"]["agent"], row["value"]) for row in counted] == [("echo", 1)]


# ---- sinks that do not behave


@pytest.mark.parametrize("hows", [("hang", "raise", "cancel", "exit"), ("deaf",)])
def test_sinks_that_do_not_behave_hold_up_nothing(nodes, hows, figure) -> None:
    bad = "".join(f'[telemetry.{how}]\ntype = "./bad.py"\nhow = "{how}"\n' for how in hows)
    node = nodes.node(
        f'{AGENT}{bad}[telemetry.log]\ntype = "jsonl"\npath = "told.jsonl"\n[telemetry.metrics]\ntype = "prometheus"\n'
    )
    node.write(STUCK, "bad.py")
    node.up()
    took_s = []
    for number in range(100):
        start_s = time.monotonic()
        assert node.invoke("echo", number) == number
        took_s.append(time.monotonic() - start_s)
    figure(f"invoke_beside_sinks_that_would_{'_'.join(hows)}_p90_s", round(sorted(took_s)[90], 4))
    # the page neither waits for a sink that never returns, nor for the neighbour's word of it
    until(lambda: sample(node, "knotwork_invocations_total", agent="echo", outcome="done", project="default") == 100)
    if "deaf" in hows:  # it can be stopped by nothing but the end of the process, which comes late
        node.signal(signal.SIGKILL)
        return
    assert node.stop() == 0
    rows = [json.loads(line) for line in (node.folder / "told.jsonl").read_text().splitlines()]
    assert sum(row.get("name") == "execute echo" for row in rows) == 100, "a neighbour lost something"


FRAIL = """
import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from knotwork.sdk import Factory, PluginConfig, hookimpl

HERE = Path(__file__).parent


def note(word):
    with (HERE / "notes").open("a") as file:
        file.write(word + chr(10))


class Sink:
    async def emit(self, records):
        note("emit")


async def fall():
    while not (HERE / "fall").exists():
        await asyncio.sleep(0.01)
    raise RuntimeError("it fell")


@asynccontextmanager
async def opened(config, context):
    note("opened")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fall())
            yield Sink()
    finally:
        note("closed")


@hookimpl
def telemetry():
    yield Factory(name="frail", config=PluginConfig, open=opened)
"""


def test_a_sink_that_crashed_gets_nothing_until_it_is_back(nodes) -> None:
    node = nodes.node(AGENT + '[telemetry.frail]\ntype = "./frail.py"\n')
    node.write(FRAIL, "frail.py")
    node.up()
    notes = node.folder / "notes"
    until(lambda: "emit" in notes.read_text())
    (node.folder / "fall").touch()
    until(lambda: node.slot("frail", "telemetry")["starts"] > 2)
    for _ in range(5):
        node.ask("node.reload")  # something to tell of
    (node.folder / "fall").unlink()
    node.ask("plugin.restart", kind="telemetry", id="frail")

    def emitted_after_the_last_start() -> bool:
        return "emit" in notes.read_text().rpartition("opened")[2]

    until(lambda: node.slot("frail", "telemetry")["state"] == "running" and node.ask("node.reload"))
    until(emitted_after_the_last_start)
    lives = notes.read_text().split("opened\n")[1:]
    assert len(lives) > 3
    for life in lives[:-1]:
        assert life.rstrip().endswith("closed"), lives  # nothing behind it
