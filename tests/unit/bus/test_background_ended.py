"""Whoever goes on after errors ends all the same when he is cancelled, also in the moment in which a task of his fails."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from knotwork.bus.background import background, begin_in, ended, to_its_end, together, what_ended


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


async def test_what_fails_while_the_others_are_waited_for_is_no_cancellation():
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    for _ in range(3):  # and whoever goes on after it can be cancelled as before
        with pytest.raises(ValueError):
            await together(asyncio.Event().wait(), fails())
    assert await together() == []
    assert await together(asyncio.sleep(0, 1), asyncio.sleep(0, 2)) == [1, 2]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await together(asyncio.Event().wait())


async def test_a_bug_in_one_thing_ends_nothing_else_of_the_group(caplog):
    told: list[str] = []
    go = asyncio.Event()

    async def breaks() -> None:
        raise ValueError

    async def goes_on() -> None:
        await go.wait()
        told.append("done")

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        other = begin_in(group, goes_on())
        broken = begin_in(group, breaks(), lambda: told.append("failed"))
        assert other is not None
        assert broken is not None
        await broken
        go.set()
    assert told == ["failed", "done"]
    assert "breaks failed" in caplog.text
    assert "ValueError" in caplog.text


async def test_what_is_cancelled_before_its_first_step_is_left_undone_without_a_word():
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    async with background() as group:
        assert begin_in(group, work()) is not None
    assert begin_in(group, work()) is None  # it is closed
    assert begun == []


async def test_what_is_done_to_its_end_is_whole_when_somebody_cancels_it():
    begun, go, done = asyncio.Event(), asyncio.Event(), []

    async def work() -> str:
        begun.set()
        await go.wait()
        done.append("whole")
        return "made"

    async def wanted(group: asyncio.TaskGroup) -> str:
        return await to_its_end(group, work())

    async with background() as group:
        task = group.create_task(wanted(group))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert done == ["whole"]
        assert await to_its_end(group, work()) == "made"


async def test_an_error_of_what_is_done_to_its_end_goes_to_whoever_wanted_it():
    async def fails() -> None:
        raise ValueError("no")

    async with background() as group:
        with pytest.raises(ValueError, match="no"):
            await to_its_end(group, fails())
        assert not group._tasks


async def test_who_waits_for_an_end_is_cancelled_behind_it():
    go = asyncio.Event()
    async with background() as group:
        first = group.create_task(go.wait())
        second = group.create_task(ended(first))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        assert not second.done()
        go.set()
        await asyncio.wait([second])
        assert first.done() and second.cancelled()
