"""How is a run that is over written in HISTORY? As one list of its facts; a large one in pieces, and a list of its ends (pure).

The pieces are stored first and the ends last: so a run whose ends are there is there as a whole, unless retention has
begun to forget it. The ends say how many pieces there are, and how the run began and ended.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import patterns, reading, subjects
from knotwork.flow import briefly, facts
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from knotwork.bus.reading import Stored

PIECE_MAX_BYTES = 4 * 1024 * 1024
"""A run with more facts is written in pieces of about this size, a fact that is larger in one of its own."""
FACT_MAX_BYTES = 7 * 1024 * 1024
"""What is in a larger fact is left out, of an error the rest of it: with what is around it, it would not fit into one message."""
END_MAX_BYTES = 1024 * 1024
"""The same, for the start and the end of a run among its ends: the pieces have them whole."""
ROW_BYTES = 200
"""More than what a fact takes beside its data."""
_any = msgspec.json.Decoder(msgspec.Raw)


class Kept(msgspec.Struct, frozen=True):
    """One fact of a run that is over: its subject and place, when it was stored (RFC 3339), and what it says.

    Among the ends of a large run there is one whose subject is the pattern of its pieces, and `q` their number.
    """

    s: str
    q: int
    t: str
    d: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(list[Kept])


def is_whole(found: Sequence[Stored]) -> bool:
    """Return whether a run begins and ends in these facts: else others have packed it away while we read."""
    whats = {one.subject.split(".", 3)[3] for one in found}
    return {"start", "ended"} <= whats


def packed(found: Sequence[Stored]) -> bytes:
    """Return facts as one JSON list; what is no JSON, because somebody else wrote it, is left out."""
    return facts.encode([Kept(one.subject, one.seq, one.time, msgspec.Raw(_json(one.data))) for one in found])


def unpacked(data: bytes) -> list[Stored]:
    """Return the facts in such a list; raises `Invalid` (`flow.bad_history`)."""
    try:
        return [reading.Stored(one.s, bytes(one.d), one.q, one.t) for one in _decoder.decode(data)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"This is no history: {error}.", code="flow.bad_history") from error


def messages(run: str, found: Sequence[Stored]) -> Iterator[tuple[str, bytes]]:
    """Yield what is stored of a run, and where, in this order."""
    if size(found) <= PIECE_MAX_BYTES:
        yield subjects.history(run), packed(found)
        return
    names = "\n".join(f"{one.seq} {one.subject}" for one in found)
    tag = hashlib.sha256(names.encode()).hexdigest()[:16]  # two owners that found different facts do not mix them
    number = 0
    for number, part in enumerate(parts(found), start=1):
        yield subjects.history_piece(run, tag, number), packed([_lean(one, FACT_MAX_BYTES) for one in part])
    ends = [_lean(one, END_MAX_BYTES) for one in found if one.subject.split(".", 3)[3] in ("start", "ended")]
    pointer = reading.Stored(patterns.history_pieces(run, tag), b"", number, "")
    yield subjects.history(run), packed([*ends[:1], pointer, *ends[1:]])


def parts(found: Sequence[Stored]) -> Iterator[list[Stored]]:
    """Yield facts in their order, as many at a time as fit into one piece."""
    part: list[Stored] = []
    left = PIECE_MAX_BYTES
    for one in found:
        if part and size([one]) > left:
            yield part
            part, left = [], PIECE_MAX_BYTES
        part.append(one)
        left -= size([one])
    yield part


def pieces_of(rows: Sequence[Stored]) -> tuple[str, int]:
    """Return where the pieces of a run are, and how many, by what stands in its place; an empty text: it is all there."""
    return next(((one.subject, one.seq) for one in rows if not one.subject.startswith("run.")), ("", 0))


def ends(rows: Sequence[Stored]) -> list[Stored]:
    """Return the facts in the place of a run: all of them, or of a large one its start and its end."""
    return [one for one in rows if one.subject.startswith("run.")]


def size(found: Sequence[Stored]) -> int:
    """Return how many bytes facts take at most when they are packed."""
    return sum(len(one.data) + ROW_BYTES for one in found)


def _json(data: bytes) -> bytes:
    try:
        if not data.isascii():
            data.decode()
        _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b"null"
    return data


def _lean(stored: Stored, most: int) -> Stored:
    """Return a fact without what is large in it, when it is."""
    if len(stored.data) <= most:
        return stored
    data = b"null"
    try:
        match stored.subject.split(".", 3)[3]:
            case "start":
                start = msgspec.json.decode(stored.data, type=facts.Start)
                data = facts.encode(msgspec.structs.replace(start, input=facts.NULL, given={}, handed={}))
            case "ended":
                finish = msgspec.json.decode(stored.data, type=facts.Finish)
                data = facts.encode(msgspec.structs.replace(finish, output=facts.NULL))
            case what if what.startswith("outcome."):  # large for what a worker said of its failure
                outcome = msgspec.json.decode(stored.data, type=dict[str, Any])
                if isinstance(outcome.get("error"), dict):
                    data = facts.encode({**outcome, "error": briefly.kept(outcome["error"], END_MAX_BYTES)})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return msgspec.structs.replace(stored, data=data)
