"""Was the work with this idempotency key taken before? The id of its task comes from the key, so the task itself tells.

TASKS takes a first attempt with a key only while no attempt of that task stands there, in whatever queue: the server
compares and stores in one step, so of all who submit at once one is the first. What became of the task is in FACTS from
before it leaves TASKS. Its outcome leaves FACTS only after whoever packs it has put a small fact there that outlives it
for a day (`view.archive`), so FACTS alone can tell whether a key is new. Who asks, is held up for long, and stores what
was done meanwhile, notices afterwards; and a worker looks into FACTS before it begins a task that has a key.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from knotwork.bus import codec, patterns, reading, subjects
from knotwork.sdk.errors import Conflict, NotFound, Unavailable
from knotwork.work import lookup, records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knotwork.bus.connection import Connection
    from knotwork.work.records import Task


TRIES = 20
"""How often a task may be refused for an attempt of it in TASKS that is nowhere to be found: it may just be leaving."""


class Keyed:
    """Lets tasks of one project that have a key in, each once."""

    def __init__(self, connection: Connection, store: Callable[[Task], Awaitable[bool]]) -> None:
        """`store` puts a task into TASKS, and says False when there is an attempt of it already."""
        self._connection, self._store = connection, store
        self._submitting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def submit(self, task: Task) -> bool:
        """Store a task; False when the same work was taken before.

        Raises `Conflict` (`work.key_reused`), `Unavailable` (`work.key_blocked`).
        """
        lock = self._submitting.setdefault(task.run, asyncio.Lock())
        async with lock:  # in one batch of this process the server would not tell two of them apart
            return await self._submit(task)

    async def _submit(self, task: Task) -> bool:
        if not await is_new(self._connection, task.run) and await self._is_known(task):
            return False
        for _ in range(TRIES):
            if await self._store(task):
                return await is_new(self._connection, task.run) or not await self._ended_meanwhile(task)
            if await self._is_known(task):
                return False
        raise Unavailable(
            f"Something stands in a queue as {task.run} that cannot be read, or that no fact calls for: the key "
            f"{task.key!r} cannot be used.",
            code="work.key_blocked", hint="Look at its queue with `knotwork task list`, or use a new key.",
        )  # fmt: skip

    async def _is_known(self, task: Task) -> bool:
        """Return whether the same work was taken before; raises `Conflict` when it was other work."""
        asked = await kept(self._connection, task.run)
        if asked is None:
            sight = await lookup.look(self._connection, task.run)
            if sight is None:
                return False
            asked = sight.task.asked
        check_same(asked, task)
        return True

    async def _ended_meanwhile(self, task: Task) -> bool:
        """Return whether the same work had ended when a task was stored; it is taken out again then.

        Raises `Conflict` when it was other work.
        """
        asked = await kept(self._connection, task.run)
        if asked is None:
            sight = await lookup.look(self._connection, task.run)
            if sight is None or sight.task.submitted_ns == task.submitted_ns:
                return False  # it is this one
            asked = sight.task.asked
        stored = await reading.last(self._connection, subjects.TASKS, task.subject)
        if stored is not None and records.decode_task(stored.data).submitted_ns == task.submitted_ns:
            with contextlib.suppress(NotFound):
                await reading.delete(self._connection, subjects.TASKS, stored.seq)
        check_same(asked, task)
        return True


async def is_new(connection: Connection, run: str) -> bool:
    """Return whether there is no fact of a run at all: for a day from its end on there is one, when it has a key."""
    return await reading.last(connection, subjects.FACTS, patterns.facts_of(run)) is None


async def kept(connection: Connection, run: str) -> str | None:
    """Return what was asked for of a task that ended within a day (`asked`), None when no such fact is kept (yet)."""
    stored = await reading.last(connection, subjects.FACTS, subjects.keyed(run))
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored.data, type=_Kept).asked
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Kept(msgspec.Struct):
    asked: str = ""


def keyed_run(key: str) -> str:
    """Return the id of the task that has this idempotency key."""
    return records.derived(subjects.KEYED, key, 31)


def asked(task: Task) -> str:
    """Return what is the same for two submissions of the same work, and for nothing else (pure).

    However a client orders the keys of its input, its labels and the codes it retries on, it is the same one; and where
    it was placed does not matter, nor who submitted it, when, and until when it is wanted.
    """
    alike = msgspec.structs.replace(
        task, input=msgspec.Raw(codec.canonical(bytes(task.input))), labels=dict(sorted(task.labels.items())),
        retry=msgspec.structs.replace(task.retry, on=tuple(sorted(task.retry.on))), queue="", submitted_ns=0,
        traceparent="", by="", why="", deadline_ns=0, number=1, past=(), asked="", asker=None,
    )  # fmt: skip
    return records.derived("", records.encode(alike).decode(), 52)


def check_same(before: str, task: Task) -> None:
    """Raise `Conflict` (`work.key_reused`) when a task is other work than what was asked for `before` with its key."""
    if before and before != task.asked:
        raise Conflict(
            f"The key {task.key!r} was used for other work: {task.run}.", code="work.key_reused",
            hint="Use a new key, or submit exactly the same.", detail={"id": task.run},
        )  # fmt: skip
