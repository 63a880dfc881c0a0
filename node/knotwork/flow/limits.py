"""Who decides which step may begin, over all nodes? Whoever writes it into the book of that limit first (LIMITS, by CAS).

So a limit holds exactly, whichever node looks after a run. Each node keeps a line of those that wait, the most urgent
first, and writes as many as fit in one step. Who ended is struck out; what a crash left is struck out by the owner of
its run.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, kv, subjects
from knotwork.bus.background import begin_in
from knotwork.bus.pauses import Pauses, insist
from knotwork.bus.waits import set_within
from knotwork.flow import admission
from knotwork.flow.admission import Book, Limit
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket, Entry

log = logging.getLogger(__name__)
AGAIN_S = 0.2
LOOK_S = 5.0
MISSED_S = 1.0
FORGET_S = 2 * 86400
"""How long an empty book is kept: longer than any rate that makes sense."""
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Book)


@dataclass(order=True, slots=True)
class _Waiter:  # its place is its own, so two are never equal
    place: tuple[int, int]
    holder: str = field(compare=False)
    limit: Limit = field(compare=False)
    answer: asyncio.Future[None] = field(compare=False)
    passed_over: Callable[[], bool] = field(compare=False)


@dataclass(eq=False, slots=True)
class _Line:
    """Those that wait here for one limit. `stir` is set when its book changed, or somebody came."""

    waiting: list[_Waiter] = field(default_factory=list)
    stir: asyncio.Event = field(default_factory=asyncio.Event)


class Limits:
    """The limits of one project, as this node sees them."""

    def __init__(self, group: asyncio.TaskGroup, connection: Connection) -> None:
        """Write books over `connection`, in tasks of `group`."""
        self._group, self._connection = group, connection
        self._bucket: Bucket = kv.Bucket(connection, subjects.LIMITS)
        self._books: dict[str, Book] = {}
        """As they were told; what is decided is decided by the stored ones."""
        self._lines: dict[str, _Line] = {}
        """Each is there, and served, while somebody waits in it."""
        self._order = itertools.count()
        self._news: dict[str, asyncio.Event] = {}
        """Those that are set when a book is changed."""

    async def open(self) -> None:
        """Make sure that there is a place for books."""
        await kv.open_bucket(self._connection, subjects.LIMITS)

    async def run(self, is_over: Callable[[str], bool]) -> None:
        """Watch the books, and strike out whoever is over and was left by a crash; for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="books")
            while True:
                await asyncio.sleep(LOOK_S)
                self.sweep(is_over)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(KnotworkError):
                await self._bucket.watch(self._changed, lambda: None)
            await asyncio.sleep(AGAIN_S)

    async def acquire(
        self, holder: str, limit: Limit, priority: int = 5, *, passed_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Return when `holder` is in the book of a limit; asked again, it may be there already.

        Others go before it while it is to be `passed_over`; when it is no more, ask again, or `look_again`.
        """
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._lines.get(limit.key)
        if line is None:
            line = self._lines[limit.key] = _Line()
            begin_in(self._group, self._serve(limit.key, line))
        heapq.heappush(line.waiting, _Waiter((-priority, next(self._order)), holder, limit, answer, passed_over))
        line.stir.set()
        try:
            await answer
        finally:
            if not answer.done():
                answer.cancel()

    async def acquire_at_once(self, holder: str, limit: Limit, *, instead_of: str = "") -> list[str]:
        """Write `holder` into the book of a limit when there is a place, be it that of `instead_of`; it waits for none.

        Returns who has the places when there is none, else nothing.
        """
        while True:
            book, read = await self._book(limit.key)
            others = admission.without(book, {instead_of})
            after = admission.admitted(others, limit, holder, clock.now_ns())
            if after is None:
                return list(others.holders)
            if after is others or await self._write(limit.key, after, read):
                return []

    async def changed(self, key: str) -> None:
        """Return when a book was changed, or after a second: a change before this was called is not told."""
        news = self._news.setdefault(key, asyncio.Event())
        await set_within(news, MISSED_S)
        self._news.pop(key, None)

    def look_again(self) -> None:
        """Look soon at whoever waits here: some may not be passed over any more."""
        for line in self._lines.values():
            line.stir.set()

    async def holders(self, key: str) -> list[str]:
        """Return who is in a book, as it is stored."""
        return list((await self._book(key))[0].holders)

    def release(self, holder: str, key: str) -> None:
        """Strike somebody out of a book, soon, and let him wait for it no more."""
        line = self._lines.get(key)
        for waiter in line.waiting if line is not None else ():
            if waiter.holder == holder and not waiter.answer.done():
                waiter.answer.cancel()
        begin_in(self._group, self._strike(key, {holder}))

    def sweep(self, is_over: Callable[[str], bool]) -> None:
        """Strike out whoever is over: what a node that crashed left."""
        for key, book in list(self._books.items()):
            gone = {holder for holder in book.holders if is_over(holder)}
            if gone:
                log.info("%d that are over are struck out of %s", len(gone), key)
                begin_in(self._group, self._strike(key, gone))

    # -- within ------------------------------------------------------------------------------------------------------

    async def _serve(self, key: str, line: _Line) -> None:
        """Let in whoever waits for a limit, until nobody does."""
        while line.waiting:
            line.stir.clear()
            while line.waiting and line.waiting[0].answer.done():
                heapq.heappop(line.waiting)
            try:
                pause_s = await self._admit(key, line)
            except KnotworkError as error:
                log.debug("who may begin by %s is decided in a moment: %s", key, error)
                pause_s = AGAIN_S
            except Exception:  # whoever waits would wait for ever
                log.exception("who may begin by %s cannot be decided", key)
                pause_s = LOOK_S
            if pause_s and line.waiting:
                await set_within(line.stir, min(pause_s, LOOK_S))
        del self._lines[key]

    async def _admit(self, key: str, line: _Line) -> float:
        """Write as many as fit; return how long to wait before the next try, 0 for at once."""
        book, read = await self._book(key)
        now_ns = clock.now_ns()
        after, chosen = book, 0
        waiting = [one for one in line.waiting if not one.answer.done() and not one.passed_over()]
        if not waiting:
            return LOOK_S
        # first who is in the book already, by an owner that died or lost the run: else they wait for each other for ever
        waiting.sort(key=lambda one: (one.holder not in book.holders, one.place))
        for waiter in waiting:
            found = admission.admitted(after, waiter.limit, waiter.holder, now_ns)
            if found is None:
                break
            after, chosen = found, chosen + 1
        if not chosen:
            return admission.wait_s(book, waiting[0].limit, now_ns) + 0.001
        if after is not book and not await self._write(key, after, read):
            return 0.0
        let_in = waiting[:chosen]
        for waiter in let_in:
            if waiter.answer.done():  # it gave up meanwhile
                begin_in(self._group, self._strike(key, {waiter.holder}))
            else:
                waiter.answer.set_result(None)
        line.waiting = [one for one in line.waiting if one not in let_in]  # others may have come meanwhile
        heapq.heapify(line.waiting)
        return 0.0

    async def _strike(self, key: str, holders: set[str]) -> None:
        async def struck() -> None:
            while True:
                book, read = await self._book(key)
                if not holders & book.holders.keys():
                    return
                if await self._write(key, admission.without(book, holders), read):
                    return

        await insist(struck, f"striking out of {key} who ended", Pauses(AGAIN_S))

    async def _book(self, key: str) -> tuple[Book, Entry | None]:
        entry = await self._bucket.get(key)
        return _read(entry.value) if entry is not None else Book(), entry

    async def _write(self, key: str, book: Book, read: Entry | None) -> bool:
        """Write a book in place of what was `read`; False when somebody else was faster."""
        ttl_s = None if book.holders else FORGET_S  # a key of a customer who never comes again
        return await self._bucket.swap(key, read, _encode(book), ttl_s=ttl_s)

    def _changed(self, entry: Entry) -> None:
        if entry.value is None:
            self._books.pop(entry.key, None)
        else:
            self._books[entry.key] = _read(entry.value)
        line = self._lines.get(entry.key)
        if line is not None:
            line.stir.set()
        if (news := self._news.pop(entry.key, None)) is not None:
            news.set()


def _read(value: bytes | None) -> Book:
    try:
        return _decoder.decode(value or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Book()
