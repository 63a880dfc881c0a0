"""What happens to a task while somebody looks on? Progress and live output as they are said, changes of state as they are stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from knotwork.bus import frames, patterns, subjects
from knotwork.bus.reading import Stored
from knotwork.desk.agents import piece_of
from knotwork.desk.tasks import rows as task_rows
from knotwork.ops import replies
from knotwork.work import history, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.ops import task_replies
    from knotwork.work.lookup import Sight

PIECES_MAX = 10_000
LOOK_EVERY_S = 5.0
"""How often the present state is looked up beside: what was told while the link was away is made up for."""
Piece = replies.Progress | replies.Chunk


class TaskWatch:
    """What is told of one run, from `open` until `close`."""

    def __init__(self, connection: Connection, run: str, look: Callable[[str], Awaitable[Sight | None]]) -> None:
        """Listen to nothing yet; `look(run)` tells how a run is."""
        self._connection, self._run, self._look = connection, run, look
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue(PIECES_MAX)
        self._missed = 0
        self._stir = asyncio.Event()
        self._listening: list[Any] = []

    async def open(self) -> None:
        """Hear what happens from now on."""
        listen = self._connection.listen
        self._listening = [
            await listen(patterns.told_of(self._run), self._told),
            await listen(patterns.live_of(self._run), self._said),
        ]
        await self._connection.round_trip()

    async def close(self) -> None:
        """Hear nothing more."""
        for listening in self._listening:
            self._connection.unlisten(listening)

    async def pieces(self, timeout_s: float) -> AsyncGenerator[Piece, None]:
        """Yield what happens until the run has ended, or the time is over; looks itself now and then."""
        until_s = time.monotonic() + timeout_s
        look_s = 0.0
        shown = ""
        while True:
            if self._stir.is_set() or time.monotonic() >= look_s:
                self._stir.clear()
                look_s = time.monotonic() + LOOK_EVERY_S
                sight = await self._look(self._run)
                for piece in self._taken():
                    yield piece
                if sight is None or sight.state in records.FINAL:
                    return
                state = f"{sight.state} {sight.task.iteration} {sight.task.number}"
                if state != shown:  # told or not: this is how it is
                    shown = state
                    yield replies.Chunk(data=_present(sight))
            left_s = min(until_s, look_s) - time.monotonic()
            if until_s <= time.monotonic():
                return
            piece_or_none = await self._next(left_s)
            if piece_or_none is not None:
                yield piece_or_none

    async def _next(self, within_s: float) -> Piece | None:
        """Return the next piece, None when there is none in time."""
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                return await self._pieces.get()
        except TimeoutError:
            return None

    def _taken(self) -> list[Piece]:
        found: list[Piece] = []
        while not self._pieces.empty():
            found.append(self._pieces.get_nowait())
        if self._missed:
            found.append(replies.Chunk(data={"missed": self._missed}))
            self._missed = 0
        return found

    def _add(self, piece: Piece) -> None:
        try:
            self._pieces.put_nowait(piece)
        except asyncio.QueueFull:
            self._missed += 1

    def _told(self, message: Message) -> None:
        subject = subjects.told_by(message.subject)
        if subject.split(".")[3] in ("keyed", "next"):
            return
        self._stir.set()
        for one in history.told(Stored(subject, message.data, 0, "")):
            self._add(replies.Chunk(data=_said(task_rows.transition(one))))

    def _said(self, message: Message) -> None:
        piece = piece_of(frames.read(message))
        self._add(replies.Chunk(data={"output": piece.data}) if isinstance(piece, replies.Chunk) else piece)


def _said(transition: task_replies.Transition) -> dict[str, Any]:
    return transition.model_dump(exclude_defaults=True)


def _present(sight: Sight) -> dict[str, Any]:
    row = task_rows.row(sight)
    told = {"state": row.state, "what": "seen", "attempt": row.attempt, "worker": row.worker, "due_at": row.due_at}
    return {key: value for key, value in told.items() if value}
