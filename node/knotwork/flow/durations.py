"""How many seconds is a duration such as "1h30m", and when is a cron expression due? (pure)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from knotwork.sdk.errors import Invalid

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)"
"""One part of a duration that is written as a text."""
_PART = re.compile(DURATION)
_HOW = 'write a duration as "30s", "5m" or "1h30m"'
_WHOLE = re.compile(rf"(?:{DURATION})+")
_LONGEST = 64


def seconds(value: Any) -> Any:
    """Return a text such as "30s", "5m" or "1h30m" in seconds; what is no text is returned as it is.

    Raises `ValueError` for any other text.
    """
    if not isinstance(value, str):
        if isinstance(value, bool):
            raise ValueError(_HOW)  # noqa: TRY004  pydantic tells it to the user
        return value
    if len(value) > _LONGEST or not _WHOLE.fullmatch(value):
        raise ValueError(_HOW)
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))


def next_due(cron: str, zone: str, after_ns: int) -> int:
    """Return when a cron expression is next due, in nanoseconds since 1970; raises `Invalid` (`flow.bad_cron`).

    Five fields, or six with seconds first. Times that a clock skips when it is set forward are due right after; those
    that it shows twice when it is set back are due once, or both times when the hours are a `*` (as in Debian's cron).
    """
    try:
        start = datetime.fromtimestamp(after_ns // 1_000_000_000, UTC).astimezone(ZoneInfo(zone))
        return int(next(CronSim(cron, start)).timestamp()) * 1_000_000_000
    except StopIteration as error:
        raise Invalid(f"{cron!r} in {zone!r} is never due", code="flow.bad_cron") from error
    except (CronSimError, KeyError, ValueError, OverflowError, OSError) as error:
        raise Invalid(f"{cron!r} in {zone!r} is no time: {error}", code="flow.bad_cron") from error
