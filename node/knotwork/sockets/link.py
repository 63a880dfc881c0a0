"""How do calls travel over one connection between a node and a hosted plugin? Both ends run the same class."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.sdk import KnotworkError, PluginFailed
from knotwork.sdk.errors import from_wire
from knotwork.sockets import frames
from knotwork.sockets.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CANCEL_S = 1.0
CALLS_MAX = 20_000
NOTES_BACKLOG_BYTES = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Pending:
    answer: asyncio.Future[Any]
    about: Any


class Link:
    """One end. `handle(word, data, number)` answers the other end's calls, `on_note` hears its notes.

    `on_note(word, data, about)`: `about` is what the call was made with that the note belongs to, None in general.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handle: Callable[[str, Any, int], Awaitable[Any]],
        on_note: Callable[[str, Any, Any], None],
    ) -> None:
        """Take over the connection; nothing is read before `run`."""
        self._reader, self._writer = reader, writer
        self._handle, self._on_note = handle, on_note
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._lost: KnotworkError | None = None
        self.suspect = asyncio.Event()
        """Set when a cancelled call was not answered: the other end may hang."""

    async def run(self) -> None:
        """Read and serve until the other end is gone; then every pending call fails.

        Raises `PluginFailed` (`plugin.protocol`) when the other end does not keep to the protocol.
        """
        lost = PluginFailed("the plugin's process is gone", code="plugin.crashed")
        try:
            async with asyncio.TaskGroup() as group:
                while line := await self._line():
                    self._take(frames.decode(line), group)
                for task in self._serving.values():
                    task.cancel()
        except BaseExceptionGroup as errors:
            broke = next((error for error in errors.exceptions if isinstance(error, PluginFailed)), None)
            if broke is None:
                raise
            lost = PluginFailed(f"broke the protocol: {broke.message}", code="plugin.crashed")
            raise broke from errors
        finally:
            self.lose(lost)

    def lose(self, error: KnotworkError) -> None:
        """Fail every pending and every later call with `error`."""
        self._lost = self._lost or error
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(self._lost)
                pending.answer.exception()  # taken, should nobody wait for it any more

    async def call(self, word: str, data: Any = None, about: Any = None) -> Any:
        """Return the other end's answer; raises what it raised, `PluginFailed` (`plugin.crashed`) when it is gone.

        A caller that is cancelled takes the call back and waits a second at most for that to be done.
        """
        if self._lost is not None:
            raise self._lost
        number = next(self._numbers)
        line = frames.encode(Frame("call", number, word, data))
        pending = self._pending[number] = _Pending(asyncio.get_running_loop().create_future(), about)
        try:
            self._writer.write(line)
            await self._drain()
            await asyncio.wait([pending.answer])  # unlike a plain await, being cancelled here leaves the answer alive
            return pending.answer.result()
        except asyncio.CancelledError:
            await self._take_back(number, pending)
            raise
        finally:
            del self._pending[number]

    def note(self, word: str, data: Any = None, number: int = 0, *, droppable: bool = True) -> None:
        """Say something; dropped when the other end does not keep up, unless it may not be."""
        if droppable and self._writer.transport.get_write_buffer_size() > NOTES_BACKLOG_BYTES:
            return
        self._writer.write(frames.encode(Frame("note", number, word, data)))

    def about(self, number: Any) -> Any:
        """Return what a pending call was made with, None when it is over."""
        pending = self._pending.get(number) if isinstance(number, int) else None
        return pending.about if pending is not None else None

    def close(self) -> None:
        """Close the connection at once."""
        self._writer.close()

    async def _line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        except asyncio.LimitOverrunError as error:
            raise PluginFailed("a frame is over the limit", code="plugin.protocol") from error

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except (ConnectionError, RuntimeError):  # gone: `run` sees that too and fails the pending calls
            return

    async def _take_back(self, number: int, pending: _Pending) -> None:
        if pending.answer.done() or self._lost is not None:
            return
        self._writer.write(frames.encode(Frame("cancel", number)))
        done, _ = await asyncio.wait([pending.answer], timeout=CANCEL_S)
        if done:
            pending.answer.exception()
        else:
            self.suspect.set()

    def _take(self, frame: Frame, group: asyncio.TaskGroup) -> None:
        """Act on one frame of the other end."""
        if frame.t == "call":
            if len(self._serving) >= CALLS_MAX:
                raise PluginFailed(f"over {CALLS_MAX} calls at once", code="plugin.protocol")
            task = self._serving[frame.id] = group.create_task(self._serve(frame))
            task.add_done_callback(lambda _: self._served(frame.id, task))
        elif frame.t == "cancel":
            if frame.id in self._serving:
                self._serving[frame.id].cancel()
        elif frame.t == "note" and frame.id == 0:
            self._on_note(frame.word, frame.data, None)
        else:
            self._answered(frame)

    def _answered(self, frame: Frame) -> None:
        pending = self._pending.get(frame.id)
        if pending is None or pending.answer.done():
            return  # late: the caller has left
        if frame.t == "note":
            self._on_note(frame.word, frame.data, pending.about)
        elif frame.t == "result":
            pending.answer.set_result(frame.data)
        else:
            pending.answer.set_exception(from_wire(frame.data))

    async def _serve(self, frame: Frame) -> None:
        """Answer one call; whatever is raised travels to the caller."""
        error: KnotworkError
        try:
            answer = frames.encode(Frame("result", frame.id, data=await self._handle(frame.word, frame.data, frame.id)))
        except KnotworkError as ours:
            error = ours
        except Exception as raised:  # noqa: BLE001  the boundary between two processes: the caller gets it
            error = PluginFailed(f"{type(raised).__name__}: {str(raised)[:2000]}", code="plugin.raised")
        else:
            self._writer.write(answer)
            await self._drain()
            return
        self._writer.write(_error(frame.id, error))

    def _served(self, number: int, task: asyncio.Task[None]) -> None:
        """Forget a call that was answered; one that was taken back, maybe before it began, is answered now."""
        self._serving.pop(number, None)
        if task.cancelled() and not self._writer.is_closing():
            self._writer.write(frames.encode(Frame("result", number)))


def _error(number: int, error: KnotworkError) -> bytes:
    """Return the frame of an error, whatever a plugin made it of."""
    try:
        return frames.encode(Frame("error", number, data=error.to_wire()))
    except (TypeError, ValueError, RecursionError, KnotworkError):
        plain = PluginFailed(f"{type(error).__name__}, which cannot be told", code="plugin.raised")
        return frames.encode(Frame("error", number, data=plain.to_wire()))
