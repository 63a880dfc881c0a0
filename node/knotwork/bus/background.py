"""How do tasks run beside a block, and end with it? A task group that is cancelled when the block is left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

log = logging.getLogger(__name__)
T = TypeVar("T")
AGAIN_S = 1.0
"""How often a group that does not end is looked at for tasks that were started meanwhile."""


class _Group(asyncio.TaskGroup):
    """A task group that tells when it ends its tasks."""

    leaving = False


@asynccontextmanager
async def background() -> AsyncIterator[asyncio.TaskGroup]:
    """Yield a group whose tasks are cancelled at the end of the block; an error of one of them ends the block."""
    async with _Group() as group:
        try:
            yield group
        finally:
            group.leaving = True
            while tasks := list(group._tasks):  # noqa: SLF001  a group has no public way to end its tasks
                for task in tasks:
                    if not task.cancelling():
                        task.cancel()
                await asyncio.wait(tasks, timeout=AGAIN_S)  # what ends may have started another


def ends(group: asyncio.TaskGroup) -> bool:
    """Return whether a group cancels its tasks: who is cancelled otherwise was meant himself, or cancelled himself."""
    return getattr(group, "leaving", False) or group._aborting  # type: ignore[attr-defined]  # noqa: SLF001  not public


def begin_in(
    group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], failed: Callable[[], None] | None = None
) -> asyncio.Task[None] | None:
    """Do one thing beside, in a group; None, and it is left undone, when the group is closing.

    An error that nobody foresaw ends that one thing, is told in the log, and `failed()` is called: it must not end what
    the group's other tasks do, a whole project say. What has to be done all the same goes by `pauses.insist`.
    """
    doing = _contained(work, failed)
    try:
        task = group.create_task(doing)
    except RuntimeError:
        doing.close()
        work.close()
        return None
    task.add_done_callback(lambda _: work.close())  # cancelled before its first step, it has not begun it
    return task


async def _contained(work: Coroutine[Any, Any, None], failed: Callable[[], None] | None) -> None:
    try:
        await work
    except Exception:
        log.exception("%s failed", getattr(work, "__qualname__", "a task"))
        if failed is not None:
            failed()


async def ended(task: asyncio.Task[Any]) -> None:
    """Return when a task has ended, however; who is cancelled meanwhile is so behind that."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def to_its_end(group: asyncio.TaskGroup, work: Coroutine[Any, Any, T]) -> T:
    """Do one thing whole, in a group: who is cancelled meanwhile is so behind it, and not in between.

    Raises what it raises; when the group ends it is cancelled like all that is in it.
    """
    failed: list[Exception] = []

    async def kept() -> T | None:
        try:
            return await work
        except Exception as error:  # noqa: BLE001  raised below, to whoever wanted it and not to the group
            failed.append(error)
            return None

    doing = group.create_task(kept())
    await ended(doing)
    if failed:
        raise failed[0]
    return cast("T", doing.result())


def heard(future: asyncio.Future[Any]) -> None:
    """Let nobody complain of the error of what is done and nobody waits for any more."""
    if not future.cancelled():
        future.exception()


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Do several things at the same time and return what they return; the first error ends them all and is raised.

    Raises `CancelledError` when it was cancelled, also in the moment in which one of them fails (`what_ended`).
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
            if tasks:  # waited for inside: a task that fails while a group ends leaves whoever waits looking cancelled
                await asyncio.wait(tasks)
    except BaseExceptionGroup as failed:
        raise what_ended(failed) from None
    return [task.result() for task in tasks]


def what_ended(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what a task group ended by, as itself: our own cancellation, when there was one, else its first error.

    Python's groups up to 3.12 forget that they were cancelled when one of their tasks fails at the same time
    (github.com/python/cpython/issues/116720); whoever goes on after errors would never end then. They count a
    cancellation of their own as one from outside when a task fails after the block's last line: have the block wait.
    """
    task = asyncio.current_task()
    return asyncio.CancelledError() if task is not None and task.cancelling() else failed.exceptions[0]
