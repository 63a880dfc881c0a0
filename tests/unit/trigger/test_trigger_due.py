"""When is a cron expression due? Names, macros, seconds, time zones with their two odd days, missed times, jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knotwork.sdk.errors import Invalid
from knotwork.trigger import due

S = due.S


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * S


def following(cron: str, zone: str, since: str, count: int) -> list[str]:
    return [due.told(one) for one, _ in zip(due.after(cron, zone, ns(since)), range(count), strict=False)]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 9 * * MON-FRI", ["2026-01-01T09:00:00Z", "2026-01-02T09:00:00Z"]),
        ("30 6 1 JAN,jul *", ["2026-01-01T06:30:00Z", "2026-07-01T06:30:00Z"]),
        ("*/15 * * * * *", ["2026-01-01T00:00:15Z", "2026-01-01T00:00:30Z"]),
        ("0 0 * * 7", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
        ("@daily", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]),
        ("@Hourly", ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]),
        ("@weekly", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
        ("@monthly", ["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]),
        ("@yearly", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("0 0 L * *", ["2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"]),
        ("0 0 13 * FRI", ["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"]),  # either of the two, as cron does
    ],
)
def test_expressions(cron: str, expected: list[str]):
    assert following(cron, "UTC", "2026-01-01T00:00:00+00:00", 2) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),  # 02:30 is skipped: right after the gap
        ("0 30 2 * * *", ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]),  # with seconds: not due at all
        ("0 * * * *", ["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"]),
    ],
)
def test_in_spring_an_hour_is_missing(cron: str, expected: list[str]):
    assert following(cron, "Europe/Berlin", "2026-03-29T00:30:00+01:00", 2) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),  # shown twice: the first counts
        ("0 30 2 * * *", ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]),  # with seconds: both
        ("30 * * * *", ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]),  # each hour: both
    ],
)
def test_in_autumn_an_hour_comes_twice(cron: str, expected: list[str]):
    assert following(cron, "Europe/Berlin", "2026-10-25T02:00:00+02:00", 2) == expected


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "61 * * * *", "* * * * * * *", "0 0 30 2 *", "x", "@never", "*/0 * * * *"]
)
def test_what_is_no_expression(cron: str):
    with pytest.raises(ValueError, match=r"no time|never due"):
        due.must_be_due(cron, "UTC")


@pytest.mark.parametrize("zone", ["Nowhere/Atall", "../etc/passwd", "", "Europe"])
def test_what_is_no_time_zone(zone: str):
    with pytest.raises(ValueError, match="no time"):
        due.must_be_due("* * * * *", zone)
    with pytest.raises(Invalid):
        next(due.after("* * * * *", zone, 0))


def found(missed: str, *, down_s: int = 100, grace_s: float = 10, cap: int = 5) -> due.Dues:
    now_ns = ns("2026-01-01T12:00:00+00:00")
    return due.dues("* * * * * *", "UTC", now_ns - down_s * S, now_ns, grace_s=grace_s, missed=missed, cap=cap)


def test_missed_times():
    now_ns = ns("2026-01-01T12:00:00+00:00")
    fresh = tuple(now_ns - away * S for away in range(10, -1, -1))
    assert found("skip") == due.Dues(fresh, now_ns, 89)
    assert found("one") == due.Dues((now_ns - 11 * S, *fresh), now_ns, 88)
    assert found("all") == due.Dues((*(now_ns - away * S for away in range(15, 10, -1)), *fresh), now_ns, 84)
    assert found("all", down_s=3).times == fresh[-3:]
    assert found("skip", down_s=0) == due.Dues((), now_ns, 0)
    assert found("skip", down_s=-5).times == ()  # a clock that was set back fires nothing twice


def test_years_of_missed_seconds_are_looked_at_in_no_time():
    assert found("one", down_s=10 * 365 * 86400).skipped == due.AT_ONCE_MAX - 1


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 30 2 * * *", "0 */3 * * *", "15 1,2,3 * * SUN", "@daily"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.integers(0, 400 * 86400),
    st.lists(st.integers(1, 3 * 86400), min_size=1, max_size=6),
)
def test_looked_at_now_and_then_each_time_is_found_once(cron: str, zone: str, begin_s: int, steps: list[int]):
    """Whatever the moments at which somebody looks: together they find what is due, each time once, in order."""
    begin_ns = since_ns = ns("2026-01-01T00:00:00+00:00") + begin_s * S
    seen: list[int] = []
    for step in steps:
        one = due.dues(cron, zone, since_ns, since_ns + step * S, grace_s=1e6, missed="skip", cap=1)
        seen += one.times
        since_ns += step * S
    expected = [time_ns for time_ns, _ in zip(due.after(cron, zone, begin_ns), range(len(seen) + 1), strict=False)]
    assert seen == expected[: len(seen)]
    assert expected[len(seen)] > since_ns


def test_between_gives_the_last_ones():
    now_ns = ns("2026-01-10T12:00:00+00:00")
    times, more = due.between("0 3 * * *", "UTC", now_ns - 5 * 86400 * S, now_ns, 3)
    assert [due.told(one) for one in times] == [f"2026-01-{day:02}T03:00:00Z" for day in (8, 9, 10)]
    assert more
    assert due.between("0 3 * * *", "UTC", now_ns - 5 * 86400 * S, now_ns, 5) == (
        due.between("0 3 * * *", "UTC", now_ns - 5 * 86400 * S, now_ns, 500)[0], False,
    )  # fmt: skip


@given(st.text(max_size=30), st.floats(0.001, 86400))
def test_jitter_is_the_same_for_the_same_key(key: str, jitter_s: float):
    assert 0 <= due.late_ns(key, jitter_s) == due.late_ns(key, jitter_s) <= jitter_s * S


def test_jitter_spreads():
    late = {due.late_ns(f"t/{number}", 60) // S for number in range(1000)}
    assert len(late) == 60
    assert due.late_ns("t", 0) == 0


def test_keys_are_times():
    moment = datetime(2026, 5, 1, 3, tzinfo=UTC) + timedelta(microseconds=1500)
    assert due.key("t", int(moment.timestamp() * 1e6) * 1000) == "t/2026-05-01T03:00:00.0015Z"
