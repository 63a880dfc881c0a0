import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.telemetry import trace

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
BAD = [
    "", "00", "garbage", GOOD.upper(), GOOD[:-1], GOOD + "0", f"{GOOD}-more", f" {GOOD}", f"{GOOD}\n",
    f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[:-1]}g-{SPAN}-01",
    f"00_{TRACE}-{SPAN}-01", "0" * 100_000, f"01-{TRACE}-{SPAN}-01x", "\u0660\u0660-" + GOOD[3:],
]  # fmt: skip


def test_a_new_traceparent_is_valid_sampled_and_never_the_same() -> None:
    made = {trace.child_of("").traceparent for _ in range(1000)}
    assert len(made) == 1000
    assert all((found := trace.parse(one)) is not None and found.sampled for one in made)


def test_a_child_keeps_the_trace_and_names_its_parent() -> None:
    child = trace.child_of(GOOD)
    assert (child.trace_id, child.parent_id) == (TRACE, SPAN)
    assert child.span_id != SPAN
    assert child.traceparent == f"00-{TRACE}-{child.span_id}-01"


def test_a_child_keeps_the_wish_not_to_be_recorded() -> None:
    child = trace.child_of(f"00-{TRACE}-{SPAN}-00")
    assert child.traceparent.endswith("-00")
    assert not trace.sampled(child.traceparent)
    assert trace.sampled(GOOD)


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_traceparent_counts_as_absent(bad: str) -> None:
    assert trace.parse(bad) is None
    assert trace.clean(bad) == ""
    child = trace.child_of(bad)
    assert child.parent_id == ""
    assert child.trace_id != TRACE
    assert trace.parse(child.traceparent) is not None


@pytest.mark.parametrize("odd", [None, 7, b"00", ["00"], {"a": 1}])
def test_what_is_no_text_is_refused_without_an_error(odd: object) -> None:
    assert trace.parse(odd) is None
    assert trace.clean(odd) == ""


@pytest.mark.parametrize("later", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-ff-what-comes-later"])
def test_a_later_version_is_read_as_far_as_it_is_known(later: str) -> None:
    assert trace.parse(later) == (TRACE, SPAN, True)
    child = trace.child_of(later)
    assert child.traceparent == f"00-{TRACE}-{child.span_id}-01"


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.?")))
def test_whatever_comes_in_a_valid_child_comes_out(text: str) -> None:
    child = trace.child_of(text)
    assert trace.parse(child.traceparent) == (child.trace_id, child.span_id, trace.sampled(child.traceparent))
    assert (trace.parse(text) is None) == (child.parent_id == "")


async def test_each_task_has_a_current_trace_of_its_own() -> None:
    seen: list[str] = []

    async def work(traceparent: str) -> None:
        trace.current.set(traceparent)
        await asyncio.sleep(0)
        seen.append(trace.child_of(trace.current.get()).trace_id)

    async with asyncio.TaskGroup() as group:
        group.create_task(work(GOOD))
        group.create_task(work(trace.child_of("").traceparent))
    assert trace.current.get() == ""
    assert seen[0] == TRACE
    assert seen[1] != TRACE
