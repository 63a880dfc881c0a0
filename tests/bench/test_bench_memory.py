"""The bench of memory prints what others rely on; its speed is not asserted."""

import pytest
from tests.bench.test_bench_invoke import bench

from knotwork.bench import memory


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_memory_prints_how_fast_it_remembers_and_recalls():
    result = bench("memory", "5s")
    assert set(result) >= {"name", "ratio", "ours", "raw", "durability", "versions", "machine"}
    assert result["memories"] >= memory.KNOWN
    for figure in ("many_per_s", "raw_many_per_s", "remember_ms", "raw_ms", "recall_ms", "search_ms", "by_tag_ms"):
        assert result[figure] > 0, figure
