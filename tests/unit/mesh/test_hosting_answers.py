"""Exactly one answer for each call, whatever the executor does; no place is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import pytest

from knotwork.bus.background import background
from knotwork.mesh import late
from knotwork.sdk import Continue, Done, Failed
from knotwork.sdk.errors import Cancelled, Invalid, KnotworkError, NotFound, Unavailable, Unreachable


class Oddity(BaseException):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def boom(error):
    raise error


async def inner_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(boom(Oddity("deep")))


async def cancelling_itself(attempt):
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


def returning(value):
    async def execute(attempt):
        return value

    return execute


def raising(error):
    async def execute(attempt):
        raise error

    return execute


@pytest.mark.parametrize(
    ("execute", "kind", "code"),
    [
        (returning(Done({"x": 1})), "result", ""),
        (returning(Continue(2)), "continue", ""),
        (returning(Failed("no", code="my.code", retriable=True, retry_after_s=2)), "failed", "my.code"),
        (returning(Failed(42, code=None)), "failed", "agent.crashed"),
        (returning(Failed("x", detail={"odd": object(), 3: 4})), "failed", "agent.failed"),
        (returning(Failed("x", detail=None)), "failed", "agent.crashed"),
        (returning(Failed("half \udcff", detail={"a": "\udcff"})), "failed", "agent.failed"),
        (returning(Failed("x", retry_after_s="soon")), "failed", "agent.crashed"),
        (returning(None), "failed", "agent.crashed"),
        (returning("text"), "failed", "agent.crashed"),
        (returning(Done(object())), "failed", "agent.bad_output"),
        (returning(Done("\ud800")), "failed", "agent.bad_output"),
        (returning(Done({"a": {1, 2, object()}})), "failed", "agent.bad_output"),
        (raising(ValueError("broken")), "failed", "agent.crashed"),
        (raising(ValueError("half \udcff")), "failed", "agent.crashed"),
        (raising(Mute()), "failed", "agent.crashed"),
        (raising(Invalid("mend it", code="my.invalid")), "invalid", "my.invalid"),
        (raising(Invalid(7, code=8, detail=[1])), "failed", "agent.crashed"),
        (raising(SystemExit(3)), "failed", "agent.crashed"),
        (raising(KeyboardInterrupt()), "failed", "agent.crashed"),
        (raising(Oddity("odd")), "failed", "agent.crashed"),
        (raising(GeneratorExit()), "failed", "agent.crashed"),
        (raising(ExceptionGroup("several", [ValueError(1), KeyError(2)])), "failed", "agent.crashed"),
        (raising(asyncio.CancelledError()), "failed", "agent.crashed"),
        (cancelling_itself, "failed", "agent.crashed"),
        (raising(RecursionError()), "failed", "agent.crashed"),
        (raising(MemoryError()), "failed", "agent.crashed"),
        (raising(StopAsyncIteration()), "failed", "agent.crashed"),
        (raising(StopIteration()), "failed", "agent.crashed"),
        (lambda attempt: inner_group(), "failed", "agent.crashed"),
        (lambda attempt: 5, "failed", "agent.crashed"),
        (lambda: None, "failed", "agent.crashed"),
    ],
)
async def test_whatever_an_executor_does_is_an_answer(bench, execute, kind, code):
    await bench.agent(execute)
    answer = bench.call()
    got, _data = await answer.wait()
    if kind in {"result", "continue"}:
        assert got == kind
    else:
        error = await answer.error()
        assert (error.kind, error.code) == (kind, code)
    await bench.settled()
    assert (await bench.call(name="none").error()).code == "agent.not_found"  # the node is well


async def test_what_is_not_input_is_refused(bench):
    schema = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
    seen = []

    async def execute(attempt):
        seen.append(attempt.input)
        return Done({"y": "no integer"} if attempt.input["x"] == 2 else {"y": 1})

    await bench.agent(execute, input_schema=schema, output_schema={"properties": {"y": {"type": "integer"}}})
    for data in (b"{", b"\xff", b"[" * 100_000):
        assert (await bench.call(data).error()).code == "wire.not_json"
    for data in (b"", b"[]", b'{"x":"1"}', b"{}"):
        error = await bench.call(data).error()
        assert (error.code, error.kind, bool(error.detail["problems"])) == ("agent.bad_input", "invalid", True)
    assert (await bench.call(b'{"x":1}').wait())[0] == "result"
    error = await bench.call(b'{"x":2}').error()
    assert (error.code, error.kind) == ("agent.bad_output", "failed")
    assert seen == [{"x": 1}, {"x": 2}]
    await bench.settled()


async def test_too_large_an_output_is_an_error_not_silence(bench):
    await bench.agent(returning(Done("x" * 5000)))
    error = await bench.call(size_max=1000).error()
    assert (error.code, error.kind) == ("bus.message_too_large", "too_large")
    assert "The output of" in error.message and "bytes" in error.message
    assert "as a task" in (error.hint or "")
    await bench.settled()


async def test_a_time_out_answers_at_once_and_stops_the_work(bench, until):
    stopped = []

    async def execute(attempt):
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(attempt.id)

    await bench.agent(execute, timeout_s=0.2)
    assert (await bench.call().error()).code == "call.timed_out"
    await bench.settled()
    await bench.agent(execute, name="b", timeout_s=60)
    assert (await bench.call(name="b", timeout_s=0.2).error()).code == "call.timed_out"
    await bench.settled()
    assert len(stopped) == 2


async def test_a_cancel_reaches_a_call_wherever_it_is(bench, until):
    started = asyncio.Event()

    async def execute(attempt):
        started.set()
        await asyncio.sleep(60)

    await bench.agent(execute)
    unstarted = bench.call()
    bench.hosting.cancel("default", unstarted.id)  # before its first step
    assert isinstance(await unstarted.error(), Cancelled)
    await bench.settled()
    running, queued = bench.call(), bench.call()
    await started.wait()
    bench.hosting.cancel("default", queued.id)
    assert isinstance(await queued.error(), Cancelled)
    bench.hosting.cancel("other", running.id)  # another project's call of the same id
    bench.hosting.cancel("default", "nonsense")
    await asyncio.sleep(0)
    assert not running.last
    bench.hosting.cancel("default", running.id)
    bench.hosting.cancel("default", running.id)
    assert isinstance(await running.error(), Cancelled)
    await bench.settled()


async def test_an_executor_that_ignores_cancellation_keeps_its_place_but_not_its_caller(bench, until):
    release = asyncio.Event()

    async def execute(attempt):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Done("late")

    agent = await bench.agent(execute, queue_max=1)
    stubborn, waiting = bench.call(timeout_s=0.2), bench.call()
    assert (await stubborn.error()).code == "call.timed_out"
    assert agent.admission.running == 1
    assert (await bench.call().error()).code == "agent.busy"
    assert not waiting.last
    release.set()
    assert (await waiting.wait())[0] == "result"
    await bench.settled()


async def test_nobody_exceeds_the_places_and_all_are_served_in_order(bench):
    running = most = 0
    order = []

    async def execute(attempt):
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(attempt.input)
        await asyncio.sleep(random.random() * 0.003)
        running -= 1
        return Done(attempt.input)

    await bench.agent(execute, concurrency=3, queue_max=97)
    answers = [bench.call(b"%d" % n) for n in range(130)]
    results = [await answer.wait() for answer in answers]
    assert most == 3
    assert order == list(range(100))
    assert [json.loads(data) for kind, data in results if kind == "result"] == list(range(100))
    assert {kind for kind, _ in results[100:]} == {"error"}
    assert {(await answer.error()).code for answer in answers[100:]} == {"agent.busy"}
    await bench.settled()


async def test_a_draining_node_takes_nothing_new_and_finishes(bench):
    go = asyncio.Event()

    async def execute(attempt):
        await go.wait()
        return Done()

    await bench.agent(execute)
    running, queued = bench.call(), bench.call()
    bench.hosting.draining = True
    assert (await bench.call().error()).code == "node.draining"
    go.set()
    assert {(await running.wait())[0], (await queued.wait())[0]} == {"result"}
    await bench.settled()


async def test_what_a_stopping_node_had_begun_is_marked(bench, until):
    """A call that has begun must not be given to another agent by itself: nobody asked for a retry."""
    started = asyncio.Event()

    async def execute(attempt):
        started.set()
        await asyncio.sleep(60)

    await bench.agent(execute)
    running, queued = bench.call(), bench.call()
    await started.wait()
    for job in sorted(bench.hosting.running(), key=lambda job: job.arrived_ns, reverse=True):
        bench.hosting.end(job, Unavailable("stopping", code="node.stopping"))
    assert (await running.error()).detail.get("begun") is True
    assert not (await queued.error()).detail.get("begun")
    await bench.settled()


@pytest.mark.parametrize(
    "execute",
    [
        returning(Failed("no", code="agent.busy", detail={"begun": False})),
        returning(Failed("no", code="agent.busy", detail={"odd": object()})),
        returning(Failed("half \udcff", code="agent.busy")),
        raising(Unavailable("no", code="node.draining", detail={"begun": False})),
        raising(Unavailable("no", code="plugin.not_running")),
    ],
)
async def test_an_executor_cannot_say_that_it_had_not_begun(bench, execute):
    await bench.agent(execute)
    assert (await bench.call().error()).detail["begun"] is True
    bench.hosting.draining = True
    assert "begun" not in (await bench.call().error()).detail


async def test_a_plugin_that_does_not_run_has_not_begun(bench):
    agent = await bench.agent(returning(Done()))
    await agent.slot.stop(30.0)
    error = await bench.call().error()
    assert (error.code, "begun" in error.detail) == ("plugin.not_running", False)


async def test_the_deadline_is_what_is_left_when_the_work_begins(bench):
    left_s = []

    async def execute(attempt):
        left_s.append(attempt.deadline_s)
        await asyncio.sleep(0.1)  # the work, so that the second call has waited
        return Done()

    await bench.agent(execute, timeout_s=300.0)
    for answer in (bench.call(), bench.call()):
        await answer.wait()
    assert 250 < left_s[0] <= 300.0
    assert left_s[1] < 299.95


class Narrow:
    """A caller there is no room for as long as `full`."""

    def __init__(self, inner):
        self.inner, self.full, self.refused = inner, True, 0

    def frame(self, kind, data):
        if self.full:
            self.refused += 1
            raise Unreachable("full", code="bus.buffer_full")
        self.inner.frame(kind, data)

    def close(self):
        self.inner.close()


def narrow_call(bench):
    from knotwork.bus import frames

    answer = Narrow(type(bench.call(name="none"))())
    bench.hosting.arrive("default", "a", b"1", frames.Envelope(id="narrow", plain=False), answer)
    return answer


async def test_pieces_and_the_answer_wait_for_room(bench, until):
    async def execute(attempt):
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(attempt.report.stream(n))
        answer.full, answer.refused = True, 0
        return Done("end")

    await bench.agent(execute)
    answer = narrow_call(bench)
    await until(lambda: answer.refused)
    answer.full = False
    await until(lambda: answer.full and answer.refused)
    assert not bench.hosting.idle.is_set()
    answer.full = False
    assert await answer.inner.wait() == ("result", b'"end"')
    assert [data for kind, data in answer.inner.frames if kind == "chunk"] == [b"0", b"1", b"2"]
    await bench.settled()


async def test_an_answer_with_a_hole_is_an_error(bench, until, monkeypatch):
    monkeypatch.setattr(late, "WAIT_S", 0.05)

    async def execute(attempt):
        with contextlib.suppress(KnotworkError):
            await attempt.report.stream(1)
        answer.full = False
        return Done("end")

    await bench.agent(execute)
    answer = narrow_call(bench)
    error = await answer.inner.error()
    assert (error.code, error.detail["begun"]) == ("call.reader_too_slow", True)
    await bench.settled()


async def test_a_reload_goes_on_counting(bench, until):
    go = asyncio.Event()

    async def execute(attempt):
        await go.wait()
        return Failed("no")

    first = await bench.agent(execute)
    answer = bench.call()
    await until(lambda: first.slot.leases)
    second = await bench.agent(execute, admission=first.admission)
    second.counts = first.counts
    go.set()
    await answer.error()
    assert (second.counts.requests, second.counts.errors, second.counts.last_error) == (1, 1, "no")
    assert second.counts.busy_ns


async def test_progress_and_chunks_come_in_order_and_end_with_the_answer(bench):
    async def execute(attempt):
        for n in range(5):
            attempt.report.progress(n * 20, f"step {n}")
            await attempt.report.stream({"n": n})
        attempt.report.progress(object(), "odd")
        attempt.report.progress(None, "\udcff")
        task_report.append(attempt.report)
        return Done("end")

    task_report = []
    await bench.agent(execute)
    answer = bench.call()
    await answer.wait()
    kinds = [kind for kind, _ in answer.frames]
    assert kinds == ["progress", "chunk"] * 5 + ["result"]
    assert [json.loads(data)["n"] for kind, data in answer.frames if kind == "chunk"] == list(range(5))
    task_report[0].progress(100, "after the end")
    await task_report[0].stream("after the end")
    assert len(answer.frames) == 11
    plain = bench.call(plain=True)
    await plain.wait()
    assert [kind for kind, _ in plain.frames] == ["result"]
    await bench.settled()


async def test_a_reload_hands_waiting_calls_to_the_new_plugin(bench, until):
    go = asyncio.Event()

    async def old(attempt):
        await go.wait()
        return Done("old")

    async def new(attempt):
        return Done("new")

    first = await bench.agent(old)
    running, queued = bench.call(), bench.call()
    await until(lambda: first.slot.leases)
    await bench.agent(new, admission=first.admission)
    async with asyncio.TaskGroup() as group:
        group.create_task(first.slot.stop(60.0))
        go.set()
    assert await running.wait() == ("result", b'"old"')
    assert await queued.wait() == ("result", b'"new"')
    await bench.settled()


async def test_more_places_serve_those_who_wait_at_once_and_in_order(bench, until):
    order, go = [], asyncio.Event()

    async def execute(attempt):
        order.append(attempt.input)
        await go.wait()
        return Done()

    agent = await bench.agent(execute)
    for n in range(5):
        bench.call(b"%d" % n)
    await until(lambda: order == [0])
    agent.admission.resize(3, 10)
    bench.call(b"5")
    await asyncio.sleep(0)
    assert 5 not in order
    bench.hosting.replace(bench.hosting.agents())
    await until(lambda: order == [0, 1, 2])
    go.set()
    await bench.settled()
    assert order == [0, 1, 2, 3, 4, 5]


async def test_random_lives_leak_nothing(bench):
    chance = random.Random(3)

    async def execute(attempt):
        what = attempt.input % 5
        if what == 0:
            raise ValueError
        if what == 1:
            await asyncio.sleep(0.001)  # it works
        if what == 2:
            await asyncio.sleep(60)
        if what == 3:
            return Failed("no")
        return Done()

    await bench.agent(execute, concurrency=5, queue_max=20, timeout_s=0.05)
    for _n in range(400):
        answer = bench.call(b"%d" % chance.randrange(1000))
        if chance.random() < 0.3:
            bench.hosting.cancel("default", answer.id)
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            bench.hosting.cancel("default", chance.choice(bench.answers).id)
    await bench.settled(60)


async def test_agents_of_other_projects_do_not_exist(bench):
    await bench.agent(returning(Done(1)))
    answer = bench.call(name="a")
    await answer.wait()
    from knotwork.bus import frames

    other = type(answer)()
    bench.hosting.arrive("other", "a", b"", frames.Envelope(), other)
    assert isinstance(await other.error(), NotFound)


async def test_the_end_of_the_group_answers_every_call(bench):
    """Even a call whose task is cancelled before its first step."""

    async def execute(attempt):
        await asyncio.sleep(60)

    async with background() as group:
        inner = type(bench)(group)
        await inner.agent(execute, concurrency=2)
        started = inner.call()
        await asyncio.sleep(0.01)  # it has begun by then
        unstarted, queued = inner.call(), inner.call()
    for answer in (started, unstarted):
        assert (await answer.error()).code == "node.stopping"
    assert (await started.error()).detail["begun"] is True
    assert "begun" not in (await unstarted.error()).detail
    assert isinstance(await queued.error(), Unavailable)


async def test_a_group_that_ends_is_not_kept_open_by_those_who_wait(until):
    begun = []

    async def work(after: int) -> None:
        begun.append(after)
        try:
            await asyncio.sleep(60)
        finally:
            if after:
                group.create_task(work(after - 1))

    async with asyncio.timeout(30), background() as group:
        group.create_task(work(3))
        await until(lambda: begun)
    assert begun[0] == 3


async def test_an_executor_that_answers_no_outcome_is_told_what_one_is(bench):
    await bench.agent(returning(7))
    told = (await bench.call().error()).message
    assert told == "TypeError: answered int, not an outcome: return Done, Failed or Continue"
