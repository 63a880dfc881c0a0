"""What does an executor answer that runs in a process of its own? Whatever it does, what it would answer in the node.

There the node itself looks at what came back; here that is done before it leaves, because it must be JSON to leave.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.sdk import Attempt, Failed, KnotworkError
from knotwork.sockets import carried, frames, raised, said

if TYPE_CHECKING:
    from knotwork.sdk import Executor, Outcome


async def executed(executor: Executor, attempt: Attempt) -> msgspec.Raw:
    """Return the outcome of one attempt as it travels; raises what an executor raises on purpose."""
    outcome: Outcome
    task = asyncio.current_task()
    assert task is not None
    try:
        outcome = said.outcome(await executor.execute(attempt))
        if isinstance(outcome, Failed):
            outcome = _sayable(outcome)
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise
        outcome = _crashed(error)  # the executor's own
    except GeneratorExit as error:
        if raised.thrown_away(task):
            raise
        outcome = _crashed(error)
    except KnotworkError as error:
        if _can_be_told(error):
            raise
        outcome = _crashed(error)
    except BaseException as error:  # noqa: BLE001  the boundary: whatever an executor raises becomes an answer
        outcome = _crashed(error)
    return _encoded(outcome)


def _encoded(outcome: Outcome) -> msgspec.Raw:
    try:
        return frames.raw(carried.from_outcome(outcome))
    except (TypeError, ValueError, RecursionError) as error:
        told = f"This value cannot be written as JSON: {error}."
        return frames.raw(carried.from_outcome(Failed(_clean(told), code="agent.bad_output")))


def _sayable(failed: Failed) -> Failed:
    """Return a failure whose parts can be written; raises TypeError for parts that are of the wrong type altogether."""
    words = isinstance(failed.message, str) and isinstance(failed.code, str) and isinstance(failed.detail, dict)
    if not words or not isinstance(failed.retry_after_s, int | float | None):
        raise TypeError("answered a failure made of the wrong things")
    try:
        frames.raw(failed.detail)
        detail: dict[str, Any] = dict(failed.detail)
    except (TypeError, ValueError, RecursionError):
        detail = {}  # what cannot be said is left out
    return Failed(_clean(failed.message), _clean(failed.code), bool(failed.retriable), failed.retry_after_s, detail)


def _can_be_told(error: KnotworkError) -> bool:
    try:
        frames.raw(error.to_wire())
    except (TypeError, ValueError, RecursionError):
        return False
    return said.can_be_told(error)


def _crashed(error: BaseException) -> Failed:
    traceback.print_exception(error)  # into the node's log
    return Failed(_clean(said.crash(error)), code="agent.crashed", retriable=True)


def _clean(text: str) -> str:
    """Return the text without halves of characters, which cannot be written."""
    return text.encode("utf-8", "replace").decode()
