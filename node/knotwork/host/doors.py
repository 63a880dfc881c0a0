"""How do ops arrive over NATS? One subscription for whoever answers first, one for this node alone.

The door only moves bytes: it makes a `Caller`, feeds `ops.serve.dispatch` and sends the frames back. Who may use it is
settled by the server: only users that may publish `op.>` get here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.bus import frames, patterns, subjects, way
from knotwork.bus.background import background
from knotwork.bus.credit import Credit
from knotwork.ops import serve
from knotwork.ops.op import Caller, Op
from knotwork.ops.table import TABLE
from knotwork.sdk.errors import Busy, Internal, KnotworkError, Unreachable
from knotwork.telemetry import trace

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.ops.ports import NodeControl
    from knotwork.trust.who import Who

log = logging.getLogger(__name__)
AT_ONCE_MAX = 10_000
UNDO_S = 5.0
"""How long a caller who left before he read his answer may say so, and what it gave him is taken back."""
VERDICT_S = 2.0
"""How long a door that closes waits for the answers to those who told the node to change: they may have closed it."""


class NatsDoor:
    """The op door of one project."""

    def __init__(self, connection: Connection, control: NodeControl, project: str, node: str) -> None:
        """Answer for `node` in `project`."""
        self._connection = connection
        self._control = control
        self._project = project
        self._node = node
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._credits: dict[str, Credit] = {}
        self._answered: dict[str, Caller] = {}
        self._running = 0
        self._verdicts: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, group: asyncio.TaskGroup) -> None:
        """Listen; answers run in tasks of `group`."""
        self._group = group
        await self._connection.listen(patterns.OPS, self._asked, queue="ops")
        await self._connection.listen(patterns.ops_of(self._node), self._asked)
        await self._connection.listen(patterns.OP_CANCELS, self._cancelled)
        await self._connection.listen(patterns.OP_CREDITS, self._used)

    def _asked(self, message: Message) -> None:
        parts = message.subject.split(".")
        if parts[1] in ("cancel", "credit") or not subjects.may_answer(message.reply) or self._group is None:
            return
        name = f"{parts[1]}.{parts[2]}"
        try:
            envelope = frames.read_envelope(message.headers)
            who = self._control.who(self._project, envelope.session)
            if self._running >= AT_ONCE_MAX:
                raise Busy("Too many requests are being answered.", code="ops.busy", retry_after_s=1.0)
            op = _op(name)
        except KnotworkError as error:
            with contextlib.suppress(KnotworkError):  # no room for it
                self._connection.send(message.reply, frames.error_body(error), "", frames.error_head(error))
            return
        self._running += 1
        task = self._group.create_task(self._answer(name, op, message, envelope, who))
        if envelope.id:
            self._tasks[envelope.id] = task
        if op is not None and op.effect == "admin" and not op.streams:
            self._verdicts.add(task)
            task.add_done_callback(self._verdicts.discard)
        task.add_done_callback(lambda task: self._done(task, name, message.reply, envelope.id))

    async def last_words(self) -> None:
        """Wait until those who told the node to change have their verdict, `VERDICT_S` seconds at most."""
        if self._verdicts:
            await asyncio.wait(self._verdicts, timeout=VERDICT_S)

    def close(self) -> None:
        """From here on whoever's answer is broken off is told so: the door leaves, and he would wait for its next sign."""
        self._closed = True

    def _done(self, task: asyncio.Task[None], name: str, reply: str, call: str) -> None:
        if self._closed and task.cancelled():
            self._part(name, reply)
        self._running -= 1
        self._tasks.pop(call, None)
        self._credits.pop(call, None)

    def _cancelled(self, message: Message) -> None:
        call = message.subject.rpartition(".")[2]
        if (caller := self._answered.pop(call, None)) is not None:  # he went while the answer was on its way
            caller.take_back()
        elif (task := self._tasks.get(call)) is not None:
            task.cancel()

    def _used(self, message: Message) -> None:
        credit = self._credits.get(message.subject.rpartition(".")[2])
        if credit is not None:
            credit.heard(message.data)

    async def _answer(self, name: str, op: Op | None, message: Message, envelope: frames.Envelope, who: Who) -> None:
        caller = Caller(
            name="local",  # the server lets only holders of the project's local key publish here
            project=self._project,
            door="nats",
            may="write" if envelope.session else "admin",
            label=envelope.caller,
            traceparent=trace.clean(envelope.traceparent),
            who=who,
        )
        if envelope.plain:  # one who gets no signs of life cannot be missed
            back, signs = way.Way(self._connection, message.reply), None
        else:
            task = asyncio.current_task()
            assert task is not None
            back = way.Way(self._connection, message.reply, task.cancel)
            signs = _Signs(back)
        answered = False
        try:
            if op is not None and not op.streams:
                frame = await serve.whole(op, message.data, caller, self._control)
                answered = await _send(back, frame, envelope, surely=bool(caller.undo))
                return
            credit = self._credit(envelope, signs)
            async with aclosing(serve.dispatch(name, message.data, caller, self._control)) as answers:
                async for frame in answers:
                    if frame.kind in frames.LAST or not envelope.plain:
                        answered = await _send(back, frame, envelope, credit, surely=bool(caller.undo))
        except Unreachable as error:
            answered = False
            log.debug("an answer is lost: %s", error)
        finally:
            if not answered:
                caller.take_back()
            elif caller.undo and envelope.id:
                self._answered[envelope.id] = caller
                asyncio.get_running_loop().call_later(UNDO_S, self._answered.pop, envelope.id, None)
            if signs is not None:
                signs.close()
            back.close()

    def _part(self, name: str, reply: str) -> None:
        """Tell a caller that there will be no answer, in the words of one who finds out by himself."""
        error = Unreachable(
            f"{self._node} leaves {self._project}, or stops, before it answered {name}.",
            code="node.lost",
            hint="What was asked may have been done or not; waiting for its end can be repeated.",
        )
        with contextlib.suppress(KnotworkError):  # the link is gone, too
            self._connection.send(reply, frames.error_body(error), "", frames.error_head(error))

    def _credit(self, envelope: frames.Envelope, signs: _Signs | None) -> Credit | None:
        """Return what is kept of a reader who says what he has used, None for one who does not."""
        if not (envelope.window and envelope.id) or signs is None:
            return None
        signs.credit = self._credits[envelope.id] = Credit(envelope.window)
        return signs.credit


