"""The benches print what others rely on. Speed itself is read by people, never asserted: machines differ."""

import json
import subprocess
import sys


def bench(name: str, seconds: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "knotwork", "bench", name, "--for", seconds, "-o", "json"],
        capture_output=True,
        timeout=200,  # it takes its seconds, on a busy machine many more
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_invoke_prints_ours_beside_raw_of_the_same_run():
    result = bench("invoke", "2s")
    assert set(result) >= {"name", "ratio", "ours", "raw", "durability", "versions", "machine"}
    assert result["name"] == "invoke"
    assert result["ours"] > 0
    assert result["raw"] > 0
    assert result["ratio"] == round(result["ours"] / result["raw"], 3)
    assert result["in_flight"] == 10_000
    assert result["in_flight_s"] > 0
    assert result["discovery_1000_ms"] > 0
    assert result["p50_ratio"] > 0
    assert result["versions"]["nats-py"] == "2.16.0"


def test_an_unknown_bench_names_those_there_are():
    done = subprocess.run(
        [sys.executable, "-m", "knotwork", "bench", "nonsense"], capture_output=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert all(name in done.stderr for name in (b"invoke", b"view", b"agents", b"start"))


def test_start_prints_how_long_a_node_takes_beside_a_bare_server():
    result = bench("start", "1s")
    assert set(result) >= {"name", "ratio", "ours", "raw", "durability", "versions", "machine"}
    assert result["ours"] == result["ready_ms"] > 0
    assert result["raw"] > 0
    assert all(result[name] > 0 for name in ("idle_mb", "version_ms", "client_verb_ms", "stop_ms"))
    assert result["rounds"] == 1
