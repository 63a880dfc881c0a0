"""Is what vendors complain about sorted rightly, with the pause they ask for?"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork_plugins.executors import trouble


@pytest.mark.parametrize(
    ("message", "status", "kind", "code"),
    [
        ("slow down", 429, "", trouble.RATE_LIMITED),
        ("You exceeded your current quota", 429, "insufficient_quota", trouble.OUT_OF_CREDIT),
        ("no", 401, "", trouble.UNAUTHENTICATED),
        ("no", 403, "", trouble.UNAUTHENTICATED),
        ("no", 402, "", trouble.OUT_OF_CREDIT),
        ("no", 529, "", trouble.OVERLOADED),
        ("no", 400, "invalid_request_error", trouble.FAILED),
        ("anything", None, "rate_limit", trouble.RATE_LIMITED),
        ("anything", None, "authentication_failed", trouble.UNAUTHENTICATED),
        ("anything", None, "RESOURCE_EXHAUSTED", trouble.RATE_LIMITED),
        ("You've hit your session limit · resets 3:45pm", None, "", trouble.RATE_LIMITED),
        ("API Error: 529 overloaded_error", None, "", trouble.OVERLOADED),
        ("Your credit balance is too low", None, "", trouble.OUT_OF_CREDIT),
        ("Not logged in · Please run /login", None, "", trouble.UNAUTHENTICATED),
        ("API key not valid. Please pass a valid API key.", None, "", trouble.UNAUTHENTICATED),
        ("the file has 401 lines", None, "", trouble.UNAUTHENTICATED),
        ("the test failed", None, "", trouble.FAILED),
        ("", None, "", trouble.FAILED),
    ],
)
def test_every_spelling_has_its_code(message: str, status: int | None, kind: str, code: str) -> None:
    found = trouble.sort(message, status=status, kind=kind)
    assert found.code == code
    assert found.retriable == (code in (trouble.RATE_LIMITED, trouble.OVERLOADED))
    assert found.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 1.5s.", 1.5),
        ("try again in 250ms", 0.25),
        ("try again in 2m", 120.0),
        ("try again in 1m30s", 90.0),
        ("try again in 1h2m", 3720.0),
        ('"retryDelay": "23s"', 23.0),
        ("Retry-After: 12", 12.0),
        ("retry in 23.5 seconds", 23.5),
        ("try again later", None),
        ("nothing of the kind", None),
    ],
)
def test_pauses_are_read_from_sentences(text: str, seconds: float | None) -> None:
    assert trouble.pause_in(text) == seconds


@given(st.text(), st.one_of(st.none(), st.integers()), st.text(), st.one_of(st.none(), st.floats()))
def test_anything_can_be_sorted(message: str, status: int | None, kind: str, pause: float | None) -> None:
    found = trouble.sort(message, status=status, kind=kind, retry_after_s=pause)
    assert found.retry_after_s is None or 0 <= found.retry_after_s <= trouble.RETRY_AFTER_MAX_S
    assert len(found.message) <= trouble.MESSAGE_MAX


def test_the_outcome_carries_hint_pause_and_detail() -> None:
    failed = trouble.sort("slow down", status=429, retry_after_s=5).failed("Wait.", partial="x")
    assert (failed.message, failed.code, failed.retriable, failed.retry_after_s) == (
        "slow down Wait.",
        trouble.RATE_LIMITED,
        True,
        5,
    )
    assert failed.detail == {"status": 429, "partial": "x"}
    assert trouble.sort("no", status=401, retry_after_s=5).failed().retry_after_s is None
    assert trouble.bounded_pause(math.nan) is None
