"""Times as they are told: RFC 3339 in UTC, to the millisecond, never later than they were."""

from datetime import UTC, datetime
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import clock
from knotwork.desk.moments import rfc3339
from knotwork.host import node_rows

NS = 1_000_000_000


@given(st.integers(0, 253_402_300_799), st.integers(0, NS - 1))
def test_a_time_is_told_to_the_millisecond_and_cut_there(second, rest_ns):
    told = rfc3339(second * NS + rest_ns)
    assert told.endswith("Z")
    read = datetime.fromisoformat(told)
    assert read.replace(microsecond=0) == datetime.fromtimestamp(second, UTC)
    assert read.microsecond == rest_ns // 1_000_000 * 1000


def test_no_time_is_now():
    before = datetime.now(UTC)
    told = datetime.fromisoformat(rfc3339(None))
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= told <= datetime.now(UTC)


def test_since_when_a_plugin_runs_is_told_the_same_however_often_it_is_asked_for():
    now_ns = clock.steady_ns()
    whole_ns = now_ns - clock.at(now_ns) % 1_000_000  # where a millisecond begins: the least error shows another one
    type_ = SimpleNamespace(entry=SimpleNamespace(type="process", hosted_only=False), hosted=False)
    slot = SimpleNamespace(
        kind="executors", id="a", instance=type_, state="running", why="", since_ns=whole_ns, starts=1
    )
    assert {node_rows.slot_row(slot).since for _ in range(100)} == {rfc3339(clock.at(whole_ns))}
