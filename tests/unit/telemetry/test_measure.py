import asyncio

import pytest

from knotwork.sdk import Metric, NotFound
from knotwork.telemetry import measure, scrape
from knotwork.telemetry.emitter import Emitter


@pytest.fixture
async def heard(sink, run):
    emitter, one = Emitter("n1"), sink(frozenset({"metrics"}))
    emitter.attach("one", one)
    async with run(emitter):

        async def told() -> list[Metric]:
            assert await emitter.flush(30)
            records, one.batches = one.records, []
            return [record for record in records if record.name != "knotwork_telemetry_records_total"]

        yield emitter, told


async def test_a_counter_tells_what_was_added_since_the_last_time(heard) -> None:
    emitter, told = heard
    meter = measure.Meter(emitter)
    counter = meter.counter("things_total", "Things.", agent="a")
    assert meter.counter("things_total", agent="a") is counter
    assert meter.counter("things_total", agent="b") is not counter
    counter.add()
    counter.add(2)
    meter.flush()
    assert await told() == [
        Metric("things_total", 3, "counter", {"agent": "a"}, "Things."),
        Metric("things_total", 0, "counter", {"agent": "b"}, ""),
    ]
    meter.flush()
    assert await told() == []


async def test_a_histogram_tells_its_buckets(heard) -> None:
    emitter, told = heard
    meter = measure.Meter(emitter)
    histogram = meter.histogram("wait_seconds", "Waits.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    meter.flush()
    [metric] = await told()
    assert (metric.bounds, metric.counts, metric.value) == ((0.1, 1.0), (2, 1, 1), pytest.approx(7.65))
    meter.flush()
    assert await told() == []


async def test_gauges_tell_what_is_now_and_a_broken_one_spoils_nothing(heard) -> None:
    emitter, told = heard
    meter = measure.Meter(emitter)
    meter.watch("broken", lambda: 1 / 0)
    meter.watch("knotwork_bus_up", lambda: 1, project="default")
    meter.gauge("level").value = 5
    for _ in range(2):
        meter.flush()
        assert [(metric.name, metric.value) for metric in await told()] == [("knotwork_bus_up", 1), ("level", 5)]


async def test_what_is_counted_while_nobody_listens_is_told_later(sink, run) -> None:
    emitter, one = Emitter(), sink()
    meter = measure.Meter(emitter)
    meter.counter("things_total").add(4)
    meter.flush()
    async with run(emitter):
        emitter.attach("one", one)
        meter.flush()
        assert await emitter.flush(30)
        assert one.records[0].value == 4


async def test_an_agent_is_measured_by_outcome_duration_and_in_flight(heard) -> None:
    emitter, told = heard
    meter = measure.Meter(emitter)
    agent = measure.AgentMeter(meter, "reviewer", "p")
    agent.began()
    agent.began()
    agent.ended("done", 0.2)
    agent.count("busy")
    meter.flush()
    told_ = {(metric.name, metric.labels.get("outcome")): metric for metric in await told()}
    assert told_["knotwork_invocations_total", "done"].value == 1
    assert told_["knotwork_invocations_total", "busy"].value == 1
    assert told_["knotwork_invocations_in_flight", None].value == 1
    assert sum(told_["knotwork_invocation_seconds", None].counts) == 1
    assert told_["knotwork_invocations_total", "done"].labels == {
        "agent": "reviewer",
        "project": "p",
        "outcome": "done",
    }


async def test_a_forgotten_agent_tells_its_rest_and_is_gone(heard) -> None:
    emitter, told = heard
    meter = measure.Meter(emitter)
    gone, stays = measure.AgentMeter(meter, "gone"), measure.AgentMeter(meter, "stays")
    gone.began()
    gone.ended("done", 1)
    stays.began()
    gone.forget()
    assert {metric.labels["agent"] for metric in await told()} == {"gone"}
    meter.flush()
    assert {metric.labels["agent"] for metric in await told()} == {"stays"}
    meter.forget()
    meter.flush()
    assert await told()


async def test_too_many_series_share_one(heard) -> None:
    emitter, told = heard
    meter = measure.Meter(emitter, series_max=3)
    for number in range(50):
        meter.counter("things_total", agent=f"a{number}").add()
    meter.flush()
    metrics = await told()
    assert {metric.labels["agent"]: metric.value for metric in metrics} == {"a0": 1, "a1": 1, "a2": 1, "other": 47}


async def test_lost_records_are_told_as_a_metric(sink, run) -> None:
    emitter, one, bad = Emitter(), sink(), sink()
    bad.fail = ValueError()
    emitter.attach("one", one)
    emitter.attach("bad", bad)
    meter = measure.Meter(emitter)
    async with run(emitter):
        emitter.emit(Metric("x", 1, "gauge"))
        assert await emitter.flush(30)
        meter.flush()
        assert await emitter.flush(30)
        told = {(record.labels["sink"], record.labels["result"]): record.value for record in one.records[1:]}
        assert told == {("one", "sent"): 1, ("bad", "failed"): 1}


async def test_the_meter_flushes_at_its_interval(sink, run) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    meter = measure.Meter(emitter, interval_s=0.01)
    meter.counter("things_total").add()
    async with run(emitter):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(meter.run())
            await one.entered.wait()
            meter.counter("things_total").add(5)
            task.cancel()
        assert await emitter.flush(30)
        assert sum(record.value for record in one.records if record.name == "things_total") == 6


async def test_scrape_asks_the_first_sink_that_can_be(sink, run) -> None:
    class Page(sink):
        def scrape(self) -> tuple[str, bytes]:
            return "text/plain", b" ".join(str(record.value).encode() for record in self.records)

    emitter = Emitter()
    meter = measure.Meter(emitter)
    async with run(emitter):
        emitter.attach("plain", sink())
        with pytest.raises(NotFound) as caught:
            await scrape.scrape(emitter, meter, 30)
        assert caught.value.code == "telemetry.no_scrape"
        emitter.attach("page", Page(frozenset({"metrics"})))
        meter.gauge("level").value = 7.5
        assert await scrape.scrape(emitter, meter, 30) == ("text/plain", b"7.5")
