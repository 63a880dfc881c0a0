"""How does the index of channels look, and what may be read from it by whom? Its tables and conditions (pure).

What is visible is said once, in `trust.scopes`; here it stands in the words of SQL, and a test compares the two.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from knotwork.bus import digits
from knotwork.sdk.errors import Invalid
from knotwork.trust.who import Who

VERSION = 4
"""Raise it with every change below."""
WORDS = "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='unicode61 remove_diacritics 2')"
"""How words are found, in channels and in an inbox alike."""
TABLES = f"""
CREATE TABLE place (created TEXT NOT NULL, seq INTEGER NOT NULL, words INTEGER NOT NULL);
CREATE TABLE messages (
  seq INTEGER PRIMARY KEY,
  channel TEXT NOT NULL,
  at_ns INTEGER NOT NULL,
  size INTEGER NOT NULL,
  sender TEXT NOT NULL,
  owner TEXT NOT NULL,
  project TEXT NOT NULL,
  scope TEXT NOT NULL,
  thread TEXT NOT NULL,
  kind TEXT NOT NULL,
  expires_ns INTEGER NOT NULL,
  mentions TEXT NOT NULL,
  raw BLOB NOT NULL
);
CREATE INDEX messages_channel ON messages (channel, seq, size);
CREATE INDEX messages_thread ON messages (thread) WHERE thread <> '';
CREATE INDEX messages_not_for_all ON messages (channel) WHERE scope NOT IN ('team', 'public');
CREATE INDEX messages_expires ON messages (expires_ns) WHERE expires_ns > 0;
{WORDS};
"""
INSERT = "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Letters of Thai, Lao, Burmese, Khmer, Japanese and Chinese, which are written without spaces between words."""
SEES = """(
  (sender = :id AND project = :project) OR scope = 'public' OR (scope = 'team' AND project = :project)
  OR (scope = 'personal' AND owner = :owner AND owner <> '')
)"""
LIVES = "(expires_ns = 0 OR expires_ns > :now_ns)"
MENTIONED = "instr(mentions, :mentioned) > 0"


@dataclass(frozen=True, slots=True)
class Wish:
    """Which messages of channels are meant; empty fields mean any. Places are those in the stream, 0 for no bound.

    `sender` is an id, `called` the name that its messages bear, of one that nobody knows by an id any more; `thread` the
    id of the first message. With `newest` the last `limit` of them are meant.
    """

    channel: str = ""
    after: int = 0
    before: int = 0
    sender: str = ""
    called: str = ""
    thread: str = ""
    kind: str = ""
    mentions_me: bool = False
    others: bool = False
    newest: bool = True
    limit: int = 50


def seer(who: Who, now_ns: int) -> dict[str, object]:
    """Return the parameters of `SEES`, `LIVES` and `MENTIONED` for somebody."""
    return {
        "id": who.id, "project": who.project, "owner": who.owner, "now_ns": now_ns, "mentioned": f" {who.id} ",
    }  # fmt: skip


def where(wish: Wish) -> tuple[str, dict[str, object]]:
    """Return the condition of a wish, with its parameters beside those of `seer`."""
    parts = [SEES, LIVES]
    more: dict[str, object] = {}
    for column, sign, name, value in (
        ("channel", "=", "channel", wish.channel),
        ("seq", ">", "after", wish.after),
        ("seq", "<", "before", wish.before),
        ("sender", "=", "by", wish.sender),
        ("kind", "=", "kind", wish.kind),
    ):
        if value:
            parts.append(f"{column} {sign} :{name}")
            more[name] = value
    if wish.thread:
        parts.append("(thread = :thread OR seq = :root)")
        more |= {"thread": wish.thread, "root": int(wish.thread[1:]) if wish.thread[:1] == "m" else 0}
    if wish.called:
        parts.append("(sender = :called OR json_extract(CAST(raw AS TEXT), '$.handle') = :called)")
        more["called"] = wish.called
    if wish.mentions_me:
        parts.append(MENTIONED)
    if wish.others:
        parts.append("sender <> :id")
    return " AND ".join(parts), more


def expression(query: str) -> str:
    """Return what FTS5 is asked for words and "phrases": all of them, a word that ends in * as a beginning.

    Raises `Invalid` (`message.bad_query`) for a query without a word. Nothing in it can be an operator.
    """
    parts = []
    for place, piece in enumerate(query.split('"')):
        if place % 2:
            parts += [_quoted(piece, "")] if _has_word(piece) else []
        else:
            parts += [_quoted(word.rstrip("*"), "*" * word.endswith("*")) for word in piece.split() if _has_word(word)]
    if not parts:
        raise Invalid(
            "There is no word to look for.", code="message.bad_query",
            hint='Give words, "a phrase", or the beginning of a word followed by *.',
        )  # fmt: skip
    return " ".join(parts[:64])


def _has_word(text: str) -> bool:
    return any(char.isalnum() for char in text)


def _quoted(text: str, star: str) -> str:
    return f'"{spaced(text)}"{star}'.replace("\x00", " ")


def spaced(text: str) -> str:
    """Return a text as it is searched: where words are not told apart each letter is one, and a word a phrase of them."""
    return _UNSPACED.sub(r" \g<0> ", text)


INBOX = " inbox"
"""Of what the cursors of inboxes are: no channel is called so."""


def next_cursor(place: int, *, older: bool, of: str) -> str:
    """Return the cursor of the page before or behind a place; it means the same whatever is sent meanwhile.

    `of` is the channel that was read, or `INBOX`: a mark behind the place keeps it from being taken for another.
    """
    return f"{'b' if older else 'a'}{place}-{_mark(of)}"


def _mark(of: str) -> str:
    return f"{zlib.crc32(of.encode()) & 0xFFFF:04x}"


def cursor(text: str, of: str) -> tuple[int, int]:
    """Return what a cursor stands for, `after` and `before`; one made by hand, such as b120, needs no mark.

    Raises `Invalid` (`message.bad_cursor`, `message.other_cursor`).
    """
    place_text, dash, mark = text[1:].partition("-")
    place = digits.read(place_text, 15) if not dash or re.fullmatch("[0-9a-f]{4}", mark) else None
    if text[:1] not in ("a", "b") or place is None:
        raise Invalid(
            f"{text[:32]!r} is no cursor of ours.", code="message.bad_cursor",
            hint="Use `older` or `newer` of an answer, or no cursor for the newest.",
        )  # fmt: skip
    if dash and mark != _mark(of):
        here = "inboxes" if of == INBOX else f"the channel {of}"
        raise Invalid(
            f"{text[:32]!r} is no cursor of {here}: it was given for another place.", code="message.other_cursor",
            hint="Use `older` or `newer` of an answer of that one, or no cursor for the newest.",
        )  # fmt: skip
    return (place, 0) if text[0] == "a" else (0, max(1, place))
