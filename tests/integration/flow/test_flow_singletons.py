"""Runs of a workflow that lets none wait: one of them has the place, however many are started at once."""

from __future__ import annotations

import pytest
from tests.integration.flow.conftest import define, ended, start
from tests.integration.flow.test_flow_limits import attempts
from tests.integration.work.conftest import until

from knotwork.bus.background import together


@pytest.mark.parametrize("when_full", ["skip", "cancel_previous"])
async def test_of_runs_that_are_started_at_once_one_alone_stays_and_none_waits(flows, tmp_path, when_full):
    flow = await flows.here(do={"concurrency": 20})
    await define(flow, steps={"s": {"capability": "do"}}, concurrency={"when_full": when_full})
    go = tmp_path / "go"
    runs = await together(*(start(flow, {"until": str(go)}) for _ in range(12)))
    (stays,) = await until(lambda: _those_that_go_on(flow, runs))
    if when_full == "cancel_previous":
        starts = {run: (await flow.runs.look(run)).start.started_ns for run in runs}
        assert starts[stays] == max(starts.values())
    go.touch()
    assert sorted([(await ended(flow, run)).state for run in runs]) == ["cancelled"] * 11 + ["completed"]
    if when_full == "skip":
        assert len(await attempts(flow, runs)) == 1


async def _those_that_go_on(flow, runs):
    """Return the one that goes on when there is but one, nothing before."""
    found = [run for run in runs if not await flow.runs.over(run)]
    return found if len(found) == 1 else []


@pytest.mark.parametrize("when_full", ["skip", "cancel_previous"])
async def test_a_run_that_starts_itself_anew_keeps_its_place_among_those_that_never_wait(flows, when_full):
    flow = await flows.here(do={"concurrency": 20})
    steps = {
        "s": {"capability": "do", "input": {}},
        "again": {"kind": "continue_as_new", "depends_on": ["s"], "when": "input.left", "input": {"left": "input.left[1:]"}},
    }  # fmt: skip
    await define(flow, steps=steps, concurrency={"when_full": when_full})
    run = await start(flow, {"left": [1, 2, 3]})
    assert (await ended(flow, run)).state == "completed"
    assert (await flow.runs.look(await flow.runs.latest(run))).start.number == 3
