"""A number from outside: a few digits and nothing else, for Python takes more for digits than it can read."""

from __future__ import annotations

import pytest

from knotwork.bus import digits, subjects


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "1.0", "²", "1²", "٣", "1" * 19], ids=ascii)
def test_what_is_no_number_counts_as_none(text: str):
    assert digits.read(text) is None


def test_a_number_is_read():
    assert [digits.read(text) for text in ("0", "007", "9" * 18)] == [0, 7, 10**18 - 1]
    assert (digits.read("12", 2), digits.read("123", 2)) == (12, None)


def test_a_place_whose_number_is_none_has_no_outcome():
    place = "task.none.do.normal.t0123456789.task"
    assert subjects.outcome_of(f"{place}.0.1").endswith(".outcome.task.0.1")
    assert subjects.outcome_of(f"{place}.².1") == ""
