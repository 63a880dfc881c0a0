"""What steps send to runs, and what is published for them: it arrives once, or whoever sent it is told."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import open_bench, until

from knotwork.bus import reading, subjects
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.flow import facts
from knotwork.flow.carrying import Carrier
from knotwork.flow.effects import WatchEvent
from knotwork.flow.events import Events
from knotwork.flow.runs import keyed_run, new_run
from knotwork.sdk.errors import Unavailable

SENDER = {"s": {"kind": "signal", "signal": "go", "run": "input", "input": "`7`"}}
HEARS = {"w": {"kind": "wait_for_signal", "signal": "go"}}


@pytest.mark.parametrize("packed", [False, True])
async def test_a_signal_to_a_run_that_has_ended_fails_its_step(flows, packed):
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "sleep", "duration": 0}})
    await define(flow, name="sender", steps=SENDER)
    run = await start(flow, None)
    assert (await ended(flow, run)).state == "completed"
    if packed:
        await until(lambda: _is_packed(flow, run))
    finish = await ended(flow, await start(flow, run, "sender"))
    assert (finish.state, finish.error["code"]) == ("failed", "flow.over")
    assert run in finish.error["message"]


async def _is_packed(flow, run):
    return await reading.last(flow.connection, subjects.FACTS, facts.subject(run, "start")) is None


@pytest.mark.parametrize("packed", [False, True])
async def test_a_signal_that_was_sent_before_its_node_died_counts_though_the_run_is_over(flows, packed):
    """It ended because of that very signal: to say that it could not be sent would be a lie."""
    flow = await flows.here()
    await define(flow, steps=HEARS)
    await define(flow, name="sender", steps=SENDER)
    run = await start(flow)
    place = ("signal", "go", f"{keyed_run('sender', 'once')}-s")
    await flow.connection.request(facts.subject(run, *place), facts.encode(facts.Signal(msgspec.Raw(b"7"))))
    assert output(await ended(flow, run)) == 7
    if packed:
        await until(lambda: _is_packed(flow, run))
    assert output(await ended(flow, await start(flow, run, "sender", key="once"))) == 7


async def test_a_step_cannot_send_to_a_run_that_whoever_started_it_may_not_see(flows):
    flow = await flows.here()
    await define(flow, steps=HEARS)
    await define(flow, name="sender", steps=SENDER)
    own = await start(flow, circle="private-ann")
    for circle in ("", "private-bob"):
        finish = await ended(flow, await start(flow, own, "sender", circle=circle))
        assert finish.error["code"] == "flow.no_run"
    assert (await flow.runs.look(own)).finish is None
    assert output(await ended(flow, await start(flow, own, "sender", circle="private-ann"))) == 7
    assert output(await ended(flow, own)) == 7


async def test_an_event_that_cannot_be_recorded_is_found_again(tmp_path):
    async with open_bench(tmp_path) as bench, background() as group:
        connection = await bench.stack.enter_async_context(open_connection(Endpoint((bench.url,), seed=bench.seed)))
        events = Events(connection)
        await events.open()
        group.create_task(events.run())
        found: list[bytes] = []
        there = asyncio.Event()

        async def record(body: bytes) -> None:
            found.append(body)
            if len(found) == 1:
                raise Unavailable("The store is away.", code="bus.unavailable")
            there.set()

        events.watch("w1", WatchEvent("e", "order.paid", "event.n == `2`", {}, 1), record)
        for number in (1, 2, 2):
            await events.publish("order.paid", b'{"n":%d}' % number)
        async with asyncio.timeout(30):
            await there.wait()
        assert found == [b'{"n":2}'] * 2


@pytest.mark.parametrize("trouble", [Unavailable("away"), ValueError("a bug")])
async def test_a_failure_that_could_not_be_recorded_is_recorded_when_that_is_possible(flows, monkeypatch, trouble):
    flow = await flows.here()
    await define(flow, name="sender", steps=SENDER)
    record, met = Carrier._record_failure, asyncio.Event()

    async def odd(self, *given):
        if not met.is_set():
            met.set()
            raise trouble
        await record(self, *given)

    monkeypatch.setattr(Carrier, "_record_failure", odd)
    finish = await ended(flow, await start(flow, new_run(time.time_ns()), "sender"))
    assert met.is_set()
    assert finish.error["code"] == "flow.no_run"
