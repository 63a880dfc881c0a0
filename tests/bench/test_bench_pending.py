"""The bench of waiting tasks prints what others rely on; here with few, its figures are read by people."""

from knotwork.bench import pending, suite


def test_pending_prints_what_submitting_and_listing_cost_and_what_two_nodes_do(monkeypatch):
    monkeypatch.setattr(pending, "MANY", 2000)
    monkeypatch.setattr(pending, "COUNT", 500)
    monkeypatch.setattr(pending, "ROUNDS", 1)
    result = suite.run("pending", 1.0)
    assert set(result) >= {"name", "ratio", "ours", "raw", "durability", "versions", "machine"}
    assert result["pending"] == 2000 + pending.FEW + 2 * pending.ASKED
    for figure in (
        "ratio", "ours", "raw", "submitted_per_s", "submit_p50_ms", "list_p50_ms", "page_p50_ms", "few_submit_p50_ms",
        "few_list_p50_ms", "submit_ratio", "list_ratio", "page_ratio", "one_node_per_s", "two_nodes_per_s",
        "nodes_ratio",
    ):  # fmt: skip
        assert result[figure] > 0, figure
