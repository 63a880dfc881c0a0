"""Facts of a run as lines, whoever wrote them."""

from __future__ import annotations

import pytest

from knotwork.bus.reading import Stored
from knotwork.desk.runs import rows as flow_rows

AT = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000, b"7", b""])
def test_a_fact_that_makes_no_sense_is_told_without_what_it_says(data):
    told = flow_rows.event(2, Stored("run.aa.w0123456789.outcome.a.0.1", data, 5, AT))
    assert (told.number, told.what, told.step, told.state, told.message) == (2, "outcome", "a", "", "")
