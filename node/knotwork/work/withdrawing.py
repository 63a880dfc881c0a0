"""How does a step that nobody needs any more end? Whoever works on it is asked back, and records when it has really ended.

So what is begun afterwards, to undo other steps above all, never meets side effects of work that was called off. Work
that waits is with nobody, an agent that came in cannot be made to stop, and a worker may have died: for these nobody
says "I have it", and whoever asked records the end itself, as it does when the wait has been long enough.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from knotwork.bus import patterns, reading, subjects
from knotwork.sdk.errors import Cancelled, TimedOut, Unreachable
from knotwork.work import fold, queues

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection

LET_GO_S = 10.0
"""How long work that was called off may take to end, before its step counts as cancelled regardless."""
WORD_S = 1.0
"""How long whoever has the work may take to say so; and how often it is asked whether it still has."""
LOOK_S = 0.02
I_HAVE_IT = b"have"


def not_needed() -> Cancelled:
    """Return the error of a step that was called off."""
    return Cancelled("The run does not need it any more.", code="flow.step_cancelled")


async def let_go(connection: Connection, run: str, step: str, is_open: Callable[[], bool]) -> None:
    """Have whoever works on a step stop.

    Returns when its end has arrived (`is_open()` is False then), when nobody has it, or after `LET_GO_S` seconds.
    Raises what asking NATS raises.
    """
    until_s = time.monotonic() + LET_GO_S
    while is_open() and time.monotonic() < until_s and await ask_back(connection, run, step):
        again_s = min(until_s, time.monotonic() + WORD_S)  # asked again: its worker may have died meanwhile
        while is_open() and time.monotonic() < again_s:  # noqa: ASYNC110  a run tells nobody of what it closes
            await asyncio.sleep(LOOK_S)


async def ask_back(connection: Connection, run: str, step: str) -> bool:
    """Ask for a step back; return whether somebody has it and will record its end once it has really ended."""
    waits = await reading.last(connection, subjects.TASKS, patterns.tasks_of(run, step))
    if waits is None:
        return False
    task = fold.task_at(waits)
    if task is not None:
        given = await queues.given_up_to(connection, queues.Queue(task.boundary, task.queue, task.lane))
        if given is None or given < waits.seq:
            return False  # it never left its queue
    try:
        answer = await connection.request(subjects.withdraw(run), step.encode(), timeout_s=WORD_S)
    except (TimedOut, Unreachable):
        return False
    return answer.data == I_HAVE_IT
