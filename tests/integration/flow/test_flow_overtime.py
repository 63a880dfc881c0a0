"""A step that took too long, or fell silent, has really ended before anything follows from that; but is not waited for for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from tests.integration.flow.conftest import define, ended, start
from tests.integration.work.conftest import until

from knotwork.mesh import hosting
from knotwork.work import records

TIMES = pytest.mark.parametrize(
    ("bound", "code"), [({"timeout": "500ms"}, "call.timed_out"), ({"heartbeat_timeout": "500ms"}, "work.silent")]
)


def _does(log, name, **script):
    return {"capability": "do", "input": {"log": repr(str(log)), "as": repr(name), **script}}


def _slow(log, ending=0.7, **more):
    return {**_does(log, "b", sleep="`100`", ending=f"`{ending}`"), **more}


def _lines(log):
    return log.read_text().splitlines() if log.exists() else []


async def _past(flow, run, step="b") -> list[records.Outcome]:
    sight = await flow.runs.look(run)
    return [records.decode_outcome(one.data) for one in sight.facts if f".outcome.{step}." in one.subject]


@TIMES
async def test_nothing_is_undone_before_it_has_ended(flows, tmp_path, bound, code):
    flow, log = await flows.here(do={}), tmp_path / "log"
    steps = {
        "a": {**_does(log, "a"), "compensate": "undo"},
        "b": _slow(log, depends_on=["a"], **bound),
        "undo": _does(log, "undo"),
    }
    await define(flow, steps=steps)
    run = await start(flow)
    finish = await ended(flow, run)
    assert (finish.state, finish.error["code"]) == ("failed", code)
    assert _lines(log) == ["a begins", "a ends", "b begins", "b ends", "undo begins", "undo ends"]
    (only,) = await _past(flow, run)
    assert only.state == "timed-out"


@TIMES
async def test_the_next_attempt_begins_when_the_one_before_has_ended(flows, tmp_path, bound, code):
    flow, log = await flows.here(do={}), tmp_path / "log"
    retry = {"max_attempts": 2, "delay": "0s", "jitter": False}
    await define(flow, steps={"b": _slow(log, retry=retry, **bound)})
    run = await start(flow)
    finish = await ended(flow, run)
    assert (finish.state, finish.error["code"]) == ("failed", code)
    assert _lines(log) == ["b begins", "b ends"] * 2
    assert [one.state for one in await _past(flow, run)] == ["waiting", "dead"]
    await until(lambda: not flow.runs._work.worker.running)


@TIMES
async def test_what_it_gives_after_its_time_comes_too_late(flows, tmp_path, bound, code):
    flow, log = await flows.here(do={}), tmp_path / "log"
    slow = _slow(log, **bound)
    slow["input"]["deaf"] = "`true`"
    await define(flow, steps={"b": slow})
    finish = await ended(flow, await start(flow))
    assert (finish.state, finish.error["code"]) == ("failed", code)
    assert _lines(log) == ["b begins", "b ends"]


@TIMES
async def test_one_that_does_not_end_is_given_up_after_a_while(flows, tmp_path, monkeypatch, bound, code):
    monkeypatch.setattr(hosting, "LET_GO_S", 0.3)
    flow, log = await flows.here(do={}), tmp_path / "log"
    await define(flow, steps={"b": _slow(log, ending=5, **bound)})
    finish = await ended(flow, await start(flow))
    assert (finish.state, finish.error["code"]) == ("failed", code)
    assert "b ends" not in _lines(log)


@TIMES
async def test_one_that_ends_at_once_is_told_at_once(flows, tmp_path, monkeypatch, bound, code):
    monkeypatch.setattr(hosting, "LET_GO_S", 3600.0)
    flow, log = await flows.here(do={}), tmp_path / "log"
    await define(flow, steps={"b": _slow(log, ending=0, **bound)})
    run = await start(flow)
    assert (await ended(flow, run)).error["code"] == code
    (only,) = await _past(flow, run)
    assert only.ended_ns - only.started_ns >= 500_000_000


async def test_who_is_called_off_while_its_time_is_over_counts_as_called_off(flows, tmp_path):
    flow, log = await flows.here(do={}), tmp_path / "log"
    retry = {"max_attempts": 5, "delay": "0s", "jitter": False}
    await define(flow, steps={"b": _slow(log, ending=1.5, timeout="300ms", retry=retry)})
    run = await start(flow)
    await until(lambda: _is_late(flow))
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"
    assert _lines(log) == ["b begins", "b ends"]
    assert [one.state for one in await _past(flow, run)] == ["cancelled"]


async def _is_late(flow):
    return any(job.late for job in flow.runs._work.worker._hosting.running())


async def test_a_worker_that_died_meanwhile_is_not_waited_for(flows, tmp_path):
    flow, log = await flows.here(), tmp_path / "log"
    worker = await flows.process("other", lease_s=1.0, do={})
    await define(flow, steps={"b": _slow(log, ending=1000, timeout="500ms")})
    run = await start(flow)
    await until(lambda: _began(log))
    os.kill(worker.pid, signal.SIGKILL)
    await worker.wait()
    again = time.monotonic()
    await flows.process("another", lease_s=1.0, do={})
    async with asyncio.timeout(60):
        finish = await flow.runs.ended(run)
    assert finish.error["code"] == "call.timed_out", time.monotonic() - again


async def _began(log):
    return "b begins" in _lines(log)
