"""May one more begin? Concurrency and rate limits, as a book for each key that is changed in one step (pure).

Who begins is written into the book before it begins, and struck out when it has ended; a rate is a bucket of units that
fills steadily (token bucket). Times are nanoseconds since 1970.
"""

from __future__ import annotations

import hashlib
import math

import msgspec

S = 1_000_000_000
RUN = "run"
"""What stands for a whole run in a book; no step is called so there, because its name has a prefix."""
_STEP = "s."


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many may be under way at a time (0: any number), and how many units may begin in `per_s` seconds (0: any)."""

    key: str
    concurrency: int = 0
    rate: float = 0.0
    per_s: float = 1.0
    units: float = 1.0


class Book(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is under way, since when; and how many units are `spent` of a rate, as of `at_ns`."""

    holders: dict[str, int] = {}
    spent: float = 0.0
    at_ns: int = 0


def admitted(book: Book, limit: Limit, holder: str, now_ns: int) -> Book | None:
    """Return the book with one more in it, None when it has to wait; who is in it already is not written again."""
    if holder in book.holders:
        return book
    if limit.concurrency and len(book.holders) >= limit.concurrency:
        return None
    spent = _left(book, limit, now_ns)
    if limit.rate:
        if spent > 0 and spent + limit.units > limit.rate:
            return None
        spent += limit.units
    return Book({**book.holders, holder: now_ns}, spent, now_ns)


def wait_s(book: Book, limit: Limit, now_ns: int) -> float:
    """Return in how many seconds the rate allows one more; infinity when it is not the rate that is waited for."""
    if not limit.rate or (limit.concurrency and len(book.holders) >= limit.concurrency):
        return math.inf
    over = min(_left(book, limit, now_ns), _left(book, limit, now_ns) + limit.units - limit.rate)
    return max(0.0, over * limit.per_s / limit.rate)


def without(book: Book, holders: set[str]) -> Book:
    """Return the book without some who have ended."""
    kept = {name: since for name, since in book.holders.items() if name not in holders}
    return msgspec.structs.replace(book, holders=kept)


def _left(book: Book, limit: Limit, now_ns: int) -> float:
    """Return how many units count as spent now: they come back steadily."""
    if not limit.rate:
        return 0.0
    back = max(0, now_ns - book.at_ns) / S / limit.per_s * limit.rate
    return max(0.0, book.spent - back)


def key_of(scope: str, name: str, value: bytes = b"") -> str:
    """Return the key of a limit: what it is about, and the JSON value that it is kept apart by."""
    apart = f".{hashlib.sha256(value).hexdigest()[:20]}" if value else ""
    return f"{scope}.{name}{apart}"


def holder(run: str, token: str, tries: int = 0) -> str:
    """Return what an attempt of a step, or a whole run (`RUN`), is called in a book."""
    if token == RUN:
        return f"{run}.{token}"
    return f"{run}.{_STEP}{token}.{tries}" if tries else f"{run}.{_STEP}{token}"


def held_by(holder: str) -> tuple[str, str]:
    """Return the run of a holder, and its attempt of a step: `<token>` or `<token>.<tries>`, "" for the whole run."""
    run, _, rest = holder.partition(".")
    return run, rest.removeprefix(_STEP) if rest.startswith(_STEP) else ""


def named(holder: str) -> str:
    """Return a holder as it is told to people: `<run>`, or `<run>/<step>`."""
    run, attempt = held_by(holder)
    return f"{run}/{attempt.partition('.')[0]}" if attempt else run
