"""Durations in words, and when a cron expression is due while clocks are set forward and back."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.flow.definitions import parsed, text_of
from knotwork.flow.durations import next_due, seconds
from knotwork.sdk.errors import Invalid

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("0s", 0),
        ("1m1m", 120),
    ],
)
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5 m", "5S", "1e3s", "٣s", "5s ", "1.s", ".5s", "9" * 10 + "s", "1s" * 33, "1y"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="write a duration as"):
        seconds(text)


def test_what_is_no_text_is_left_to_others_but_truth_is_refused():
    assert (seconds(5), seconds(1.5), seconds(None)) == (5, 1.5, None)
    with pytest.raises(ValueError, match="duration"):
        seconds(True)


@given(st.text(max_size=200))
def test_any_text_is_a_duration_or_refused(text):
    with contextlib.suppress(ValueError):
        assert seconds(text) >= 0


def due(cron: str, zone: str, after: datetime, count: int = 1) -> list[str]:
    """Return the next times, as UTC without its name."""
    found, at_ns = [], int(after.timestamp()) * S
    for _ in range(count):
        at_ns = next_due(cron, zone, at_ns)
        found.append(datetime.fromtimestamp(at_ns / S, UTC).strftime("%m-%d %H:%M"))
    return found


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # 2026-03-29: 02:00 becomes 03:00, which is 01:00 UTC
        ("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN), ["03-29 01:00", "03-30 00:30", "03-31 00:30"]),
        ("0 3 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN), ["03-29 01:00", "03-30 01:00"]),
        ("*/30 * * * *", datetime(2026, 3, 29, 1, 15, tzinfo=BERLIN), ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
        # 2026-10-25: 03:00 becomes 02:00, which is 01:00 UTC
        ("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=BERLIN), ["10-25 00:30", "10-26 01:30"]),
        (
            "*/30 * * * *",
            datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN),
            ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30"],
        ),
        ("0 12 * * *", datetime(2026, 10, 24, 13, tzinfo=BERLIN), ["10-25 11:00"]),
        ("0 0 29 2 *", datetime(2026, 3, 1, tzinfo=BERLIN), ["02-28 23:00"]),
        ("0 9 * * MON-FRI", datetime(2026, 11, 21, 12, tzinfo=BERLIN), ["11-23 08:00"]),
    ],
)
def test_cron_over_the_changes_of_the_clock(cron, after, expected):
    assert due(cron, "Europe/Berlin", after, len(expected)) == expected


def test_it_is_strictly_later_and_to_the_second():
    noon_ns = int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()) * S
    assert next_due("0 12 * * *", "UTC", noon_ns) == noon_ns + 86400 * S
    assert next_due("0 12 * * *", "UTC", noon_ns - 1) == noon_ns
    assert next_due("*/5 * * * * *", "UTC", noon_ns + 1) == noon_ns + 5 * S


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("", "UTC"), ("* * * *", "UTC"), ("61 * * * *", "UTC"), ("0 0 30 2 *", "UTC"), ("nonsense", "UTC"), ("*/0 * * * *", "UTC"),
        ("* * * * *", ""), ("* * * * *", "Nope/Nowhere"), ("* * * * *", "../../etc/passwd"), ("* * * * *", "America"),
        ("* * * * *", "a\0b"), ("0 0 * * MON#9", "UTC"), ("9" * 200 + " * * * *", "UTC"),
    ],
)  # fmt: skip
def test_what_is_never_due(cron, zone):
    with pytest.raises(Invalid) as caught:
        next_due(cron, zone, 0)
    assert caught.value.code == "flow.bad_cron"


@given(st.text(alphabet="0123456789*/,-#LMONabc ", max_size=40), st.integers(0, 4_000_000_000 * S))
def test_any_cron_is_due_later_or_refused(cron, after_ns):
    try:
        assert next_due(cron, "Europe/Berlin", after_ns) > after_ns
    except Invalid as error:
        assert error.code == "flow.bad_cron"


@pytest.mark.parametrize(
    ("retry", "longest_s"),
    [({}, 300.0), ({"delay": "1h"}, 3600.0), ({"delay": "1h", "max_delay": "5m"}, 300.0)],
)
def test_a_pause_that_was_asked_for_is_not_cut_short_by_a_default(retry, longest_s):
    made = parsed({"name": "w", "steps": {"a": {"capability": "do", "retry": {"max_attempts": 3, **retry}}}})
    again = parsed(json.loads(text_of(made)))  # what is kept of it means the same
    assert [one.steps["a"].retry.longest_pause() for one in (made, again)] == [longest_s, longest_s]
