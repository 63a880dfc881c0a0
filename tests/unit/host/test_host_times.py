"""Times as they are told: RFC 3339 in UTC, to the millisecond, never later than they were."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from knotwork.host.moments import rfc3339

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
