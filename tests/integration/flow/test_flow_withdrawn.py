"""What is called off has really ended before anything follows from that: a step is undone, a run ends."""

from __future__ import annotations

import os
import signal

import pytest
from tests.integration.flow.conftest import define, ended, start
from tests.integration.work.conftest import until

from knotwork.work import queues, records

ENDING_S = 0.6


def _does(log, name, **script):
    return {"capability": "do", "input": {"log": repr(str(log)), "as": repr(name), **script}}


def _slow(log, name="b", **more):
    return {**_does(log, name, sleep="`100`", ending=f"`{ENDING_S}`"), **more}


def _steps(log):
    """Return a step that can be undone, one that takes long to end, and what undoes the first."""
    return {
        "a": {**_does(log, "a"), "compensate": "undo"},
        "b": _slow(log, depends_on=["a"]),
        "undo": _does(log, "undo"),
    }


def _lines(log):
    return log.read_text().splitlines() if log.exists() else []


async def _begun(log, name="b"):
    await until(lambda: f"{name} begins" in _lines(log))


GO = {"kind": "wait_for_signal", "signal": "go"}
UNDONE = ["a begins", "a ends", "b begins", "b ends", "undo begins", "undo ends"]


async def test_what_a_timeout_stops_has_ended_before_anything_is_undone(flows, tmp_path):
    flow = await flows.here(do={})
    for seconds in (2, 20, 60):
        log = tmp_path / f"log{seconds}"
        await define(flow, steps=_steps(log), timeout=seconds)
        run = await start(flow)
        assert (await ended(flow, run)).state == "timed-out"
        if "b begins" in _lines(log):  # else it is a slow machine, which needs more time
            break
    assert _lines(log) == UNDONE


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_what_the_failure_of_another_stops_has_ended_before_anything_is_undone(flows, tmp_path, where):
    flow, log = await flows.here(**({"do": {}} if where == "here" else {})), tmp_path / "log"
    if where == "elsewhere":
        await flows.process("other", do={})
    fails = {"capability": "do", "depends_on": ["go"], "input": {"fail": "{message: 'no'}"}}
    await define(flow, steps={**_steps(log), "go": GO, "c": fails})
    run = await start(flow)
    await _begun(log)
    await flow.runs.signal(run, "go", b"1")
    finish = await ended(flow, run)
    assert finish.state == "failed"
    assert "not_undone" not in finish.error.get("detail", {})
    assert _lines(log) == UNDONE
    (outcome,) = [
        records.decode_outcome(one.data) for one in (await flow.runs.look(run)).facts if ".outcome.b." in one.subject
    ]
    assert (outcome.state, outcome.error["code"]) == ("cancelled", "flow.step_cancelled")
    assert outcome.started_ns


async def test_a_cancelled_run_ends_when_what_it_stopped_has(flows, tmp_path):
    flow, log = await flows.here(do={}), tmp_path / "log"
    await define(flow, steps=_steps(log))
    run = await start(flow)
    await _begun(log)
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"
    assert _lines(log) == UNDONE[:4]


async def test_a_run_ends_when_what_a_join_called_off_has(flows, tmp_path):
    flow, log = await flows.here(do={}), tmp_path / "log"
    join = {"kind": "join", "depends_on": ["b", "c"], "need": "any", "cancel_rest": True}
    await define(flow, steps={"b": _slow(log), "c": GO, "j": join})
    run = await start(flow)
    await _begun(log)
    await flow.runs.signal(run, "go", b"1")
    assert (await ended(flow, run)).state == "completed"
    assert _lines(log) == ["b begins", "b ends"]


async def test_work_that_ends_well_although_it_was_called_off_is_undone_too(flows, tmp_path):
    flow = await flows.here(do={})
    for seconds in (2, 20, 60):
        log = tmp_path / f"log{seconds}"
        slow = {**_slow(log), "compensate": "undo"}
        slow["input"] = {**slow["input"], "deaf": "`true`"}
        await define(flow, steps={"b": slow, "undo": _does(log, "undo")}, timeout=seconds)
        run = await start(flow)
        assert (await ended(flow, run)).state == "timed-out"
        if "b begins" in _lines(log):  # likewise
            break
    assert _lines(log) == UNDONE[2:]


async def test_what_waits_in_its_queue_or_was_with_a_dead_worker_is_not_waited_for(flows, tmp_path):
    flow, log = await flows.here(), tmp_path / "log"
    await define(flow, steps={"b": _slow(log)})
    waiting = await start(flow)
    await until(lambda: _stored(flow))
    await flow.runs.cancel(waiting)
    assert (await ended(flow, waiting)).state == "cancelled"
    worker = await flows.process("other", lease_s=60.0, do={})
    run = await start(flow)
    await _begun(log)
    os.kill(worker.pid, signal.SIGKILL)
    await worker.wait()
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"
    assert _lines(log) == ["b begins"]


async def _stored(flow):
    return [one for one in await queues.sweep(flow.connection) if one.pending]
