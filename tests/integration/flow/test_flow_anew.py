"""Runs that start themselves anew: one after the other, each with a history of its own, and nothing that is sent is lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal

import pytest
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.bus import reading, subjects
from knotwork.flow import anew, facts, history, listing
from knotwork.flow.admission import key_of
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound

DO = {"do": {"concurrency": 20}}
COUNT = {
    "do": {"capability": "do"},
    "again": {
        "kind": "continue_as_new", "depends_on": ["do"], "when": "steps.do.output.left > `0`",
        "input": {"left": "sum([input.left, `-1`])", "was": "run.id", "touch": "input.touch || '/dev/null'"},
    },
    "end": {"capability": "do", "depends_on": ["do"], "when": "steps.do.output.left == `0`", "input": {"was": "input.was"}},
}  # fmt: skip


async def test_a_chain_of_runs_is_one_piece_of_work(flows, tmp_path):
    flow = await flows.here(**DO)
    await define(flow, steps=COUNT, output="steps.end.output")
    touched = tmp_path / "touched"
    run = await start(flow, {"left": 7, "touch": str(touched)}, key="once", labels={"a": "b"})
    chain = [facts.chained(run, number) for number in range(8)]
    assert output(await ended(flow, run)) == {"was": chain[-2]}
    assert [await flow.runs.latest(one) for one in chain] == chain[-1:] * 8
    assert len(touched.read_text().splitlines()) == 8
    for number, one in enumerate(chain):
        sight = await flow.runs.look(one)
        assert (sight.start.number, sight.start.labels, len(sight.facts)) == (number, {"a": "b"}, 3 + (number == 7))
        assert sight.finish.next == (chain[number + 1] if number < 7 else "")
        assert anew.before(sight.start) == (chain[number - 1] if number else "")
        assert await flow.runs.replay(one) is None
        assert await flow.runs.over(one)
    assert {one.id for one in await listing.runs(flow.connection)} == set(chain)
    assert (await start(flow, {"left": 7, "touch": str(touched)}, key="once")) == run


async def test_a_parent_waits_for_the_last_and_its_cancel_reaches_it(flows):
    flow = await flows.here(**DO)
    await define(flow, name="inner", steps=COUNT, output="steps.end.output.was")
    await define(flow, steps={"a": {"kind": "workflow", "workflow": "inner"}})
    run = await start(flow, {"left": 3})
    child = facts.child_run(run, "a")
    assert output(await ended(flow, run)) == facts.chained(child, 2)

    waits = {
        "hear": {"kind": "wait_for_signal", "signal": "go"},
        "again": {"kind": "continue_as_new", "depends_on": ["hear"], "input": {"got": "steps.hear.output"}},
    }
    await define(flow, name="inner", steps=waits)
    run = await start(flow)
    child = facts.child_run(run, "a")
    await until(lambda: flow.journal.find(child))
    for number in range(3):
        await flow.runs.signal(child, "go", str(number).encode())
    third = facts.chained(child, 3)
    await until(lambda: flow.journal.find(third))
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"
    finish = await ended(flow, child)
    assert (finish.state, finish.next) == ("cancelled", "")
    assert output(await flow.runs._ended(facts.chained(child, 2))) is None
    assert json.loads(bytes((await flow.runs.look(third)).start.input)) == {"got": 2}
    with pytest.raises(Conflict):
        await flow.runs.signal(child, "go", b"9")


async def test_the_key_of_a_signal_holds_for_all_that_go_on(flows):
    flow = await flows.here()
    waits = {
        "hear": {"kind": "wait_for_signal", "signal": "go"},
        "again": {"kind": "continue_as_new", "depends_on": ["hear"], "when": "steps.hear.output != 'end'",
                  "input": {"got": "steps.hear.output"}},
    }  # fmt: skip
    await define(flow, steps=waits, output="input.got")
    run = await start(flow)
    for number in range(3):  # each is heard by the run that goes on then, though all are sent to the first
        assert await flow.runs.signal(run, "go", str(number).encode(), key=str(number))
        await until(lambda number=number: flow.journal.find(facts.chained(run, number + 1)))
        for sent in range(number + 1):
            assert not await flow.runs.signal(run, "go", b'"twice"', key=str(sent))
    second = facts.chained(run, 2)
    assert not await flow.runs.signal(second, "go", b'"twice"', key="0")
    assert await flow.runs.signal(second, "go", b'"end"', key="end")
    finish = await ended(flow, run)
    assert output(finish) == 2
    assert not await flow.runs.signal(run, "go", b'"twice"', key="end")
    with pytest.raises(Conflict, match=f"which went on for {run}, has ended") as caught:
        await flow.runs.signal(run, "go", b'"late"', key="late")
    assert caught.value.detail["id"] == facts.chained(run, 3)


async def test_no_signal_is_lost_between_two_runs(flows):
    flow = await flows.here(**DO)
    await define(
        flow,
        steps={
            "hear": {"kind": "wait_for_signal", "signal": "item"},
            "do": {"capability": "do", "depends_on": ["hear"]},
            "again": {
                "kind": "continue_as_new", "depends_on": ["do"], "when": "steps.hear.output != 'end'",
                "input": {"all": "[input.all, [steps.hear.output]][]"},
            },
        },
        output={"all": "input.all"},
    )  # fmt: skip
    run = await start(flow, {"all": []})
    for number in range(40):
        await flow.runs.signal(run, "item", str(number).encode(), key=str(number))
    await flow.runs.signal(run, "item", b'"end"')
    assert sorted(output(await ended(flow, run))["all"]) == list(range(40))


async def test_it_goes_on_through_kills_of_engines_and_of_the_server(flows):
    first = await flows.process("first", do={"concurrency": 10})
    flow = await flows.here("second", **DO)
    await define(flow, steps=COUNT, output="steps.end.output.was")
    runs = [await start(flow, {"left": 12}) for _ in range(8)]
    await until(lambda: _is_further(flow, runs[0], 2))
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: _is_further(flow, runs[1], 5))
    await flows.bench.kill_server()
    for run in runs:
        assert output(await ended(flow, run)) == facts.chained(run, 11)
        assert not await anew.exists(flow.connection, facts.chained(run, 13))


async def _is_further(flow, run, number) -> bool:
    return await anew.exists(flow.connection, facts.chained(run, number))


async def test_the_next_run_is_not_in_its_own_way(flows):
    flow = await flows.here(**DO)
    concurrency = {"max_runs": 1, "when_full": "skip"}
    await define(flow, steps=COUNT, output="steps.end.output.was", concurrency=concurrency)
    run = await start(flow, {"left": 3})
    assert output(await ended(flow, run)) == facts.chained(run, 2)
    await until(lambda: _nobody_in(flow, key_of("run", "w")))


async def _nobody_in(flow, key) -> bool:
    return not await flow.limits.holders(key)


async def test_it_can_follow_a_newer_definition(flows):
    flow = await flows.here(**DO)
    steps = {
        "hear": {"kind": "wait_for_signal", "signal": "go"},
        "again": {"kind": "continue_as_new", "depends_on": ["hear"], "latest": True},
    }
    await define(flow, steps=steps)
    run = await start(flow)
    await until(lambda: flow.journal.find(run))
    await define(flow, steps={"a": {"capability": "do"}})
    await flow.runs.signal(run, "go", b'"new"')
    assert output(await ended(flow, run)) == "new"


async def test_what_is_paused_does_not_start_anew(flows):
    flow = await flows.here(**DO)
    await define(
        flow,
        steps={
            "hear": {"kind": "wait_for_signal", "signal": "go", "when": "input.first"},
            "again": {"kind": "continue_as_new", "when": "input.first", "input": {"first": "`false`"}},
        },
    )
    run = await start(flow, {"first": True})
    await flow.runs.hold(run)
    await flow.runs.signal(run, "go", b"1")
    await until(lambda: (live := flow.journal.find(run)) and live.run and live.run.paused and live.run.left == 0)
    await asyncio.sleep(0)
    assert flow.journal.find(run).run.phase == "running"
    await flow.runs.hold(run, resume=True)
    finish = await ended(flow, run)
    assert (finish.state, await flow.runs.latest(run)) == ("completed", facts.chained(run, 1))


async def test_a_pause_reaches_a_chain_below_and_lasts_though_its_owner_is_killed(flows):
    """The run and the one between may be anybody's; the resume reaches the chain where it stands."""
    flow = await flows.here(**DO)
    other = await flows.process("other", **DO)
    await define(flow, name="inner", steps=COUNT, output="steps.end.output.was")
    await define(flow, name="mid", steps={"m": {"kind": "workflow", "workflow": "inner"}})
    await define(flow, steps={"a": {"kind": "workflow", "workflow": "mid"}})
    run = await start(flow, {"left": 100_000})
    first = facts.child_run(facts.child_run(run, "a"), "m")
    await until(lambda: _begun(flow, facts.chained(first, 3)))
    await flow.runs.hold(run)
    os.killpg(other.pid, signal.SIGKILL)
    await until(lambda: _rests(flow, first))
    held = await flow.runs.latest(first)
    await flow.runs.hold(run, resume=True)
    await until(lambda: _other(flow, first, held))
    await flow.runs.cancel(run)
    assert [(await ended(flow, one)).state for one in (run, first)] == ["cancelled"] * 2


