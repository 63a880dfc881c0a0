"""How is something told that may never end? Piece by piece, for as many or as long as whoever asks wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from knotwork.ops import replies
from knotwork.ops.project_replies import Happening

R = TypeVar("R", replies.EventRow, Happening)
Pieces = AsyncGenerator[replies.Chunk | replies.EventsEnd, None]


async def told(rows: AsyncGenerator[R, None], missed: Callable[[R], bool], *, limit: int, wait_s: float) -> Pieces:
    """Yield `rows` as chunks, then how many there were; ends after `limit` rows or `wait_s` seconds, 0: never.

    `missed(row)` says whether a row tells of others (its `count`) that were lost on a reader that is too slow.
    """
    count = dropped = 0
    try:
        async with asyncio.timeout(wait_s or None), aclosing(rows) as pieces:
            async for row in pieces:
                dropped += int(row.data.get("count", 0)) if missed(row) else 0
                yield replies.Chunk(data=row)
                count += 1
                if count == limit:
                    break
    except TimeoutError:
        if not wait_s:
            raise
    yield replies.EventsEnd(count=count, dropped=dropped)
