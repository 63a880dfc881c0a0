import pytest

from knotwork.sdk import NotFound
from knotwork.telemetry import spans, trace
from knotwork.telemetry.emitter import Emitter


@pytest.fixture
async def heard(sink, run):
    emitter, one = Emitter("n1"), sink(frozenset({"spans"}))
    emitter.attach("one", one)
    async with run(emitter):

        async def records():
            assert await emitter.flush()
            return {span.name: span for span in one.records}

        yield emitter, records


async def test_nested_work_is_one_trace(heard) -> None:
    emitter, records = heard
    caller = trace.child_of(trace.child_of("").traceparent)
    with spans.working(emitter, "outer", kind="server", project="p", parent=caller.traceparent) as outer:
        assert trace.current.get() == outer.traceparent
        with spans.working(emitter, "inner", attributes={"agent": "a"}):
            pass
    assert trace.current.get() == ""
    found = await records()
    assert found["outer"].trace_id == found["inner"].trace_id == caller.trace_id
    assert found["outer"].parent_id == caller.span_id
    assert found["inner"].parent_id == found["outer"].span_id
    assert (found["outer"].kind, found["outer"].project, found["outer"].node) == ("server", "p", "n1")
    assert found["inner"].attributes == {"agent": "a"}
    assert found["outer"].start_ns <= found["inner"].start_ns <= found["inner"].end_ns <= found["outer"].end_ns
    assert found["outer"].ok


async def test_failures_are_marked_and_go_on(heard) -> None:
    emitter, records = heard
    with pytest.raises(ZeroDivisionError), spans.working(emitter, "bug"):
        _ = 1 / 0
    with pytest.raises(NotFound), spans.working(emitter, "missing"):
        raise NotFound("no such agent", code="mesh.unknown_agent")
    with spans.working(emitter, "soft") as work:
        work.fail("the agent said no")
    found = await records()
    assert {name: (span.ok, span.error) for name, span in found.items()} == {
        "bug": (False, "ZeroDivisionError"),
        "missing": (False, "mesh.unknown_agent"),
        "soft": (False, "the agent said no"),
    }


async def test_a_trace_that_is_not_sampled_is_followed_but_not_told(heard) -> None:
    emitter, records = heard
    silent = trace.child_of("").traceparent[:-2] + "00"
    with spans.working(emitter, "silent", parent=silent) as work:
        assert work.child.trace_id in silent
    with spans.working(emitter, "told"):
        pass
    assert set(await records()) == {"told"}
