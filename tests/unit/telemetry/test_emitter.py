import asyncio
import logging
import threading
import time

import pytest

from knotwork.sdk import Event, Metric, Span
from knotwork.telemetry import pump, trace
from knotwork.telemetry.emitter import Emitter


def event(number: int = 0) -> Event:
    return Event("test.happened", number)


SPAN = Span("work", "a" * 32, "b" * 16, "", 1, 2)
METRIC = Metric("things_total", 1, "counter")


async def test_without_sinks_nothing_is_wanted_and_nothing_happens() -> None:
    emitter = Emitter("n1")
    emitter.emit(event())
    emitter.event("test.happened")
    assert (emitter.wants_events, emitter.wants_spans, emitter.wants_metrics) == (False, False, False)
    assert emitter.stats() == {}


async def test_records_arrive_in_order_in_bounded_batches_at_every_sink(sink, run) -> None:
    emitter, one, two = Emitter(), sink(), sink()
    emitter.attach("one", one)
    async with run(emitter):
        emitter.attach("two", two)
        for number in range(2000):
            emitter(event(number))
        assert await emitter.flush(30)
        for each in (one, two):
            assert [record.time_ns for record in each.records] == list(range(2000))
            assert max(map(len, each.batches)) == pump.BATCH_MAX
        assert emitter.stats()["one"] == pump.SinkStats(sent=2000)


async def test_a_lone_record_is_sent_soon_without_asking(sink, run) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    async with run(emitter):
        await asyncio.sleep(0)
        emitter.emit(event())
        await one.entered.wait()


async def test_records_close_together_travel_together(sink, run) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    async with run(emitter):
        for number in range(5):
            emitter.emit(event(number))
            await asyncio.sleep(0)
        await one.entered.wait()
        assert [len(batch) for batch in one.batches] == [5]


async def test_a_sink_that_hangs_loses_its_own_records_only_and_they_are_counted(sink, run) -> None:
    emitter, stuck, well = Emitter(), sink(), sink()
    stuck.free.clear()
    emitter.attach("stuck", stuck, queue_max=100)
    emitter.attach("well", well)
    async with run(emitter):
        emitter.emit(event())
        await stuck.entered.wait()
        for number in range(5000):
            emitter.emit(event(number))
        while len(well.records) < 5001:
            await asyncio.sleep(0.005)
        stats = emitter.stats()["stuck"]
        assert (stats.sent, stats.dropped, stats.queued) == (0, 4900, 101)
        stuck.free.set()
        assert await emitter.flush(30)
        assert emitter.stats()["stuck"] == pump.SinkStats(sent=101, dropped=4900)


