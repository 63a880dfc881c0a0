"""When is a trigger due, which of its times were missed, and which of those are made up for? (pure).

Times are nanoseconds since 1970. With five fields a time that the clock skips in spring is due right after the gap, and
one that it shows twice in autumn is due once, unless hours or minutes are a `*` (Debian's cron, by way of cronsim).
With six fields the wall clock counts as it is: what it skips is not due, what it shows twice is due twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from knotwork.sdk.errors import Invalid

S = 1_000_000_000
MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
AT_ONCE_MAX = 1000
"""Times that are looked at in one go."""
Missed = Literal["skip", "one", "all"]


@dataclass(frozen=True, slots=True)
class Dues:
    """What is due: `times` to fire for; `skipped` missed ones are not made up for; all is settled up to `upto_ns`.

    Of missed times the last `AT_ONCE_MAX` are counted.
    """

    times: tuple[int, ...]
    upto_ns: int
    skipped: int = 0


def no_zone(zone: str) -> str:
    """Return what is wrong with the name of a time zone; an empty text when it is one."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return f"there is no time zone {zone!r}: write a name such as Europe/Berlin, or UTC"
    return ""


def must_be_due(cron: str, zone: str) -> None:
    """Raise `ValueError` for an expression, or a time zone, that means nothing."""
    try:
        next(after(cron, zone, 0))
    except StopIteration:
        raise ValueError(f"{cron!r} in {zone!r} is never due") from None
    except Invalid as error:
        raise ValueError(error.message) from error


def after(cron: str, zone: str, since_ns: int) -> Iterator[int]:
    """Yield every time after one at which an expression is due; raises `Invalid` (`trigger.bad_cron`)."""
    for moment in _simulated(cron, zone, since_ns // S, reverse=False):
        found = int(moment.timestamp()) * S
        if found > since_ns:
            yield found


def _simulated(cron: str, zone: str, at_s: int, *, reverse: bool) -> Iterator[datetime]:
    try:
        at = datetime.fromtimestamp(at_s, UTC).astimezone(ZoneInfo(zone))
        simulated = CronSim(MACROS.get(cron.strip().lower(), cron), at, reverse=reverse)
    except (CronSimError, KeyError, ValueError, OverflowError, OSError) as error:
        raise Invalid(f"{cron!r} in {zone!r} is no time: {error}", code="trigger.bad_cron") from error
    return simulated


def between(cron: str, zone: str, after_ns: int, upto_ns: int, cap: int) -> tuple[list[int], bool]:
    """Return the last `cap` times after one moment and up to another, and whether there were more before them."""
    begin_ns = after_ns
    back = _simulated(cron, zone, upto_ns // S + 1, reverse=True)
    for _ in range(cap + 1):
        moment = next(back, None)
        begin_ns = int(moment.timestamp()) * S - S if moment is not None else after_ns
        if begin_ns <= after_ns:
            begin_ns = after_ns
            break
    found: list[int] = []
    for time_ns in after(cron, zone, begin_ns):  # forward alone says what is due when the clock is set
        if time_ns > upto_ns:
            break
        found.append(time_ns)
    return found[-cap:], len(found) > cap or begin_ns > after_ns


def dues(cron: str, zone: str, since_ns: int, now_ns: int, *, grace_s: float, missed: Missed, cap: int) -> Dues:
    """Return what has come due since `since_ns`; what did so longer ago than `grace_s` was missed."""
    fresh_ns = now_ns - int(grace_s * S) - 1
    settled_ns = max(since_ns, fresh_ns)
    fresh, _ = between(cron, zone, settled_ns, now_ns, AT_ONCE_MAX)
    if settled_ns == since_ns:
        return Dues(tuple(fresh), max(now_ns, since_ns))
    old, _ = between(cron, zone, since_ns, settled_ns, AT_ONCE_MAX)
    chosen = {"skip": [], "one": old[-1:], "all": old[-cap:]}[missed]
    return Dues((*chosen, *fresh), now_ns, len(old) - len(chosen))


def late_ns(key: str, jitter_s: float) -> int:
    """Return how much later than its time something fires: the same for the same key, wherever it is asked."""
    if jitter_s <= 0:
        return 0
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
    return int(share * jitter_s * S)


def told(time_ns: int) -> str:
    """Return a time as RFC 3339 in UTC; whole seconds have no fraction."""
    when = datetime.fromtimestamp(time_ns // S, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    part = f"{time_ns % S:09d}".rstrip("0")
    return f"{when}.{part}Z" if part else f"{when}Z"


def key(trigger: str, time_ns: int) -> str:
    """Return the key of the one run that a time of a trigger starts."""
    return f"{trigger}/{told(time_ns)}"
