"""Bounds of a list that count from now are known as such, so that its pages can keep those of the first."""

from __future__ import annotations

from knotwork.ops.tasks import ListRequest


def test_only_bounds_that_count_from_now_move():
    assert ListRequest(since="2h", until="2026-05-01T12:00:00Z").wanted().moving == ("2h", "")
    assert ListRequest(until=" 90 ").wanted().moving == ("", "90")
    assert ListRequest().wanted().moving == ("", "")
    assert ListRequest().wanted().empty