async def _begun(flow, run) -> bool:
    return await anew.exists(flow.connection, run)


async def _rests(flow, run) -> bool:
    """Return whether the last of a chain is paused, and nobody works for it."""
    found = (await flow.runs.look(await flow.runs.latest(run))).run
    return found.paused and not found.open


async def _other(flow, run, held) -> bool:
    return await flow.runs.latest(run) != held


async def test_what_is_packed_away_is_still_followed(flows, monkeypatch):
    monkeypatch.setattr(history, "KEEP_S", 0.05)
    flow = await flows.here(**DO)
    await define(flow, steps=COUNT, output="steps.end.output.was")
    run = await start(flow, {"left": 4})
    assert output(await ended(flow, run)) == facts.chained(run, 3)
    await until(lambda: _gone(flow, run))
    await until(lambda: _gone(flow, facts.chained(run, 4)))
    assert output(await ended(flow, run)) == facts.chained(run, 3)
    assert await flow.runs.latest(facts.chained(run, 2)) == facts.chained(run, 4)


async def _gone(flow, run) -> bool:
    return await reading.last(flow.connection, subjects.FACTS, f"{facts.subject(run)}.>") is None


async def test_an_answer_to_a_run_that_went_on_says_where_something_is_asked_now(flows):
    flow = await flows.here()
    steps = {
        "ask": {"kind": "approval", "when": "input != `0`"},
        "no": {"kind": "approval", "when": "input == `0`"},
        "on": {"kind": "continue_as_new", "depends_on": ["ask"], "input": "`0`"},
    }
    await define(flow, steps=steps)
    run = await start(flow, 1)
    await until(lambda: _asks(flow, run, "ask"))
    await flow.runs.answer(run, "ask", approve=True, by="me")
    last = facts.chained(run, 1)
    await until(lambda: _asks(flow, last, "no"))
    for step, code in (("ask", "flow.answered"), ("no", "flow.not_asked")):
        with pytest.raises(KnotworkError) as refused:
            await flow.runs.answer(run, step, approve=True, by="me")
        assert (refused.value.code, last in str(refused.value.hint)) == (code, True)
    await flow.runs.answer(last, "no", approve=False, by="me")
    assert (await ended(flow, last)).state == "failed"
    with pytest.raises(NotFound, match="waits for an answer") as refused:
        await flow.runs.answer(last, "ask", approve=True, by="me")
    assert "retried" in str(refused.value.hint)


