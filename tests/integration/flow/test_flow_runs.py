"""Runs of workflows on a real server: every kind of step, cancellation, signals, events, approvals, takeover."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal

import pytest
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import PATIENCE_S, until

from knotwork.bus import reading, streams, subjects
from knotwork.desk.runs.watch import RunWatch
from knotwork.flow import facts, history, listing
from knotwork.sdk.errors import Conflict, Invalid, NotFound

DO = {"do": {"concurrency": 20}}


def chain(count: int) -> dict:
    return {f"s{n}": {"capability": "do", "depends_on": [f"s{n - 1}"] if n else []} for n in range(count)}


async def test_a_chain_passes_its_value_on_and_costs_two_messages_a_step(flows):
    flow = await flows.here(**DO)
    await define(flow, steps=chain(5))
    assert output(await ended(flow, await start(flow, {"a": 1}))) == {"a": 1}

    async def stored() -> int:
        names = ("FACTS", "TASKS", "TIMERS")
        found = [await streams.api(flow.connection, f"STREAM.INFO.{name}") for name in names]
        return sum(int(one["state"]["last_seq"]) for one in found)

    before = await stored()
    runs = [await start(flow, n) for n in range(10)]
    assert [output(await ended(flow, run)) for run in runs] == list(range(10))
    assert await stored() - before == 10 * (5 * 2 + 2)  # and a start and an end


async def test_map_choice_join_mapping_and_output(flows):
    flow = await flows.here(**DO)
    await define(
        flow,
        steps={
            "each": {"kind": "map", "capability": "do", "items": "input.list", "parallelism": 3},
            "which": {
                "kind": "choice", "depends_on": ["each"],
                "cases": [{"when": "length(steps.each.output) > `2`", "then": ["many"]}, {"then": ["few"]}],
            },
            "many": {"capability": "do", "depends_on": ["which"], "input": {"n": "length(steps.each.output)"}},
            "few": {"capability": "do", "depends_on": ["which"]},
            "last": {"kind": "join", "depends_on": ["many", "few"]},
        },
        output={"all": "steps.each.output", "n": "steps.many.output.n"},
    )  # fmt: skip
    assert output(await ended(flow, await start(flow, {"list": [3, 1, 2]}))) == {"all": [3, 1, 2], "n": 3}
    assert output(await ended(flow, await start(flow, {"list": []}))) == {"all": [], "n": None}


async def test_retries_are_those_of_tasks(flows):
    flow = await flows.here(**DO)
    retry = {"max_attempts": 3, "delay": "10ms", "jitter": False}
    await define(flow, steps={"a": {"capability": "do", "retry": retry}})
    script = {"fail": {"message": "not yet", "retriable": True}, "fail_until": 3}
    assert output(await ended(flow, await start(flow, script))) == script


async def test_failure_handlers_and_compensation(flows, tmp_path):
    flow = await flows.here(**DO)
    await define(
        flow,
        steps={
            "book": {"capability": "do", "compensate": "unbook"},
            "pay": {"capability": "do", "depends_on": ["book"], "compensate": "refund"},
            "ship": {"capability": "do", "depends_on": ["pay"], "input": {"fail": "{message: 'no truck'}"}},
            "unbook": {"capability": "do", "input": {"touch": "input.touch"}},
            "refund": {"capability": "do", "input": {"touch": "input.touch"}},
            "tell": {"capability": "do", "input": {"told": "error.message", "touch": "input.touch"}},
        },
        on_failure="tell",
    )
    touched = tmp_path / "touched"
    run = await start(flow, {"touch": str(touched)})
    finish = await ended(flow, run)
    assert (finish.state, finish.error["code"]) == ("failed", "agent.failed")
    assert "no truck" in finish.error["message"]
    sight = await flow.runs.look(run)
    handled = [one.subject.split(".")[4].partition("--")[0] for one in sight.facts if "--" in one.subject]
    assert handled == ["refund", "unbook", "tell"]
    assert len(touched.read_text().split("\n")) == 2 + 3 + 1  # book, pay and what follows; each once


async def test_a_step_that_is_rescued(flows):
    flow = await flows.here(**DO)
    await define(
        flow,
        steps={
            "a": {"capability": "do", "on_failure": "b"},
            "b": {"capability": "do", "input": {"was": "error.message"}},
            "c": {"capability": "do", "depends_on": ["a"]},
        },
    )
    got = output(await ended(flow, await start(flow, {"fail": {"message": "broken"}})))
    assert "broken" in got["was"]


async def test_sleep_signal_event_and_approval(flows):
    flow = await flows.here(**DO)
    await define(
        flow,
        steps={
            "nap": {"kind": "sleep", "duration": "50ms"},
            "go": {"kind": "wait_for_signal", "signal": "go", "depends_on": ["nap"]},
            "paid": {
                "kind": "wait_for_event", "event": "order.paid", "match": "event.order == input.order",
                "depends_on": ["nap"],
            },
            "ask": {"kind": "approval", "depends_on": ["go", "paid"], "title": "Ship?"},
        },
        output={"go": "steps.go.output", "paid": "steps.paid.output.sum", "by": "steps.ask.output.by"},
    )  # fmt: skip
    run = await start(flow, {"order": 7})
    assert await flow.runs.signal(run, "go", b'"now"', key="once")
    assert not await flow.runs.signal(run, "go", b'"now"', key="once")

    async def waits() -> set[str]:
        return {name.partition(".")[0] for name in (await flow.runs.look(run)).run.open}

    await until(lambda: _is(waits(), {"event"}))
    await flow.events.publish("order.paid", b'{"order": 8, "sum": 1}')
    await flow.events.publish("order.paid", b"garbage")
    paid = b'{"order": 7, "sum": 2}'
    number, new = await flow.events.publish("order.paid", paid, key="7")
    assert (new, await flow.events.publish("order.paid", paid, key="7")) == (True, (number, False))
    assert (await flow.events.publish("order.sent", paid, key="7"))[1], "a key is one of its kind"
    with pytest.raises(Conflict) as reused:
        await flow.events.publish("order.paid", b"{}", key="7")
    assert reused.value.code == "flow.key_reused"
    await until(lambda: _is(waits(), {"ask"}))
    with pytest.raises(NotFound):
        await flow.runs.answer(run, "nap", approve=True, by="me")
    await flow.runs.answer(run, "ask", approve=True, by="me")
    with pytest.raises(Conflict) as late:
        await flow.runs.answer(run, "ask", approve=False, by="you")
    assert (late.value.code, late.value.detail["by"]) == ("flow.answered", "me")
    assert output(await ended(flow, run)) == {"go": "now", "paid": 2, "by": "me"}
    assert not await flow.runs.signal(run, "go", b'"now"', key="once")  # said again: it counted
    for key in ("", "other"):
        with pytest.raises(Conflict):
            await flow.runs.signal(run, "go", b"1", key=key)


async def test_a_key_of_forks_is_of_one_input_of_the_step_and_of_the_run(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "sleep", "duration": "1ms"}})
    run = await start(flow, {"v": 0})
    await ended(flow, run)
    first = await flow.runs.fork(run, "a", handed=b'{"v": 1, "w": 2}', key="k")
    assert await flow.runs.fork(run, "a", handed=b'{"w":2,"v":1}', key="k") == (first[0], False)
    for other in ({"handed": b'{"v": 2}'}, {"value": b'{"v": 1, "w": 2}'}, {}):
        with pytest.raises(Conflict) as reused:
            await flow.runs.fork(run, "a", key="k", **other)
        assert (reused.value.code, reused.value.detail) == ("flow.key_reused", {"id": first[0]})


async def test_a_fork_hands_its_step_another_input_and_leaves_that_of_the_run(flows):
    flow = await flows.here(**DO)
    steps = {
        "a": {"kind": "sleep", "duration": "1ms"},
        "b": {"kind": "sleep", "duration": "1ms", "depends_on": ["a"], "input": {"x": "steps.a.output"}},
        "c": {"kind": "sleep", "duration": "1ms", "depends_on": ["b"]},
    }
    await define(flow, steps=steps, output={"of": "input", "a": "steps.a.output", "c": "steps.c.output"})
    run = await start(flow, "old")
    assert output(await ended(flow, run)) == {"of": "old", "a": "old", "c": {"x": "old"}}
    large = "n" * 600_000  # it travels as a blob
    for value in ("new", large):
        fork, _ = await flow.runs.fork(run, "b", handed=json.dumps({"v": value}).encode())
        finish = await ended(flow, fork)
        assert finish.state == "completed"
        sight = await flow.runs.look(fork)
        assert bytes(sight.start.input) == b'"old"'
        if value == "new":
            assert output(finish) == {"of": "old", "a": "old", "c": {"v": "new"}}
        assert await flow.runs.replay(fork) is None
    again, _ = await flow.runs.fork(fork, "c")  # a retry of a fork
    assert (await ended(flow, again)).state == "completed"
    whole, _ = await flow.runs.fork(fork, "a", value=b'"other"', handed=b'"own"')
    assert output(await ended(flow, whole)) == {"of": "other", "a": "own", "c": {"x": "own"}}


async def _is(found, wanted):
    return await found == wanted


async def test_a_rejected_approval_fails_the_run(flows):
    flow = await flows.here(**DO)
    await define(flow, steps={"ask": {"kind": "approval"}})
    run = await start(flow)
    await until(lambda: (live := flow.journal.find(run)) and live.run)
    await flow.runs.answer(run, "ask", approve=False, by="me", comment="no")
    finish = await ended(flow, run)
    assert (finish.state, finish.error["code"]) == ("failed", "flow.rejected")


async def test_cancel_stops_what_runs_and_what_it_started(flows):
    flow = await flows.here(do={"concurrency": 5})
    await define(flow, name="inner", steps={"a": {"capability": "do"}, "b": {"kind": "sleep", "duration": "1h"}})
    await define(
        flow,
        steps={
            "x": {"capability": "do"}, "y": {"kind": "workflow", "workflow": "inner"},
            "z": {"capability": "nobody"}, "after": {"capability": "do", "depends_on": ["x"]},
        },
    )  # fmt: skip
    run = await start(flow, {"sleep": 100})
    child = facts.child_run(run, "y")
    await until(lambda: flow.journal.find(child) and len(flow.runs._work.worker.running) == 2)
    await flow.runs.cancel(run, by="me", why="enough")
    finish = await ended(flow, run)
    assert (finish.state, finish.error["code"]) == ("cancelled", "flow.cancelled")
    assert "enough" in finish.error["message"]
    assert (await ended(flow, child)).state == "cancelled"
    await until(lambda: not flow.runs._work.worker.running)


async def test_pause_holds_new_steps(flows):
    flow = await flows.here(**DO)
    await define(
        flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}, "b": {"capability": "do", "depends_on": ["a"]}}
    )
    run = await start(flow)
    await flow.runs.hold(run)
    await flow.runs.signal(run, "go", b"1")
    await until(
        lambda: (
            (live := flow.journal.find(run))
            and (found := live.run)
            and found.paused
            and found.steps["a"].state == "completed"
        )
    )
    assert flow.journal.find(run).run.steps["b"].state == "ready"
    await flow.runs.hold(run, resume=True)
    assert output(await ended(flow, run)) == 1


async def test_a_run_timeout_fires_on_time(flows):
    flow = await flows.here(**DO)
    await define(flow, timeout="200ms", steps={"a": {"capability": "do"}})
    finish = await ended(flow, await start(flow, {"sleep": 100}))
    assert (finish.state, finish.error["code"]) == ("timed-out", "flow.timeout")


async def test_a_loop_gets_its_own_output_and_ends(flows):
    flow = await flows.here(**DO)
    await define(flow, steps={"a": {"kind": "agent_loop", "capability": "do", "max_iterations": 4, "delay": "5ms"}})
    assert output(await ended(flow, await start(flow, {"loops": 3}))) == {"loops": 0}
    finish = await ended(flow, await start(flow, {"loops": 9}))
    assert finish.error["code"] == "work.loop_exhausted"


async def test_a_planner_runs_what_it_made(flows):
    flow = await flows.here(**DO)
    await define(flow, steps={"p": {"kind": "planner", "capability": "do"}})
    plan = {"steps": {"a": {"capability": "do", "input": "'made'"}, "b": {"capability": "do", "depends_on": ["a"]}}}
    assert output(await ended(flow, await start(flow, plan))) == "made"
    bad = {"steps": {"a": {"capability": "other"}}}
    assert (await ended(flow, await start(flow, bad))).error["code"] == "flow.bad_plan"


async def test_large_values_travel_by_digest(flows):
    flow = await flows.here(**DO)
    await define(
        flow,
        steps={**chain(2), "z": {"capability": "do", "depends_on": ["s1"], "input": {"n": "length(steps.s1.output)"}}},
    )
    assert output(await ended(flow, await start(flow, "x" * 1_000_000))) == {"n": 1_000_000}


async def test_whoever_looks_sees_what_the_rules_saw_in_large_values(flows):
    """Else a run is shown as one that went another way, and its approvals cannot be given."""
    flow = await flows.here(**DO)
    steps = {
        "a": {"capability": "do", "when": "input.go"},
        "b": {"capability": "do", "depends_on": ["a"], "when": "steps.a.output.go", "input": "length(steps.a.output.pad)"},
        "ok": {"kind": "approval", "depends_on": ["b"]},
        "c": {"capability": "do", "depends_on": ["ok"], "input": "length(input.pad)"},
    }  # fmt: skip
    await define(flow, steps=steps)
    run = await start(flow, {"go": True, "pad": "n" * 600_000})

    async def asked() -> bool:
        return "ask.ok" in (await flow.runs.look(run)).run.open

    await until(asked)
    await flow.runs.answer(run, "ok", approve=True, by="me")
    assert output(await ended(flow, run)) == 600_000
    assert {step.state for step in (await flow.runs.look(run)).run.steps.values()} == {"completed"}
    assert await flow.runs.replay(run) is None
    again, _ = await flow.runs.fork(run, "c")
    assert output(await ended(flow, again)) == 600_000
    stored = await flow.runs.stored(again)
    assert [one.subject.split(".", 3)[3] for one in stored] == ["start", "outcome.c.0.1", "ended"]
    assert len(stored[0].data) < 100_000, "what is taken over is not copied"


async def test_a_run_below_and_one_that_goes_on_are_given_what_no_message_holds(flows):
    flow = await flows.here(**DO)
    await define(flow, name="below", steps={"n": {"capability": "do", "input": "length(input)"}})
    steps = {
        "m": {"kind": "map", "capability": "do", "items": "input.items", "when": "input.items"},
        "sub": {"kind": "workflow", "workflow": "below", "depends_on": ["m"]},
        "on": {"kind": "continue_as_new", "depends_on": ["sub"], "input": {"all": "steps.m.output", "n": "steps.sub.output"}},
        "last": {"capability": "do", "when": "input.all", "input": "[input.n, length(input.all)]"},
    }  # fmt: skip
    steps["sub"]["when"] = steps["on"]["when"] = "input.items"
    await define(flow, steps=steps, output="steps.last.output")
    run = await start(flow, {"items": ["n" * 450_000] * 20})
    assert output(await ended(flow, run)) == [20, 20]


async def test_twenty_starts_with_one_key_are_one_run(flows):
    flow = await flows.here(**DO)
    await define(flow, steps=chain(1))
    found = set()

    async def one() -> None:
        found.add(await start(flow, 1, key="k"))

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(one())
    assert len(found) == 1
    assert output(await ended(flow, found.pop())) == 1
    with pytest.raises(Conflict):
        await start(flow, 2, key="k")


async def test_schemas_are_enforced(flows):
    flow = await flows.here(**DO)
    await define(flow, steps=chain(1), input_schema={"type": "integer"}, output_schema={"maximum": 5})
    with pytest.raises(Invalid):
        await start(flow, "x")
    assert output(await ended(flow, await start(flow, 5))) == 5
    assert (await ended(flow, await start(flow, 6))).error["code"] == "flow.schema"


async def test_what_is_over_is_packed_away_and_still_told(flows, monkeypatch):
    monkeypatch.setattr(history, "KEEP_S", 0.05)
    flow = await flows.here(**DO)
    await define(flow, steps=chain(2))
    run = await start(flow, "v", key="once")
    assert output(await ended(flow, run)) == "v"
    await until(lambda: _gone(flow, run))
    assert output(await ended(flow, run)) == "v"
    sight = await flow.runs.look(run)
    assert [one.subject.split(".")[3] for one in sight.facts] == ["start", "outcome", "outcome", "ended"]
    assert [one.id for one in await listing.runs(flow.connection)] == [run]
    assert await listing.runs(flow.connection, over=False) == await listing.runs(flow.connection, workflow="x") == []
    assert await start(flow, "v", key="once") == run
    await until(lambda: _gone(flow, run))
    fork, new = await flow.runs.fork(run, "s1", key="again")
    assert (new, output(await ended(flow, fork))) == (True, "v")
    await until(lambda: _gone(flow, fork))
    assert await flow.runs.fork(run, "s1", key="again") == (fork, False)
    await until(lambda: _gone(flow, fork))


async def _gone(flow, run):
    return await reading.last(flow.connection, subjects.FACTS, f"{facts.subject(run)}.>") is None


async def test_an_engine_that_is_killed_is_taken_over(flows):
    first = await flows.process("first", do={"concurrency": 10})
    second = await flows.here("second", **DO)
    await define(second, steps={**chain(3), "nap": {"kind": "sleep", "duration": "500ms", "depends_on": ["s2"]}})
    runs = [await start(second, n) for n in range(40)]
    os.kill(first.pid, signal.SIGKILL)
    assert [output(await ended(second, run)) for run in runs] == list(range(40))
    await until(lambda: len(second.shards.mine) == len(facts.SHARDS))


async def test_a_server_that_is_killed_changes_nothing(flows):
    flow = await flows.here(**DO)
    await define(flow, steps={**chain(3), "nap": {"kind": "sleep", "duration": "300ms", "depends_on": ["s2"]}})
    runs = [await start(flow, n) for n in range(30)]
    await flows.bench.kill_server()
    assert [output(await ended(flow, run)) for run in runs] == list(range(30))


async def test_two_owners_do_no_harm(flows):
    one, two = await flows.here("one", **DO), await flows.here("two", **DO)
    await define(one, steps=chain(4))
    for flow in (one, two):  # each is made to think that all is its own
        flow.shards.mine = frozenset()
        flow.journal.own(frozenset(facts.SHARDS))
    runs = [await start(one, n) for n in range(30)]
    assert [output(await ended(two, run)) for run in runs] == list(range(30))
    for run in runs:
        sight = await one.runs.look(run)
        assert len(sight.facts) == len({fact.subject for fact in sight.facts})
        outcomes = [json.loads(fact.data)["output"] for fact in sight.facts if ".outcome." in fact.subject]
        assert len(outcomes) == 4


async def test_who_looks_on_no_more_hears_no_more(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"capability": "nobody-has-it"}})
    run = await start(flow)

    def heard() -> list[str]:
        return [one.subject for one in flow.connection._listening if run in one.subject]

    async with contextlib.aclosing(RunWatch(flow, tree=False).pieces(run, PATIENCE_S)) as pieces:
        await anext(pieces)
        assert heard()
    assert not heard()
