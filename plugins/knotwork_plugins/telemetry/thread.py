"""How does blocking work run without stopping the loop, or the exit of the node? In one daemon thread per sink.

The loop's own thread pool will not do: the interpreter waits for its threads at exit, and a thread that waits for a
dead disk or collector would hold the node up.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_WAITING_MAX = 8


class Worker:
    """One thread that calls functions in turn."""

    def __init__(self, name: str) -> None:
        """Start it; `name` is seen in debuggers."""
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.Queue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.Queue(_WAITING_MAX)
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    async def run(self, function: Callable[[], T]) -> T:
        """Return what `function` returned, or raise what it raised; cancelled, leaves it behind in the thread.

        Raises `OSError` when several calls were left behind and none of them came to an end.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        try:
            self._jobs.put_nowait((function, answer))
        except queue.Full:
            raise OSError(f"{_WAITING_MAX} earlier calls still wait for an answer") from None
        return await answer

    def close(self) -> None:
        """End the thread when it has done what it was given; does not wait for it."""
        with contextlib.suppress(queue.Full):  # then it hangs, and ends with the process
            self._jobs.put_nowait(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, answer = job
            if answer.cancelled():
                continue
            try:
                result, error = function(), None
            except BaseException as raised:  # noqa: BLE001 - it belongs to the one who waits for the answer
                result, error = None, raised
            try:
                self._loop.call_soon_threadsafe(_settle, answer, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():  # it was cancelled meanwhile
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
