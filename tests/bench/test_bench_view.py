"""The bench of the view prints what others rely on; that its process does not grow is asserted, its speed is not."""

import pytest

from knotwork.bench import view


def test_view_prints_how_fast_it_reads_and_how_far_it_is_behind(monkeypatch):
    """The whole bench, with few tasks: its figures are read by people, and not from here."""
    monkeypatch.setattr(view, "COUNT", 4000)
    monkeypatch.setattr(view, "LIVE", 500)
    result = view.run(1.0)
    assert set(result) >= {"ours", "raw", "durability"}
    for figure in (
        "ours",
        "raw",
        "folded_per_s",
        "folded_per_cpu_s",
        "list_p50_ms",
        "live_tasks_per_s",
        "behind_p50_s",
    ):
        assert result[figure] > 0, figure
    assert result["behind_max_s"] >= result["behind_p50_s"]
    assert result["tasks"] == view.COUNT


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_process_does_not_grow_over_half_a_million_tasks():
    result = view.fold(500_000)
    assert result["tasks"] == 500_000
    assert result["large_mb"] - result["small_mb"] < 30
