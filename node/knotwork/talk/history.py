"""What was said in the channels? Pages of them, what is unread, what mentions somebody, what holds a word."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from knotwork.bus import clock, reading, streams, subjects
from knotwork.bus.fitting import ANSWER_MAX_BYTES, fitting
from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Invalid
from knotwork.talk import index_rows, message
from knotwork.talk.inbox_state import expired
from knotwork.talk.index import said_in, searched
from knotwork.talk.index_rows import Wish
from knotwork.talk.message import Said
from knotwork.trust.scopes import may_see

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.talk.channels import Channels
    from knotwork.talk.following import Following
    from knotwork.talk.inboxes import Inboxes
    from knotwork.talk.index import Index, Row
    from knotwork.talk.reads import Reads
    from knotwork.trust.who import Who

WATCH_BATCH = 200
POLL_S = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """Some messages in the order in which they were said, and cursors to both sides ("" when there is nothing older).

    `unread` counts what is unread behind them, `skipped` what counts as read from now on and was not shown.
    """

    messages: list[Said]
    older: str = ""
    newer: str = ""
    unread: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Unread:
    """How much of a channel somebody has not read: messages of others, and those of them that mention this one."""

    channel: str
    count: int
    mentions: int
    newest: str = ""


class History:
    """The channels of one project, as they can be read."""

    def __init__(
        self, connection: Connection, channels: Channels, following: Following, inboxes: Inboxes, reads: Reads
    ) -> None:
        """Read over `connection`."""
        self._connection, self._channels = connection, channels
        self._following, self._inboxes, self._reads = following, inboxes, reads

    async def page(self, who: Who, wish: Wish, *, unread: bool = False, mark: bool = True) -> Page:
        """Return a page of a channel, the newest unless a bound is wished for; with `unread` from the first unread on.

        What was shown counts as read from then on when `mark` is set and nothing was left out by a filter. Raises
        `NotFound` (`channel.not_found`), `Invalid` (`message.bad_cursor`) for a bound that nothing has come to.
        """
        asked = max(wish.after, wish.before)
        channel = (await self._channels.get(wish.channel)).name
        plain = not (wish.sender or wish.called or wish.thread or wish.kind or wish.mentions_me)
        marking = mark and plain and not wish.before
        since = (await self._reads.channels(who.id)).get(channel, 0)
        if unread:
            wish = replace(wish, after=max(since, wish.after), before=0, newest=False)
        elif wish.after:
            wish = replace(wish, newest=False)
        now_ns = clock.now_ns()

        def look(index: Index) -> tuple[list[Row], bool, int, int, int]:
            found = index.page(replace(wish, limit=wish.limit + 1), who, now_ns)
            more = len(found) > wish.limit
            if more:
                found = found[1:] if wish.newest else found[:-1]
            left, _, _ = index.unread(channel, max([since, *(row[0] for row in found)]), who, now_ns)
            before = index.unread(channel, since, who, now_ns, before=found[0][0])[0] if marking and found else 0
            return found, more, left, before, index.place

        rows, more, left, skipped, end = await self._following.ask(look)
        if asked > end:
            await self._must_have_been(asked)
        shown = fitting(rows[::-1], _size)[::-1] if wish.newest else fitting(rows, _size)
        rows, cut = shown, len(shown) < len(rows)
        if marking and rows and rows[-1][0] > since:
            self._reads.advance(who.id, channel, rows[-1][0])
        older = rows and ((more or cut) if wish.newest else bool(wish.after))
        newest = rows[-1][0] if rows else max(wish.after, wish.before - 1, 0)
        return Page(
            [said_in(row) for row in rows],
            index_rows.next_cursor(rows[0][0], older=True, of=channel) if older else "",
            index_rows.next_cursor(newest, older=False, of=channel),
            left,
            skipped,
        )

    async def _must_have_been(self, place: int) -> None:
        """Raise `Invalid` (`message.bad_cursor`) for a place that the stream has not come to.

        An index that was made anew may not know places whose messages are gone: so the stream itself is asked.
        """
        info = await streams.api(self._connection, f"STREAM.INFO.{subjects.TALK}")
        if place > int(info["state"]["last_seq"]):
            raise Invalid(
                f"Nothing was said at {place} yet: this is no cursor of an answer here.", code="message.bad_cursor",
                hint="Use `older` or `newer` of an answer, or no cursor for the newest.",
            )  # fmt: skip

    async def unread(self, who: Who) -> list[Unread]:
        """Return how much is unread, for every channel in use that is not archived."""
        places, now_ns = await self._reads.channels(who.id), clock.now_ns()
        return await self._following.ask(lambda index: self._unread(index, places, who, now_ns))

    async def counts(self, who: Who) -> dict[str, tuple[int, int]]:
        """Return how many messages and bytes each channel holds of what somebody may see."""
        now_ns = clock.now_ns()
        return await self._following.ask(lambda index: self._counts(index, who, now_ns))

    async def overview(self, who: Who) -> tuple[dict[str, tuple[int, int]], list[Unread]]:
        """Return the counts of every channel, and how much is unread, at one moment."""
        places, now_ns = await self._reads.channels(who.id), clock.now_ns()
        return await self._following.ask(
            lambda index: (self._counts(index, who, now_ns), self._unread(index, places, who, now_ns))
        )

    def _counts(self, index: Index, who: Who, now_ns: int) -> dict[str, tuple[int, int]]:
        hidden, found = index.hidden(who, now_ns), dict[str, tuple[int, int]]()
        for one in self._channels.all():
            (count, size), (less, smaller) = index.count(one.name), hidden.get(one.name, (0, 0))
            found[one.name] = (count - less, size - smaller)
        return found

    def _unread(self, index: Index, places: dict[str, int], who: Who, now_ns: int) -> list[Unread]:
        found = []
        for name in [one.name for one in self._channels.all() if not one.archived_ns]:
            count, mentions, newest = index.unread(name, places.get(name, 0), who, now_ns)
            found.append(Unread(name, count, mentions, message.name("channel", newest) if newest else ""))
        return found

    async def mark(self, who: Who, names: list[str], upto: str = "") -> dict[str, int]:
        """Mark channels as read, up to a message or as they are now; returns up to which place each is read."""
        for name in names:
            await self._channels.get(name)
        if upto:
            where, place = message.place_of(upto)
            if where != "channel":
                raise message.unknown(upto)
        else:
            place = message.PLACE_MAX
        place = min(place, await self._following.ask(lambda index: index.place))  # what comes later was not read
        return await self._reads.mark(who.id, dict.fromkeys(names, place))

    # -- as it happens -----------------------------------------------------------------------------------------------

    async def watch(self, who: Who, name: str, after: int | None = None) -> AsyncGenerator[Said, None]:
        """Yield what is said in a channel from now on, or from behind a place on; for ever."""
        channel = (await self._channels.get(name)).name
        subject, news = subjects.channel(channel), asyncio.Event()
        listening = await self._connection.listen(subjects.heard(subject), lambda _message: news.set())
        try:
            if after:
                await self._must_have_been(after)
            place = await self._last(subject) if after is None else after
            while True:
                news.clear()
                stored = await reading.batch(self._connection, subjects.TALK, subject, place + 1, WATCH_BATCH)
                for one in stored:
                    place = one.seq
                    said = message.said(one.subject, one.data, one.seq, one.time_ns)
                    if said is not None and _visible(said, who):
                        yield said
                if not stored:
                    await set_within(news, POLL_S)
        finally:
            self._connection.unlisten(listening)

    async def _last(self, subject: str) -> int:
        found = await reading.last(self._connection, subjects.TALK, subject)
        return found.seq if found is not None else 0

    # -- search ------------------------------------------------------------------------------------------------------

    async def search(self, who: Who, query: str, wish: Wish) -> list[Said]:
        """Return what was said in channels and holds all words of a query, the newest first.

        Raises `Invalid` (`message.bad_query`), `NotFound` (`channel.not_found`).
        """
        expression = index_rows.expression(query)
        if wish.channel:
            wish = replace(wish, channel=(await self._channels.get(wish.channel)).name)
        while await self._following.ask(lambda index: index.word()):
            pass
        now_ns = clock.now_ns()
        rows = await self._following.ask(lambda index: index.search(expression, wish, who, now_ns))
        return [said_in(row) for row in fitting(rows, _size)]

    async def search_inbox(
        self, who: Who, query: str, *, sender: str = "", before: int = 0, limit: int = 50
    ) -> list[Said]:
        """Return the messages of somebody's inbox that hold all words of a query, the newest first.

        With `before` only those that stand before that place.
        """
        expression = index_rows.expression(query)
        found: list[Said] = []
        batch: list[Said] = []
        size, now_ns = 0, clock.now_ns()
        async for one in self._inboxes.all(who.id):
            meant = not before or one.place < before
            if not meant or expired(one, now_ns) or sender not in ("", one.envelope.sender, one.envelope.shown):
                continue
            batch.append(one)
            size += one.size
            if size > ANSWER_MAX_BYTES:
                found = [*found, *await asyncio.to_thread(_matching, batch, expression)][-limit:]
                batch, size = [], 0
        found = [*found, *await asyncio.to_thread(_matching, batch, expression)][-limit:]
        return fitting(reversed(found), lambda one: one.size)


def _matching(batch: list[Said], expression: str) -> list[Said]:
    """Return the messages that fit, found by the same search as in channels."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute(index_rows.WORDS)
        told = [(place, searched(one.envelope)) for place, one in enumerate(batch)]
        db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", told)
        found = db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid", (expression,))
        return [batch[place] for (place,) in found]


def _size(row: Row) -> int:
    return len(row[3])


def _visible(one: Said, who: Who) -> bool:
    return may_see(one.envelope.scope, one.envelope.who, who) and not expired(one, clock.now_ns())
