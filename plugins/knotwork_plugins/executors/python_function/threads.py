"""How is a function that blocks run without holding up the loop, or for ever the end of the node?

Python cannot interrupt a thread. So each call gets a daemon thread for itself; when its caller gives up, the thread
is abandoned: it runs on, is counted, and comes back into use when its function returns after all.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, Any

from knotwork.sdk import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = asyncio.Future[tuple[Any, BaseException | None]]
    Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, Answer]


class WorkerThreads:
    """At most `most` daemon threads; idle ones are used again."""

    def __init__(self, name: str, most: int) -> None:
        """Start without threads; they come with the calls."""
        self._name = name
        self._most = most
        self._idle: list[queue.SimpleQueue[Job | None]] = []
        self._lock = threading.Lock()
        self._closed = False
        self.alive = 0
        self.abandoned = 0

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return what `function()` returns, raise what it raises; context variables are those of the caller.

        Raises `Busy` when all threads are taken. When cancelled, the thread is abandoned.
        """
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        context = contextvars.copy_context()
        self._take().put((lambda: context.run(function), loop, answer))
        try:
            value, error = await answer
        except asyncio.CancelledError:
            if answer.cancelled():  # nobody has answered yet
                with self._lock:
                    self.abandoned += 1
            raise
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Let idle threads end, and busy ones when their function returns."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for jobs in idle:
            jobs.put(None)

    def _take(self) -> queue.SimpleQueue[Job | None]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self.alive >= self._most:
                raise Busy(
                    f"all {self._most} threads are taken, {self.abandoned} of them by calls that were given up.",
                    code="python.threads_taken",
                    hint="Raise threads_max, or make the function async, or run the agent with hosted = true.",
                )
            self.alive += 1
            number = self.alive
        jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, args=(jobs,), name=f"{self._name}-{number}", daemon=True).start()
        return jobs

    def _work(self, jobs: queue.SimpleQueue[Job | None]) -> None:
        while (job := jobs.get()) is not None:
            function, loop, answer = job
            value, error = None, None
            try:
                value = function()
            except BaseException as caught:  # noqa: BLE001 - a thread's border: it all goes to the caller, SystemExit too
                error = caught
            with self._lock:
                stays = not self._closed
                if stays:
                    self._idle.append(jobs)
                else:
                    self.alive -= 1
            with contextlib.suppress(RuntimeError):  # the loop is closed: the caller is gone
                loop.call_soon_threadsafe(self._answer, answer, value, error)
            del job, function, value, error
            if not stays:
                return

    def _answer(self, answer: Answer, value: Any, error: BaseException | None) -> None:
        if not answer.done():
            answer.set_result((value, error))
        elif answer.cancelled():
            with self._lock:
                self.abandoned -= 1