class Panic(BaseException):
    """What an extension in Rust raises when it panics; even its text may fail."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError(), TimeoutError(), Panic()])
async def test_a_sink_that_raises_is_counted_and_tried_again(sink, run, error, caplog) -> None:
    emitter, bad = Emitter(), sink()
    bad.fail = error
    emitter.attach("bad", bad)
    async with run(emitter):
        with caplog.at_level(logging.WARNING, "knotwork.telemetry"):
            for number in range(3):
                emitter.emit(event(number))
                assert await emitter.flush(30)
        stats = emitter.stats()["bad"]
        assert (stats.sent, stats.failed) == (0, 3)
        assert stats.last_error
        assert len(caplog.records) == 1, "a failing sink must not flood the log"
        bad.fail = None
        emitter.emit(event(9))
        assert await emitter.flush(30)
        assert [record.time_ns for record in bad.records] == [9]


async def test_a_sink_that_takes_too_long_for_a_batch_is_given_up_on(sink, run, monkeypatch) -> None:
    monkeypatch.setattr(pump, "SEND_TIMEOUT_S", 0.05)
    emitter, stuck = Emitter(), sink()
    stuck.free.clear()
    emitter.attach("stuck", stuck)
    async with run(emitter):
        emitter.emit(event())
        assert await emitter.flush(30)
        assert emitter.stats()["stuck"].failed == 1


async def test_a_sink_gets_only_what_it_wants(sink, run) -> None:
    emitter, spans, all_ = Emitter(), sink(frozenset({"spans"})), sink()
    emitter.attach("spans", spans)
    assert (emitter.wants_events, emitter.wants_spans, emitter.wants_metrics) == (False, True, False)
    emitter.attach("all", all_)
    assert (emitter.wants_events, emitter.wants_spans, emitter.wants_metrics) == (True, True, True)
    async with run(emitter):
        for record in (event(), SPAN, METRIC):
            emitter.emit(record)
        assert await emitter.flush(30)
        assert spans.records == [SPAN]
        assert all_.records == [event(), SPAN, METRIC]
        await emitter.detach("all")
        assert (emitter.wants_events, emitter.wants_spans) == (False, True)


async def test_detach_sends_what_is_queued_and_nothing_after(sink, run) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    async with run(emitter):
        for number in range(1000):
            emitter.emit(event(number))
        await emitter.detach("one", 30)
        emitter.emit(event(1001))
        assert len(one.records) == 1000
        assert emitter.stats() == {}
        await emitter.detach("one")


async def test_detach_of_a_hanging_sink_is_bounded_in_time(sink, run) -> None:
    emitter, stuck = Emitter(), sink()
    stuck.free.clear()
    emitter.attach("stuck", stuck)
    async with run(emitter):
        emitter.emit(event())
        await stuck.entered.wait()
        await emitter.detach("stuck", timeout_s=0.05)
        stuck.free.set()
        assert stuck.records == []


async def test_a_replaced_sink_gets_what_was_queued_for_it_and_the_new_one_the_rest(sink, run) -> None:
    emitter, old, new = Emitter(), sink(), sink()
    old.free.clear()
    emitter.attach("file", old)
    async with run(emitter):
        for number in range(1000):
            emitter.emit(event(number))
        await old.entered.wait()
        emitter.attach("file", new)
        emitter.emit(event(1000))
        assert await emitter.flush(30)
        assert [record.time_ns for record in new.records] == [1000]
        old.free.set()
        await emitter.settle(30)
        assert [record.time_ns for record in old.records] == list(range(1000))
        assert emitter.stats()["file"] == pump.SinkStats(sent=1001)


async def test_settle_gives_up_on_a_replaced_sink_that_hangs(sink, run) -> None:
    emitter, old, new = Emitter(), sink(), sink()
    old.free.clear()
    emitter.attach("file", old)
    async with run(emitter):
        for number in range(600):
            emitter.emit(event(number))
        await old.entered.wait()
        emitter.attach("file", new)
        await emitter.settle(0.05)
        stats = emitter.stats()["file"]
        assert (stats.sent, stats.failed + stats.dropped, stats.queued) == (0, 600, 0)


async def test_emit_from_other_threads_wakes_an_idle_sink(sink, run) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    async with run(emitter):
        await asyncio.sleep(0)

        def emit_many() -> None:
            for number in range(500):
                emitter.emit(event(number))

        threads = [threading.Thread(target=emit_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        await one.entered.wait()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert await emitter.flush(30)
        assert len(one.records) == 2000


async def test_what_is_no_record_is_ignored(sink, run) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    async with run(emitter):
        for odd in (None, "text", {"name": "x"}, [1]):
            emitter.emit(odd)
        emitter.emit(event())
        assert await emitter.flush(30)
        assert one.records == [event()]


async def test_records_emitted_before_run_are_kept(sink, run) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    emitter.emit(event())
    async with run(emitter):
        assert await emitter.flush(30)
        assert one.records == [event()]


async def test_close_sends_what_is_queued_ends_run_and_takes_nothing_more(sink) -> None:
    emitter, one = Emitter(), sink()
    emitter.attach("one", one)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(emitter.run())
        await asyncio.sleep(0)
        emitter.emit(event())
        await emitter.close(30)
    assert one.records == [event()]
    emitter.attach("two", sink())
    emitter.emit(event())
    assert not emitter.wants_events
    assert len(one.records) == 1


async def test_close_is_bounded_when_sinks_hang(sink) -> None:
    emitter = Emitter()
    for number in range(5):
        stuck = sink()
        stuck.free.clear()
        emitter.attach(f"stuck{number}", stuck)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(emitter.run())
        await asyncio.sleep(0)
        emitter.emit(event())
        await stuck.entered.wait()
        await emitter.close(0.1)


async def test_a_cancelled_run_counts_what_it_drops_and_lets_the_cancellation_through(sink) -> None:
    emitter, stuck = Emitter(), sink()
    stuck.free.clear()
    emitter.attach("stuck", stuck)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(emitter.run())
        await asyncio.sleep(0)
        for number in range(600):
            emitter.emit(event(number))
        await stuck.entered.wait()
        task.cancel()
    assert task.cancelled()
    stats = emitter.stats()["stuck"]
    assert (stats.failed, stats.dropped, stats.queued) == (512, 88, 0)
    emitter.emit(event())


async def test_an_event_is_of_this_node_of_now_and_of_the_current_trace(sink, run) -> None:
    emitter, one = Emitter("n1"), sink()
    emitter.attach("one", one)
    here = trace.child_of("").traceparent
    async with run(emitter):
        token = trace.current.set(here)
        emitter.event("config.reloaded", {"revision": 3}, level="warning", project="p")
        trace.current.reset(token)
        assert await emitter.flush(30)
        [made] = one.records
        assert (made.name, made.node, made.project, made.level) == ("config.reloaded", "n1", "p", "warning")
        assert (made.data, made.traceparent) == ({"revision": 3}, here)
        assert abs(made.time_ns - time.time_ns()) < 60_000_000_000


async def test_flush_says_when_the_time_was_not_enough(sink, run) -> None:
    emitter, stuck = Emitter(), sink()
    stuck.free.clear()
    emitter.attach("stuck", stuck)
    async with run(emitter):
        emitter.emit(event())
        assert not await emitter.flush(0.05)


async def test_a_sink_that_is_closed_gets_nothing_more_and_its_counts_go_on(sink, run) -> None:
    emitter, one, other, again = Emitter(), sink(), sink(), sink()
    async with run(emitter):
        emitter.attach("one", one)
        emitter.attach("other", other)
        emitter.emit(event(1))
        assert await emitter.flush(30)
        emitter.emit(event(2))
        emitter.drop("one")
        emitter.drop("unknown")
        emitter.emit(event(3))
        assert await emitter.flush(30)
        assert [record.time_ns for record in one.records] == [1]
        assert [record.time_ns for record in other.records] == [1, 2, 3]
        assert "one" not in emitter.sinks()
        emitter.attach("one", again)
        emitter.emit(event(4))
        assert await emitter.flush(30)
        assert [record.time_ns for record in again.records] == [4]
        assert emitter.stats()["one"] == pump.SinkStats(sent=2, dropped=1)
