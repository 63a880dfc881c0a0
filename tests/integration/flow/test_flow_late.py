"""Attempts that nobody begins in time, and workers that fall silent: on a real server, by agents hosted and come in."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import msgspec
import pytest
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.bus import patterns, reading, streams, subjects
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import Conflict
from knotwork.work import records

DO = {"do": {"concurrency": 20}}
GUEST = AgentRecord("guest", ("do",), attached=True)
TWICE = {"max_attempts": 2, "delay": "10ms", "jitter": False}


async def past(flow, run, step="a") -> list[records.Outcome]:
    """Return how the attempts of a step ended."""
    sight = await flow.runs.look(run)
    return [records.decode_outcome(one.data) for one in sight.facts if f".outcome.{step}." in one.subject]


async def test_a_step_that_nobody_begins_times_out_with_its_own_error(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"capability": "do", "schedule_to_start": "200ms"}})
    run = await start(flow)
    finish = await ended(flow, run)
    assert (finish.state, finish.error["code"]) == ("failed", "work.not_begun")
    (only,) = await past(flow, run)
    assert (only.state, only.agent) == ("timed-out", "")
    assert await reading.last(flow.connection, subjects.TASKS, patterns.tasks_of(run)) is None


async def test_it_is_tried_again_and_each_attempt_may_wait_as_long(flows):
    flow = await flows.here()
    retry = {"max_attempts": 3, "delay": "10ms", "jitter": False}
    await define(flow, steps={"a": {"capability": "do", "schedule_to_start": "300ms", "retry": retry}})
    run = await start(flow)
    finish = await ended(flow, run)
    assert finish.error["code"] == "work.not_begun"
    found = await past(flow, run)
    assert [one.state for one in found] == ["waiting", "waiting", "dead"]
    waits = [one.ended_ns - records.decode_task(bytes(one.task)).start_by_ns for one in found]
    assert min(waits) >= -50_000_000  # the server's clock is the node's; fired no earlier than it said
    assert found[1].ended_ns - found[0].due_ns >= 250_000_000


async def test_whoever_comes_before_the_time_is_over_gets_it(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"capability": "do", "schedule_to_start": "20s"}})
    run = await start(flow, 7)
    await until(lambda: _waits(flow, run))
    await flows.here("worker", **DO)
    assert output(await ended(flow, run)) == 7


async def _waits(flow, run) -> bool:
    return await reading.last(flow.connection, subjects.TASKS, patterns.tasks_of(run)) is not None


async def test_what_was_begun_in_time_is_let_alone(flows):
    flow = await flows.here(**DO)
    for seconds in (0.3, 5, 30):
        await define(flow, steps={"a": {"capability": "do", "schedule_to_start": seconds}})
        run = await start(flow, {"sleep": seconds + 1})
        finish = await ended(flow, run)
        if finish.error is None or finish.error["code"] != "work.not_begun":  # else the machine was too slow
            break
    assert output(finish) == {"sleep": seconds + 1}
    await until(lambda: _no_timers(flow))


async def _no_timers(flow) -> bool:
    told = await streams.api(flow.connection, "STREAM.INFO.TIMERS")
    return int(told["state"]["messages"]) == 0


async def test_the_time_is_over_also_when_every_node_died_meanwhile(flows):
    first = await flows.process("first")
    here = await flows.here("here")
    await define(here, steps={"a": {"capability": "do", "schedule_to_start": "1s"}})
    runs = [await start(here, n) for n in range(20)]
    os.kill(first.pid, signal.SIGKILL)
    await flows.bench.kill_server()
    for run in runs:
        assert (await ended(here, run)).error["code"] == "work.not_begun"


async def test_a_silent_executor_loses_its_attempt_and_one_that_speaks_keeps_it(flows):
    flow = await flows.here(**DO)
    await define(flow, steps={"a": {"capability": "do", "heartbeat_timeout": "400ms", "retry": TWICE}})
    silent = await start(flow, {"sleep": 100})
    speaks = await start(flow, {"beats": 15})
    await until(lambda: _both_run(flow))
    time.sleep(1.0)  # the node stands still; what was said meanwhile counts
    assert output(await ended(flow, speaks)) == {"beats": 15}
    finish = await ended(flow, silent)
    assert (finish.state, finish.error["code"]) == ("failed", "work.silent")
    assert [one.state for one in await past(flow, silent)] == ["waiting", "dead"]
    assert len(await past(flow, speaks)) == 1
    await until(lambda: not flow.runs._work.worker.running)


async def _both_run(flow) -> bool:
    return len(flow.runs._work.worker.running) == 2


async def test_an_agent_that_came_in_loses_its_attempt_when_it_is_silent(flows):
    flow = await flows.here()
    work = flow.runs._work
    await define(flow, steps={"a": {"capability": "do", "heartbeat_timeout": "4s", "retry": TWICE}})
    run = await start(flow, 7)
    (held,) = await work.claims.claim(GUEST, lease_s=60, wait_s=30, held_max=5)
    for _ in range(6):  # longer than it may be silent, in all
        await asyncio.sleep(0.8)  # a worker at its work
        await work.claims.report(held.token, None, "alive")
    claim, _ = await work.claims.leases.read(run, "a")
    assert claim is not None
    assert claim.ends_ns - claim.started_ns > 8_000_000_000
    await until(lambda: _ended(flow, run, 1))
    with pytest.raises(Conflict) as refused:
        await work.claims.complete(held.token, "late")
    assert refused.value.code == "claim.superseded"
    (again,) = await work.claims.claim(GUEST, lease_s=60, wait_s=30, held_max=5)
    await work.claims.extend(again.token, 60)
    await work.claims.complete(again.token, "second")
    assert output(await ended(flow, run)) == "second"
    first, _ = await past(flow, run)
    assert first.error is not None
    assert (first.state, first.error["code"], first.agent) == ("waiting", "work.silent", "guest")


async def _ended(flow, run, count) -> bool:
    return len(await past(flow, run)) >= count


async def test_a_timeout_holds_however_often_a_worker_speaks(flows):
    flow = await flows.here()
    work = flow.runs._work
    await define(flow, steps={"a": {"capability": "do", "heartbeat_timeout": "30s", "timeout": "4s"}})
    run = await start(flow)
    (held,) = await work.claims.claim(GUEST, lease_s=60, wait_s=30, held_max=5)
    claim = await work.claims.extend(held.token, 60)
    assert claim.ends_ns == claim.limit_ns
    finish = await ended(flow, run)
    assert finish.error["code"] == "call.timed_out"
    assert msgspec.json.encode(finish.error)
