"""Many agents at once on one node, each behind a bridge of its own, doing what agents do: nothing fails, nothing hangs.

The short version has 8 for some seconds, the long one 50 for five minutes, with what each kind of call took at most:
`python -m pytest -n0 -m slow -rP tests/e2e/test_mcp_many.py`. Only a machine that is otherwise idle tells how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections import defaultdict

import pytest

from knotwork.bench import agents
from knotwork.bus import child

CALL_MAX_S = 30.0
THINK_S = 0.5
CAPABILITIES = ("write", "review", "test")


async def live(bridge: agents.Bridge, number: int, end_s: float, took: dict[str, list[float]]) -> None:
    """Talk, work and remember until the time is over, and until somebody has done some work."""
    chance = random.Random(number)

    async def call(tool: str, **arguments):
        start_s = time.monotonic()
        async with asyncio.timeout(CALL_MAX_S):
            said = await bridge.call(tool, **arguments)
        took[tool].append(time.monotonic() - start_s)
        return said

    mine = CAPABILITIES[number % 3]
    await call("register_agent", agentType="scripted", capabilities=[mine])
    while time.monotonic() < end_s or not took["complete_work"]:
        await call("send_message", channel="roadmap", message=f"{number} is here, {chance.random()}")
        await call("read_messages", channel="roadmap", limit=20)
        others = (await call("discover_agents", capability=chance.choice(CAPABILITIES)))["agents"]
        if others:
            await call("send_direct_message", recipientGuid=chance.choice(others)["guid"], message="hello")
        await call("read_direct_messages", limit=20)
        await call("remember", content=f"agent {number} saw {chance.random()}", scope="team", category="learnings")
        await call("recall_context", search=f"agent {chance.randrange(50)}", limit=10)
        wanted = chance.choice(CAPABILITIES)
        await call("broadcast_work_offer", taskId=f"t{chance.random()}", description="do it", requiredCapability=wanted)
        claimed = await call("claim_work", capability=mine, timeout=100)
        if claimed["claimed"]:
            await call("complete_work", work_id=claimed["work_id"], result=number)
        await asyncio.sleep(chance.uniform(0, 2 * THINK_S))  # an agent thinks


@pytest.mark.parametrize(
    ("count", "seconds"), [(8, 6), pytest.param(50, 300, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
async def test_many_agents_live_on_one_node(count, seconds, figure):
    took: dict[str, list[float]] = defaultdict(list)
    async with child.guard(), agents.open_node() as place, contextlib.AsyncExitStack() as stack:
        bridges = [await stack.enter_async_context(agents.Bridge.open(place, f"a{number}")) for number in range(count)]
        end_s = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number, bridge in enumerate(bridges):
                group.create_task(live(bridge, number, end_s, took))
    for tool, times in sorted(took.items()):
        figure(f"{tool} p50_ms", round(1000 * statistics.median(times), 1))
        figure(f"{tool} max_ms", round(1000 * max(times)))
    assert all(took[tool] for tool in ("send_message", "recall_context", "claim_work", "complete_work"))
    assert len(took["send_message"]) >= count