async def _asks(flow, run, step):
    return await anew.exists(flow.connection, run) and f"ask.{step}" in (await flow.runs.look(run)).run.open


async def test_signals_are_heard_in_their_order_though_the_owner_dies_when_the_next_run_has_begun(flows, monkeypatch):
    flow = await flows.here()
    passed_on, gate, sent = anew.pass_on, asyncio.Event(), []

    async def late(connection, writer, one: str, following: str, wanted, **more) -> None:
        if await anew.exists(connection, following):  # as if somebody else had to take over first
            await gate.wait()
        await passed_on(connection, writer, one, following, wanted, **more)
        if not sent:
            sent.append(await flow.runs.signal(run, "go", b"3"))  # the next run has not begun yet

    monkeypatch.setattr(anew, "pass_on", late)
    heard = "[input, [steps.w.output]][]"
    again = {"kind": "continue_as_new", "depends_on": ["w"], "when": "length(input) < `4`", "input": heard}
    await define(flow, steps={"w": {"kind": "wait_for_signal", "signal": "go"}, "again": again}, output=heard)
    run = await start(flow, [])
    await flow.runs.hold(run)
    for number in range(3):
        await flow.runs.signal(run, "go", b"%d" % number)
    await flow.runs.hold(run, resume=True)
    await until(lambda: anew.exists(flow.connection, facts.chained(run, 1)))
    await flow.runs.signal(run, "go", b"4")
    gate.set()
    assert output(await ended(flow, run)) == [0, 1, 2, 3, 4]


async def test_a_signal_whose_sender_died_before_the_next_run_had_it_is_heard_when_it_is_sent_again(flows, monkeypatch):
    flow = await flows.here()
    again = {"kind": "continue_as_new", "depends_on": ["w"], "when": "input == `0`", "input": "`1`"}
    await define(
        flow, steps={"w": {"kind": "wait_for_signal", "signal": "go"}, "again": again}, output="steps.w.output"
    )
    monkeypatch.setattr(history, "KEEP_S", 600)  # what ended is not packed away meanwhile
    run = await start(flow, 0)
    await flow.runs.signal(run, "go", b"1")
    await until(lambda: anew.is_over(flow.connection, run))
    place = ("signal", "go", hashlib.sha256(b"k").hexdigest()[:16])
    told = facts.encode(facts.Signal(facts.NULL))
    await flow.runs._facts.append(facts.subject(run, *place), told)  # it began to be sent before that end was seen
    assert await flow.runs.signal(run, "go", b"null", key="k") is False
    assert output(await ended(flow, run)) is None
