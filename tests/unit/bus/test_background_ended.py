"""Whoever goes on after errors ends all the same when he is cancelled, also in the moment in which a task of his fails."""

from __future__ import annotations

import asyncio
import contextlib

from knotwork.bus.background import what_ended


async def test_a_group_that_fails_while_it_is_cancelled_is_cancelled():
    ending, rounds = asyncio.Event(), 0

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            for _ in range(10):
                await asyncio.sleep(0)

    async def goes_on() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(slow_to_end())
                    await asyncio.sleep(0)
                    raise ValueError
            except BaseExceptionGroup as failed:
                with contextlib.suppress(ValueError):
                    raise what_ended(failed) from None

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(goes_on())
        await ending.wait()
        task.cancel()
    assert task.cancelled()
    assert rounds == 1
