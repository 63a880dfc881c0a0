"""Limits hold exactly, over several nodes: shown by who was under way when."""

from __future__ import annotations

import asyncio
import time

import pytest_asyncio
from tests.integration.work.conftest import open_bench, until

from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.flow.admission import Limit
from knotwork.flow.limits import Limits


@pytest_asyncio.fixture
async def three(tmp_path):
    async with open_bench(tmp_path) as bench, background() as group:
        made = []
        for _ in range(3):
            connection = await bench.stack.enter_async_context(open_connection(Endpoint((bench.url,), seed=bench.seed)))
            limits = Limits(group, connection)
            await limits.open()
            group.create_task(limits.run())
            made.append(limits)
        yield made


async def test_a_concurrency_limit_holds_over_three_nodes(three):
    limit = Limit("cap.do", concurrency=3)
    log: list[tuple[float, int]] = []

    async def one(node: int, number: int) -> None:
        await three[node].acquire(f"{node}.{number}", (limit,))
        log.append((time.monotonic(), 1))
        await asyncio.sleep(0.01)  # the work
        log.append((time.monotonic(), -1))
        three[node].release(f"{node}.{number}")

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(one(number % 3, number))
    under_way, most = 0, 0
    for _, change in sorted(log):
        under_way += change
        most = max(most, under_way)
    assert most == 3
    await until(lambda: not three[0].holder_of("cap.do"))


async def test_a_rate_holds_over_three_nodes(three):
    limit = Limit("cap.do", rate=5, per_s=0.5)
    begun: list[float] = []

    async def one(node: int, number: int) -> None:
        await three[node].acquire(f"{node}.{number}", (limit,))
        begun.append(time.monotonic())
        three[node].release(f"{node}.{number}")

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(number % 3, number))
    begun.sort()
    # a full bucket at once, and what comes back meanwhile: never more than twice the rate in its time
    assert max(sum(start <= one < start + 0.5 for one in begun) for start in begun) <= 10
    assert begun[-1] - begun[0] >= (20 - 5) / 5 * 0.5 * 0.9


async def test_the_most_urgent_goes_first_and_what_a_crash_left_is_struck_out(three):
    limit = Limit("cap.do", concurrency=1)
    await three[0].acquire("dead.a", (limit,))
    order: list[str] = []

    async def one(name: str, priority: int) -> None:
        await three[1].acquire(name, (limit,), priority)
        order.append(name)
        three[1].release(name)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for name, priority in (("low", 1), ("mid", 5), ("high", 9)):
            group.create_task(one(name, priority))
        await until(lambda: three[2].holder_of("cap.do") == ["dead.a"])
        three[2].sweep(lambda holder: holder.startswith("dead."))
    assert order == ["high", "mid", "low"]


async def test_asked_again_it_is_there_already(three):
    limit = Limit("cap.do", concurrency=1)
    async with asyncio.timeout(30):
        await three[0].acquire("run.a", (limit,))
        await three[1].acquire("run.a", (limit,))
    assert three[1].holder_of("cap.do") == ["run.a"]
