"""Limits hold exactly, over several nodes: shown by who was under way when."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import msgspec
import pytest_asyncio
from tests.integration.flow.conftest import define, ended, start
from tests.integration.work.conftest import open_bench, until

from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.desk.runs import rows as flow_rows
from knotwork.flow import admission
from knotwork.flow.admission import Limit, key_of
from knotwork.flow.limits import Limits
from knotwork.work import records


@pytest_asyncio.fixture
async def three(tmp_path):
    async with open_bench(tmp_path) as bench, background() as group:
        made = []
        for _ in range(3):
            connection = await bench.stack.enter_async_context(open_connection(Endpoint((bench.url,), seed=bench.seed)))
            limits = Limits(group, connection)
            await limits.open()
            group.create_task(limits.run(lambda _: False))
            made.append(limits)
        yield made


async def _held(limits: Limits, by: list[str]) -> bool:
    return await limits.holders("cap.do") == by


async def test_who_is_in_the_book_already_goes_before_those_who_wait_for_its_place(three):
    """A node that died after it wrote a step into the book: the next owner of its run has others waiting before it."""
    limit = Limit("cap.do", concurrency=1)
    await three[0].acquire("left", limit)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waits = group.create_task(three[1].acquire("first", limit, priority=9))
        await until(lambda: "cap.do" in three[1]._lines)
        await three[1].acquire("left", limit)
        assert not waits.done()
        three[1].release("left", limit.key)


async def test_a_bug_met_once_leaves_nobody_waiting_for_ever(three, monkeypatch, caplog):
    rule, met = admission.admitted, asyncio.Event()

    def odd(*given):
        if not met.is_set():
            met.set()
            raise ValueError("a bug")
        return rule(*given)

    monkeypatch.setattr(admission, "admitted", odd)
    async with asyncio.timeout(60):
        await three[0].acquire("one", Limit("cap.do", concurrency=1))
    assert "a bug" in caplog.text


async def test_a_concurrency_limit_holds_over_three_nodes(three):
    limit = Limit("cap.do", concurrency=3)
    log: list[tuple[float, int]] = []

    async def one(node: int, number: int) -> None:
        await three[node].acquire(f"{node}.{number}", limit)
        log.append((time.monotonic(), 1))
        await asyncio.sleep(0.01)  # the work
        log.append((time.monotonic(), -1))
        three[node].release(f"{node}.{number}", limit.key)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(one(number % 3, number))
    under_way, most = 0, 0
    for _, change in sorted(log):
        under_way += change
        most = max(most, under_way)
    assert most == 3
    await until(lambda: _held(three[0], []))


async def test_a_rate_holds_over_three_nodes(three):
    limit = Limit("cap.do", rate=5, per_s=0.5)
    begun: list[float] = []

    async def one(node: int, number: int) -> None:
        await three[node].acquire(f"{node}.{number}", limit)
        begun.append(time.monotonic())
        three[node].release(f"{node}.{number}", limit.key)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(number % 3, number))
    begun.sort()
    # a full bucket at once, and what comes back meanwhile: never more than twice the rate in its time
    assert max(sum(start <= one < start + 0.5 for one in begun) for start in begun) <= 10
    # ten begin together where the first five learn of it late
    assert begun[-1] - begun[0] >= (20 - 10) / 5 * 0.5 * 0.9


async def test_the_most_urgent_goes_first_and_what_a_crash_left_is_struck_out(three):
    limit = Limit("cap.do", concurrency=1)
    await three[0].acquire("dead.a", limit)
    order: list[str] = []

    async def one(name: str, priority: int) -> None:
        await three[1].acquire(name, limit, priority)
        order.append(name)
        three[1].release(name, limit.key)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for name, priority in (("low", 1), ("mid", 5), ("high", 9)):
            group.create_task(one(name, priority))
        await until(lambda: three[2]._books.get("cap.do"))
        assert await three[2].holders("cap.do") == ["dead.a"]
        three[2].sweep(lambda holder: holder.startswith("dead."))
    assert order == ["high", "mid", "low"]


async def test_asked_again_it_is_there_already(three):
    limit = Limit("cap.do", concurrency=1)
    async with asyncio.timeout(30):
        await three[0].acquire("run.a", limit)
        await three[1].acquire("run.a", limit)
    assert await three[1].holders("cap.do") == ["run.a"]


# -- in workflows --------------------------------------------------------------------------------------------------------


async def attempts(flow, runs):
    """Return when each attempt of these runs began and ended, by the clocks of the workers."""
    found = []
    for run in runs:
        for fact in (await flow.runs.look(run)).facts:
            if ".outcome." in fact.subject:
                outcome = msgspec.json.decode(fact.data)
                found.append((outcome["started_ns"], outcome["ended_ns"]))
    return found


def most_at_once(spans):
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


async def test_a_limit_of_a_capability_holds_over_three_engines(flows):
    nodes = [await flows.here(name, do={"concurrency": 20}) for name in ("one", "two", "three")]
    limited = {"capability": "do", "limit": {"concurrency": 2}}
    await define(
        nodes[0], steps={"m": {**limited, "kind": "map", "items": "input"}, "z": {**limited, "depends_on": ["m"]}}
    )
    runs = [await start(nodes[n % 3], [{"sleep": 0.02}] * 3) for n in range(6)]
    for run in runs:
        assert (await ended(nodes[0], run)).state == "completed"
    assert most_at_once(await attempts(nodes[0], runs)) == 2
    await until(lambda: _held(nodes[1].limits, []))


async def test_a_limit_for_each_key(flows):
    flow = await flows.here(do={"concurrency": 20})
    await define(
        flow, steps={"s": {"capability": "do", "limit": {"concurrency": 1, "key": "input.who", "scope": "step"}}}
    )
    mine = [await start(flow, {"who": "me", "sleep": 0.05}) for _ in range(3)]
    others = [await start(flow, {"who": "you", "sleep": 0.05}) for _ in range(3)]
    for run in (*mine, *others):
        assert (await ended(flow, run)).state == "completed"
    assert most_at_once(await attempts(flow, mine)) == most_at_once(await attempts(flow, others)) == 1
    assert most_at_once(await attempts(flow, [*mine, *others])) == 2


async def test_runs_of_a_workflow_wait_for_each_other(flows):
    flow = await flows.here(do={"concurrency": 20})
    await define(flow, steps={"s": {"capability": "do"}}, concurrency={"max_runs": 2})
    runs = [await start(flow, {"sleep": 0.05}) for _ in range(7)]
    for run in runs:
        assert (await ended(flow, run)).state == "completed"
    assert most_at_once(await attempts(flow, runs)) == 2


async def test_a_run_that_waits_while_it_is_paused_takes_no_place(flows, tmp_path):
    flow = await flows.here(do={"concurrency": 20})
    await define(flow, steps={"s": {"capability": "do"}}, concurrency={"max_runs": 1})
    go = tmp_path / "go"
    first = await start(flow, {"until": str(go)})
    await until(lambda: flow.limits.holders("run.w"))
    held, behind = await start(flow, {}), await start(flow, {}, priority=1)
    await flow.runs.hold(held)
    await until(lambda: _is_paused(flow, held))
    go.touch()
    assert [(await ended(flow, run)).state for run in (first, behind)] == ["completed", "completed"]
    await until(lambda: _held_none(flow))
    await flow.runs.hold(held, resume=True)
    assert (await ended(flow, held)).state == "completed"
    assert most_at_once(await attempts(flow, [first, held, behind])) == 1


async def test_steps_that_wait_for_a_limit_while_their_run_is_paused_take_no_place(flows, tmp_path):
    flow = await flows.here(do={"concurrency": 20})
    limit = {"concurrency": 1}
    each = {"kind": "map", "capability": "do", "items": "[input]", "input": "item", "limit": limit}
    await define(flow, steps={"s": {"capability": "do", "limit": limit}, "m": {**each, "depends_on": ["s"]}})
    go = tmp_path / "go"
    first = await start(flow, {"until": str(go)})
    await until(lambda: flow.limits.holders("cap.do"))
    held, behind = await start(flow, {}), await start(flow, {}, priority=1)
    await flow.runs.hold(held)
    await until(lambda: _is_paused(flow, held))
    go.touch()
    assert [(await ended(flow, run)).state for run in (first, behind)] == ["completed", "completed"]
    await until(lambda: _held_none(flow, "cap.do"))
    assert await attempts(flow, [held]) == []
    await flow.runs.hold(held, resume=True)
    assert (await ended(flow, held)).state == "completed"
    assert most_at_once(await attempts(flow, [first, held, behind])) == 1


async def test_what_is_undone_while_its_run_is_paused_takes_its_place_in_a_limit(flows, tmp_path):
    flow = await flows.here(do={"concurrency": 20})
    steps = {
        "a": {"capability": "do", "input": {}, "compensate": "undo"},
        "b": {"capability": "do", "depends_on": ["a"], "input": "input"},
        "undo": {"capability": "do", "input": {}, "limit": {"concurrency": 1}},
    }
    await define(flow, steps=steps)
    go = tmp_path / "go"
    run = await start(flow, {"until": str(go), "fail": {"message": "no"}})
    await until(lambda: attempts(flow, [run]))
    await flow.runs.hold(run)
    await until(lambda: _is_paused(flow, run))
    go.touch()
    assert (await ended(flow, run)).state == "failed"
    assert len(await attempts(flow, [run])) == 3


async def _is_paused(flow, run):
    live = flow.journal.find(run)
    return live is not None and live.run is not None and live.run.paused


async def _held_none(flow, key="run.w"):
    return await flow.limits.holders(key) == []


async def test_a_singleton_skips_or_cancels(flows, tmp_path):
    flow = await flows.here(do={"concurrency": 20})
    await define(
        flow, name="skip", steps={"s": {"capability": "do"}}, concurrency={"key": "input.k", "when_full": "skip"}
    )
    go = tmp_path / "go"
    first = await start(flow, {"k": 1, "until": str(go)}, "skip")
    await until(lambda: flow.limits.holders(key_of("run", "skip", b"1")))
    second, other = await start(flow, {"k": 1}, "skip"), await start(flow, {"k": 2}, "skip")
    assert (await ended(flow, second)).error["code"] == "flow.cancelled"
    go.touch()
    assert [(await ended(flow, run)).state for run in (other, first)] == ["completed", "completed"]

    await define(flow, name="last", steps={"s": {"capability": "do"}}, concurrency={"when_full": "cancel_previous"})
    old = await start(flow, {"sleep": 100}, "last")
    await until(lambda: flow.limits.holders("run.last"))
    new = await start(flow, {"sleep": 0}, "last")
    assert [(await ended(flow, run)).state for run in (old, new)] == ["cancelled", "completed"]


async def test_a_limited_step_that_waits_can_be_cancelled_and_a_crash_frees_its_place(flows):
    flow = await flows.here("here")
    worker = await flows.process("worker", do={"concurrency": 5})
    await define(flow, steps={"s": {"capability": "do", "limit": {"concurrency": 1}}})
    runs = [await start(flow, {"sleep": 0.3}) for _ in range(3)]
    stuck = await start(flow, {"sleep": 100})
    await flow.runs.cancel(stuck)
    assert (await ended(flow, stuck)).state == "cancelled"
    os.kill(worker.pid, signal.SIGKILL)
    await flows.process("next", do={"concurrency": 5})
    for run in runs:
        assert (await ended(flow, run)).state == "completed"


async def test_a_step_that_waits_for_its_next_attempt_leaves_its_place_to_others(flows):
    flow = await flows.here("here", do={"concurrency": 5})
    retry = {"max_attempts": 3, "delay": "1h", "max_delay": "1h", "backoff": "fixed", "jitter": False}
    await define(flow, steps={"s": {"capability": "do", "retry": retry, "limit": {"concurrency": 1}}})
    script = {"fail": {"message": "not yet", "retriable": True}, "fail_until": 2}
    slow = await start(flow, script)
    await until(lambda: (live := flow.journal.find(slow)) and live.run and "again.s" in live.run.open)
    await until(lambda: _held(flow.limits, []))
    (waits,) = flow_rows.waits(flow.journal.find(slow).run)[1:]
    assert "its place in the limit" in waits.what
    quick = [await start(flow, number) for number in range(3)]
    for run in quick:
        assert (await ended(flow, run)).state == "completed"
    assert (await flow.runs.look(slow)).finish is None
    await flow.runs.cancel(slow)
    assert (await ended(flow, slow)).state == "cancelled"
    await until(lambda: _held(flow.limits, []))


async def test_a_limit_holds_through_retries_on_three_nodes_of_which_one_is_killed(flows, tmp_path):
    flow = await flows.here("here", do={"concurrency": 20})
    killed = await flows.process("killed", do={"concurrency": 20})
    await flows.process("other", do={"concurrency": 20})
    retry = {"max_attempts": 4, "delay": "50ms", "backoff": "fixed", "jitter": False}
    await define(
        flow,
        steps={"s": {"capability": "do", "retry": retry, "limit": {"concurrency": 3}, "timeout": "30s"}},
    )
    fails = {"fail": {"message": "not yet", "retriable": True}, "fail_until": 3, "sleep": 0.05}
    runs = [await start(flow, fails) for _ in range(24)]
    await until(lambda: _some_over(flow, runs))
    os.kill(killed.pid, signal.SIGKILL)
    for run in runs:
        assert (await ended(flow, run)).state == "completed"
    log: list[tuple[int, int]] = []
    for run in runs:
        sight = await flow.runs.look(run)
        ends = [records.decode_outcome(one.data) for one in sight.facts if ".outcome." in one.subject]
        assert [one.state for one in ends] == ["waiting", "waiting", "completed"]
        log += [(one.started_ns, 1) for one in ends] + [(one.ended_ns, -1) for one in ends]
    under_way = most = 0
    for _, change in sorted(log):
        under_way += change
        most = max(most, under_way)
    assert most == 3
    await until(lambda: _held(flow.limits, []))


async def _some_over(flow, runs) -> bool:
    return sum([(await flow.runs.look(run)).finish is not None for run in runs]) >= 4


async def test_a_limited_step_can_be_cancelled_while_it_waits_to_be_tried_again(flows):
    flow = await flows.here("here", do={"concurrency": 5})
    retry = {"max_attempts": 3, "delay": "1h", "jitter": False, "max_delay": "1h"}
    await define(flow, steps={"s": {"capability": "do", "retry": retry, "limit": {"concurrency": 1}}})
    run = await start(flow, {"fail": {"message": "not yet", "retriable": True}})
    await until(lambda: (live := flow.journal.find(run)) and live.run and "again.s" in live.run.open)
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"


async def test_a_loop_with_pauses_leaves_its_place_between_iterations(flows):
    flow = await flows.here("here", do={"concurrency": 5})
    loop = {"kind": "agent_loop", "capability": "do", "delay": "200ms", "limit": {"concurrency": 1}}
    await define(flow, steps={"s": loop})
    runs = [await start(flow, {"loops": 3}) for _ in range(3)]
    for run in runs:
        assert (await ended(flow, run)).state == "completed"
    starts = []
    for run in runs:
        sight = await flow.runs.look(run)
        ends = [records.decode_outcome(one.data) for one in sight.facts if ".outcome." in one.subject]
        assert [one.state for one in ends] == ["continued"] * 3 + ["completed"]
        starts += [(one.started_ns, run) for one in ends]
    order = [run for _, run in sorted(starts)]
    assert order != sorted(order, key=runs.index), "one after the other: they kept their places"


async def test_who_holds_the_places_is_told_of_what_waits_for_one(flows):
    flow = await flows.here("here", do={"concurrency": 5})
    await define(flow, steps={"s": {"capability": "do", "limit": {"concurrency": 1}}})
    first = await start(flow, {"sleep": 100})
    await until(lambda: _held(flow.limits, [f"{first}.s.s"]))
    second = await start(flow, 1)
    waiting = await until(lambda: _waits_for(flow, second))
    assert waiting == [f"its place in the limit: 1 of 1 are taken, by {first}/s"]
    assert await _waits_for(flow, first) == ["its task: any agent with do"]
    await define(flow, name="one", concurrency={"max_runs": 1}, steps={"s": {"capability": "do"}})
    third = await start(flow, {"sleep": 100}, "one")
    await until(lambda: _begun(flow, third))
    fourth = await start(flow, 1, "one")
    waiting = await until(lambda: _waits_for(flow, fourth))
    assert waiting == [f"its place among the runs of its workflow: 1 of 1 are taken, by {third}"]


async def _begun(flow, run: str) -> bool:
    return [one.step for one in flow_rows.waiting(await flow.runs.glance(run))] == ["s"]


async def _waits_for(flow, run: str) -> list[str]:
    sight = await flow.runs.glance(run)
    books = {key: await flow.limits.holders(key) for key in flow_rows.limits_of(sight)}
    return [one.what for one in flow_rows.waiting(sight, books)]
