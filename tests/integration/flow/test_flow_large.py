"""A run with more facts than one message holds is kept, looked at, written down and brought back like any other."""

from __future__ import annotations

import json

import pytest
from tests.integration.flow.conftest import define, ended, start
from tests.integration.work.conftest import until

from knotwork.bus import reading, subjects
from knotwork.desk.runs.copies import RunCopies
from knotwork.flow import facts, history, listing
from knotwork.ops import replies
from knotwork.sdk.errors import Invalid

LARGE = "x" * 900_000
COUNT = 11


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """What is over is kept at once."""
    monkeypatch.setattr(history, "KEEP_S", 0.05)


async def large(flow) -> str:
    """Return a run that is over and has 10 MB of facts."""
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    run = await start(flow, 1)
    for number in range(COUNT):
        await flow.runs.signal(run, "heard", json.dumps([number, LARGE]).encode(), key=str(number))
    await flow.runs.signal(run, "go", b'"on"')
    await ended(flow, run)
    return run


async def test_a_run_ends_however_much_was_said_of_its_failure(flows):
    flow = await flows.here(do={})
    do = {"capability": "do", "input": "input"}
    await define(flow, steps={"a": do, "h": do}, on_failure="h")
    run = await start(flow, {"fail": {"message": "x" * 4_500_000}})  # twice that fits into no message
    finish = await ended(flow, run)
    assert (finish.state, finish.error["detail"]["handler_error"]["code"]) == ("failed", "agent.failed")


async def _forgotten(flow, run) -> bool:
    return not await history.all_facts(flow.connection, run)


async def test_it_is_kept_and_facts_forgets_it(flows):
    flow = await flows.here()
    run = await large(flow)
    there = await history.all_facts(flow.connection, run)
    await until(lambda: _forgotten(flow, run))
    assert [one.subject for one in await history.kept_facts(flow.connection, run)] == [one.subject for one in there]
    sight = await flow.runs.look(run)
    assert (sight.finish.state, sight.facts) == ("completed", there)
    assert await flow.runs.replay(run) is None
    (row,) = await listing.runs(flow.connection)
    assert (row.id, row.finish.state) == (run, "completed")
    assert await flow.runs.over(run)


def told_by(found) -> list:
    return [(one.subject, one.seq, one.time, json.loads(one.data or b"null")) for one in found]


async def written(flow, run) -> list[dict]:
    """Return the lines that a run makes."""
    found = []
    async for piece in RunCopies(flow).lines(run):
        line = piece.data if isinstance(piece, replies.Chunk) else piece.line()
        found.append(json.loads(json.dumps(line)))
    return found


async def test_what_an_answer_says_of_a_run_brings_it_back_as_well(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "sleep", "duration": 0}})
    run = await start(flow, 1)
    await ended(flow, run)
    await until(lambda: _forgotten(flow, run))
    (answer,) = [piece async for piece in RunCopies(flow).lines(run)]
    await reading.purge(flow.connection, subjects.HISTORY, "history.>", 0)
    assert (await RunCopies(flow).keep(json.loads(answer.model_dump_json()))).changed
    assert (await flow.runs.look(run)).finish.state == "completed"


async def test_it_is_written_down_in_parts_and_brought_back(flows):
    flow = await flows.here()
    run = await large(flow)
    await until(lambda: _forgotten(flow, run))
    before = (await flow.runs.look(run)).facts
    lines = await written(flow, run)
    assert [(line["part"], line["more"]) for line in lines] == [(1, True), (2, True), (3, False)]
    assert all(len(json.dumps(line)) < 8_000_000 for line in lines)
    assert [json.loads(json.dumps(row["d"])) for line in lines for row in line["facts"]][1]["payload"] == [0, LARGE]
    await reading.purge(flow.connection, subjects.HISTORY, "history.>", 0)

    copies = RunCopies(flow)
    with pytest.raises(Invalid, match="part 1") as missing:
        await copies.keep(lines[2])
    assert missing.value.code == "flow.bad_history"
    first = await copies.keep(lines[0])
    assert (first.changed, first.code, "part 1" in first.why) == (False, "", True)
    assert not await history.is_kept(flow.connection, run)
    told = await copies.keep_all(lines)
    assert [one.changed for one in told.runs] == [False, False, True]
    assert told_by((await flow.runs.look(run)).facts) == told_by(before)
    again = await copies.keep_all(lines)
    assert [one.changed for one in again.runs] == [False] * 3
    assert "there already" in again.runs[2].why
    left = await reading.subjects_of(flow.connection, subjects.HISTORY, f"history.{run}.part.>")
    assert not left


async def test_a_run_of_one_line_stays_one(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "sleep", "duration": 0}})
    run = await start(flow, 1)
    await ended(flow, run)
    (line,) = await written(flow, run)
    assert set(line) == {"id", "definition", "facts"}


async def test_of_a_run_whose_parts_are_gone_nothing_is_known(flows):
    flow = await flows.here()
    run = await large(flow)
    await until(lambda: _forgotten(flow, run))
    await reading.purge(flow.connection, subjects.HISTORY, f"history.{run}.>", 0)
    assert await history.kept_facts(flow.connection, run) == []
    assert await flow.runs.over(run)


async def test_what_somebody_else_wrote_among_its_facts_does_not_spoil_its_history(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    run = await start(flow, 1)
    for place, data in (("zz", b"no JSON"), ("yy", b'"\xff"'), ("xx", b'{"a":')):
        await flow.runs._facts.append(facts.subject(run, "outcome", place), data)
    await flow.runs.signal(run, "go", b"1")
    await ended(flow, run)
    await until(lambda: _forgotten(flow, run))
    kept = await history.kept_facts(flow.connection, run)
    assert history.is_whole(kept)
    assert (await flow.runs.look(run)).finish is not None
    assert len(await written(flow, run)) == 1


async def test_a_signal_that_fits_into_no_message_fails_its_step_and_says_what_to_do(flows):
    flow = await flows.here()
    await define(flow, steps={"s": {"kind": "signal", "signal": "go", "run": "run.id", "input": "[input, input]"}})
    finish = await ended(flow, await start(flow, LARGE * 5))
    assert (finish.state, finish.error["code"]) == ("failed", "bus.message_too_large")
    assert "the limit is 8388608" in finish.error["message"]
    assert "send the address" in finish.error["hint"]
