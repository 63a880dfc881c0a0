"""How are many memories written or forgotten at once? Some at a time, with one answer each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from knotwork.sdk.errors import KnotworkError

AT_ONCE = 32
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


async def each(
    asked: Sequence[Asked], do: Callable[[Asked], Awaitable[Answer]], *, stop_on_error: bool
) -> list[Answer | KnotworkError | None]:
    """Do it for each; one answer each in their order, None for what was not tried after an error."""
    answers: list[Answer | KnotworkError | None] = [None] * len(asked)
    numbers = iter(range(len(asked)))  # shared: each hand takes the next, so that many are no more tasks than few

    async def hand() -> None:
        for number in numbers:
            try:
                answers[number] = await do(asked[number])
            except KnotworkError as error:
                answers[number] = error
                if stop_on_error:
                    return

    async with asyncio.TaskGroup() as group:
        for _ in range(1 if stop_on_error else min(AT_ONCE, len(asked))):
            group.create_task(hand())
    return answers