def _op(name: str) -> Op | None:
    """Return an op, None when there is none of that name; raises `Internal` when it cannot be loaded."""
    try:
        return TABLE.get(name)
    except Exception as error:  # its module is read when it is first asked for, and may be another by then
        log.exception("%s cannot be loaded", name)
        raise Internal(
            f"{name} cannot be loaded: {type(error).__name__}: {error}.",
            hint="If Knotwork was exchanged while this node ran, start the node again.",
        ) from error


class _Signs:
    """Signs of life to one caller, until closed; with a `credit` they tell how much was sent."""

    def __init__(self, back: way.Way) -> None:
        self._back = back
        self.credit: Credit | None = None
        self._next = asyncio.get_running_loop().call_later(way.EVERY_S, self._sign)

    def _sign(self) -> None:
        self._next = asyncio.get_running_loop().call_later(way.EVERY_S, self._sign)
        if self.credit is not None and self.credit.sent:
            self._back.sign(head=self.credit.head("alive", 0))
        else:
            self._back.sign()

    def close(self) -> None:
        self._next.cancel()


async def _send(
    back: way.Way, frame: serve.Frame, envelope: frames.Envelope, credit: Credit | None = None, *, surely: bool
) -> bool:
    """Send one frame; when NATS is away it waits for it, as long as makes sense. Raises `Unreachable` after that.

    Waits for the `credit` of the reader, too. Returns False when it is known not to be received, which is found out
    only when that matters (`surely`).
    """
    head = frames.HEADS.get(frame.kind)
    if credit is not None and head is not None:
        await credit.room()
        head = credit.head(frame.kind, len(frame.data))
    if head is None:
        head = frames.error_head(frames.read_error(frame.data))
    within_s = min(way.KEEP_S, envelope.timeout_s or way.KEEP_S)
    try:
        if surely:
            answered = await back.hand_over(frame.data, head, within_s)
        else:
            await back.bring(frame.data, head, within_s)
            answered = True
        if credit is not None:
            credit.sent += len(frame.data)
    except Unreachable:
        raise
    except KnotworkError as error:  # too large
        await back.bring(frames.error_body(error), frames.error_head(error), within_s)
        return False
    return answered


@asynccontextmanager
async def open_nats_door(connection: Connection, control: NodeControl, project: str, node: str) -> AsyncIterator[None]:
    """Answer the ops of a project inside the block."""
    async with background() as group:
        door = NatsDoor(connection, control, project, node)
        await door.open(group)
        try:
            yield
            await door.last_words()
        finally:
            door.close()
