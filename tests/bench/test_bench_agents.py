"""The bench of agents prints what others rely on, however fast the machine is; its speed is not asserted."""

from collections import Counter
from types import SimpleNamespace

import pytest
from tests.bench.test_bench_invoke import bench

from knotwork.bench import agents

TOOLS = ("send", "direct", "read", "claim", "discover", "remember", "recall")
RATES = ("direct_per_s", "memory_writes_per_s", "claims_per_s", "claims_of_16_per_s", "raw_of_4_per_s")


async def test_messages_to_agents_never_are_more_than_their_inboxes_hold():
    """`ask` stands in for a node whose inboxes hold 40 messages: faster than any node, so that all get full."""
    inboxes = Counter()

    async def ask(op: str, *, to: str, text: str) -> None:
        assert (op, bool(text)) == ("message.send", True)
        inboxes[to] += 1
        assert inboxes[to] <= 40, f"the inbox of {to} is full"

    rate = await agents.direct(ask, ["ann", "ben", "cleo"], 30, held=40)
    assert inboxes == {"ann": 40, "ben": 40, "cleo": 40}
    assert rate > 0


async def test_the_last_vain_wait_of_a_worker_is_no_part_of_claiming(monkeypatch):
    """`ask` stands in for a node, and for the clock: a claim takes a second, a wait in vain a hundred."""
    monkeypatch.setattr(agents, "CLAIMS", 8)
    waiting, now_s = list(range(8)), [0.0]
    monkeypatch.setattr(agents, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))

    async def ask(op: str, **_fields: object) -> dict:
        if op != "work.claim":
            return {}
        now_s[0] += 1.0 if waiting else 100.0
        return {"tasks": [{"claim": waiting.pop()}] if waiting else []}

    assert await agents.claims(ask) == 1.0


async def test_every_call_of_the_bench_is_answered(monkeypatch):
    """The whole bench, with few of everything, so that it is run at every change."""
    few = {"ROUNDS": 1, "ALONE": 2, "AGENTS": 5, "MEMORIES": 100, "CLAIMS": 8}
    for name, number in few.items():
        monkeypatch.setattr(agents, name, number)
    result = await agents.measure(0)
    assert (result["agents"], result["memories"]) == (5, 100)
    for figure in (*(f"{tool}_p50_ms" for tool in TOOLS), *RATES):
        assert result[figure] > 0, figure


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_agents_prints_how_fast_they_talk_claim_and_remember():
    result = bench("agents", "10s")
    assert set(result) >= {"name", "ratio", "ours", "raw", "durability", "versions", "machine", "bridge_mb"}
    assert result["agents"] == agents.AGENTS
    for figure in (*(f"{tool}_p50_ms" for tool in TOOLS), *RATES):
        assert result[figure] > 0, figure
