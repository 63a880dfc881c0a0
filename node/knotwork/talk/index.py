"""Which messages of channels are there, and what do they say? A SQLite file, read from TALK again at any time.

It holds exactly what a channel keeps: what is over its limits is taken out before anything is read. Words are indexed
when somebody searches for the first time, so that nobody pays for it who never does. Not for threads at once: whoever
uses it goes through `safely`, which lets one in at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from knotwork.bus import space
from knotwork.sdk.errors import Unavailable
from knotwork.talk import index_rows as rows
from knotwork.talk.message import Envelope, Said, decode, said

if TYPE_CHECKING:
    from knotwork.bus.reading import Stored
    from knotwork.talk.channel import Channel
    from knotwork.trust.who import Who

log = logging.getLogger(__name__)
WORDS_MAX = 256 * 1024
"""Characters of a message that are searched."""
WORDS_BATCH = 500
CACHE_KIB = 8 * 1024
_COLUMNS = "seq, channel, at_ns, raw"
T = TypeVar("T")
Row = tuple[int, str, int, bytes]
"""Place, channel, when it was stored, and the message itself."""


class _OtherVersion(sqlite3.DatabaseError):
    """The file was written by another version."""


class Index:
    """The index of one project."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it anew when it cannot be used; raises `OSError`, `Unavailable` (`talk.index_stuck`)."""
        self._path = path
        self._one = threading.Lock()  # who is cancelled while he waits for a thread does not end what it does
        self.made = 0
        """How often it was made anew."""
        try:
            self._open()
        except sqlite3.Error as error:
            if space.is_passing(error, path):
                raise self._stuck(error) from error
            log.info("the index of channels is made anew: %s", error)
            self.make_anew()

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._db.execute("PRAGMA journal_size_limit = 16777216")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                self._db.executescript(f"BEGIN; {rows.TABLES} PRAGMA user_version = {rows.VERSION}; COMMIT")
                self._db.execute("INSERT INTO place VALUES ('', 0, 0)")
            elif version != rows.VERSION:
                raise _OtherVersion  # noqa: TRY301  it is handled like a damaged file
            self._load()
        except BaseException:
            self._db.close()
            raise

    def _load(self) -> None:
        self.created, self.place, self._worded = self._db.execute("SELECT created, seq, words FROM place").fetchone()
        counted = self._db.execute("SELECT channel, count(*), sum(size), min(at_ns) FROM messages GROUP BY channel")
        self._totals = {channel: [count, size, at_ns] for channel, count, size, at_ns in counted}

    def make_anew(self) -> None:
        """Begin with an empty file."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self.made += 1
        self._open()

    def close(self) -> None:
        """Close the file; nothing is asked of it afterwards."""
        with contextlib.suppress(sqlite3.Error, AttributeError):
            self._db.close()

    def safely(self, work: Callable[[], T]) -> T | None:
        """Do something with it; None, and an empty index, when the file turned out to be damaged.

        Raises `Unavailable` (`talk.index_stuck`) when nothing can be written to it: on a full disk another file would be
        no better, and this one is good for what it holds.
        """
        with self._one:
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if space.is_passing(error, self._path):
                    self._undo()
                    raise self._stuck(error) from error
                log.warning("the index of channels is made anew: %s", error)
                self.make_anew()
                return None

    def _undo(self) -> None:
        """Take back what was begun, and count again what is there."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._load()

    def _stuck(self, error: sqlite3.Error) -> Unavailable:
        return Unavailable(
            f"The index of channels cannot be written on this node: {error}.", code="talk.index_stuck",
            hint=f"Make room for {self._path.parent}, or ask another node; it goes on by itself.", retry_after_s=5.0,
        )  # fmt: skip

    # -- writing -----------------------------------------------------------------------------------------------------

    def belongs_to(self, created: str) -> None:
        """Say which stream it is of, by when that was made: what it holds of another one is forgotten."""
        if self.created not in ("", created):
            self.make_anew()
        self._db.execute("UPDATE place SET created = ?", (created,))
        self.created = created

    def add(self, batch: list[Stored]) -> None:
        """Add what was read of the stream, in order; what is no message, or here already, is passed over."""
        read = [(one.data, said(one.subject, one.data, one.seq, one.time_ns)) for one in batch]
        found = [_row(data, one) for data, one in read if one is not None and one.place > self.place]
        self._db.execute("BEGIN")
        self._db.executemany(rows.INSERT, found)
        place = max(self.place, batch[-1].seq)  # who was cancelled may have come further than he could tell
        self._db.execute("UPDATE place SET seq = ?", (place,))
        self._db.execute("COMMIT")
        self.place = place
        for row in found:
            totals = self._totals.setdefault(row[1], [0, 0, row[2]])
            totals[0] += 1
            totals[1] += row[3]

    def trim(self, channels: Iterable[Channel], now_ns: int) -> dict[str, int]:
        """Take out what is over the limits, the oldest first; returns the place of the oldest left in each such channel."""
        cut = {}
        self._drop_expired(now_ns)
        for channel in channels:
            count, size, oldest_ns = self._totals.get(channel.name, (0, 0, 0))
            over, over_bytes = count - channel.max_messages, size - channel.max_bytes
            until_ns = now_ns - int(channel.max_age_s * 1e9)
            if not count or (over <= 0 and over_bytes <= 0 and oldest_ns >= until_ns):
                continue
            last, seen = 0, 0
            oldest = self._db.execute(
                "SELECT seq, size, at_ns FROM messages WHERE channel = ? ORDER BY seq", (channel.name,)
            )
            for seq, bytes_, at_ns in oldest:
                if seen >= over and over_bytes <= 0 and at_ns >= until_ns:
                    break
                last, seen, over_bytes = seq, seen + 1, over_bytes - bytes_
            oldest.close()
            if last:
                self._take_out(channel.name, "seq <= ?", last)
                cut[channel.name] = last + 1
        return cut

    def _drop_expired(self, now_ns: int) -> None:
        """Take out what is over by itself, as the server does: it does not count towards any limit."""
        over = "expires_ns > 0 AND expires_ns <= ?"
        for (channel,) in self._db.execute(f"SELECT DISTINCT channel FROM messages WHERE {over}", (now_ns,)).fetchall():  # noqa: S608  ours
            self._take_out(channel, over, now_ns)

    def _take_out(self, channel: str, condition: str, value: int) -> None:
        which = f"FROM messages WHERE channel = ? AND {condition}"
        self._db.execute("BEGIN")
        if self._worded:  # FTS5 wants to be told the words again that it is to forget
            worded = self._db.execute(f"SELECT seq, raw {which} AND seq <= ?", (channel, value, self._worded))
            told = ((seq, _words(raw)) for seq, raw in worded.fetchall())
            self._db.executemany("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", told)
        self._db.execute(f"DELETE {which}", (channel, value))
        self._db.execute("COMMIT")
        left = self._db.execute("SELECT count(*), sum(size), min(at_ns) FROM messages WHERE channel = ?", (channel,))
        count, size, oldest_ns = left.fetchone()
        self._totals[channel] = [count, size or 0, oldest_ns or 0]
        if not count:
            del self._totals[channel]

    # -- reading -----------------------------------------------------------------------------------------------------

    def count(self, channel: str) -> tuple[int, int]:
        """Return how many messages a channel holds, and their bytes, whoever may see them."""
        count, size, _ = self._totals.get(channel, (0, 0, 0))
        return count, size

    def hidden(self, who: Who, now_ns: int) -> dict[str, tuple[int, int]]:
        """Return how many messages of each channel somebody may not see, and their bytes."""
        found = self._db.execute(
            f"""SELECT channel, count(*), sum(size) FROM messages
            WHERE scope NOT IN ('team', 'public') AND NOT {rows.SEES} GROUP BY channel""",  # noqa: S608  ours
            rows.seer(who, now_ns),
        )
        return {channel: (count, size) for channel, count, size in found}

    def page(self, wish: rows.Wish, who: Who, now_ns: int) -> list[Row]:
        """Return the messages meant that somebody may see, in the order in which they were said."""
        condition, more = rows.where(wish)
        order = "DESC" if wish.newest else "ASC"
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE {condition} ORDER BY seq {order} LIMIT :limit",  # noqa: S608  ours
            {**rows.seer(who, now_ns), **more, "limit": wish.limit},
        ).fetchall()
        return found[::-1] if wish.newest else found

    def find(self, place: int, who: Who, now_ns: int) -> Row | None:
        """Return one message, None when it is not there or not for this one's eyes."""
        found: Row | None = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE seq = :seq AND {rows.SEES} AND {rows.LIVES}",  # noqa: S608  ours
            {**rows.seer(who, now_ns), "seq": place},
        ).fetchone()
        return found

    def unread(self, channel: str, after: int, who: Who, now_ns: int, *, before: int = 0) -> tuple[int, int, int]:
        """Return how many of others' messages lie between two places, how many mention this one, and the newest's place."""
        condition, more = rows.where(rows.Wish(channel=channel, after=after, before=before, others=True))
        sql = f"SELECT count(*), coalesce(sum({rows.MENTIONED}), 0), coalesce(max(seq), 0) FROM messages WHERE {condition}"  # noqa: S608  ours
        count, mentions, newest = self._db.execute(sql, {**rows.seer(who, now_ns), **more}).fetchone()
        return count, mentions, newest

    def search(self, expression: str, wish: rows.Wish, who: Who, now_ns: int) -> list[Row]:
        """Return the newest messages that hold all that is looked for; `expression` is what `index_rows` made of it."""
        condition, more = rows.where(wish)
        return self._db.execute(
            f"""SELECT {_COLUMNS} FROM messages WHERE seq IN (SELECT rowid FROM words WHERE words MATCH :query)
            AND {condition} ORDER BY seq DESC LIMIT :limit""",  # noqa: S608  conditions of ours
            {**rows.seer(who, now_ns), **more, "query": expression, "limit": wish.limit},
        ).fetchall()

    def word(self) -> bool:
        """Index the words of some messages more; returns whether there may be others."""
        batch = self._db.execute(
            "SELECT seq, raw FROM messages WHERE seq > ? ORDER BY seq LIMIT ?", (self._worded, WORDS_BATCH)
        ).fetchall()
        if batch:
            self._worded = batch[-1][0]
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO words (rowid, text) VALUES (?, ?)", [(seq, _words(raw)) for seq, raw in batch]
            )
            self._db.execute("UPDATE place SET words = ?", (self._worded,))
            self._db.execute("COMMIT")
        return len(batch) == WORDS_BATCH


def said_in(row: Row) -> Said:
    """Return the message of a row; raises what `message.decode` raises."""
    place, channel, at_ns, data = row
    return Said("channel", channel, place, at_ns, decode(data), len(data))


def _row(data: bytes, one: Said) -> tuple[int, str, int, int, str, str, str, str, str, str, int, str, bytes]:
    envelope = one.envelope
    mentions = f" {' '.join(envelope.mentions)} " if envelope.mentions else ""
    return (
        one.place, one.to, one.at_ns, one.size, envelope.sender, envelope.owner, envelope.project,
        envelope.scope, envelope.thread, envelope.kind, envelope.expires_ns, mentions, data,
    )  # fmt: skip


def _words(raw: bytes) -> str:
    """Return what is searched of a message that is here."""
    return searched(decode(raw))


def searched(envelope: Envelope) -> str:
    """Return what is searched of a message: its sender, its kind, its text and its data."""
    data = "" if envelope.data is None else str(envelope.data)
    return rows.spaced(f"{envelope.handle} {envelope.kind} {envelope.text[:WORDS_MAX]} {data[:WORDS_MAX]}")
