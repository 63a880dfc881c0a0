"""What went wrong at a vendor, and is it worth another try?

Command lines and HTTP endpoints of AI vendors report the same few troubles in many spellings: a status, a short kind
(`rate_limit`, `authentication_failed`, `RESOURCE_EXHAUSTED`), or only a sentence. `sort` turns them into one `Trouble`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from knotwork.sdk import Failed

MESSAGE_MAX = 2_000
RETRY_AFTER_MAX_S = 86_400.0

RATE_LIMITED = "agent.rate_limited"
OVERLOADED = "agent.overloaded"
UNAUTHENTICATED = "agent.unauthenticated"
OUT_OF_CREDIT = "agent.out_of_credit"
FAILED = "agent.failed"

_RETRIABLE = frozenset({RATE_LIMITED, OVERLOADED})
_BY_STATUS = {
    401: UNAUTHENTICATED,
    402: OUT_OF_CREDIT,
    403: UNAUTHENTICATED,
    408: OVERLOADED,
    409: OVERLOADED,
    425: OVERLOADED,
    429: RATE_LIMITED,
}
_SERVER_ERRORS = range(500, 600)
# Checked in this order: "insufficient_quota" comes with status 429, yet no waiting helps.
_BY_WORDS = (
    (
        OUT_OF_CREDIT,
        re.compile(r"insufficient_quota|quota_exceeded|billing_error|payment required|credit balance", re.IGNORECASE),
    ),
    (
        RATE_LIMITED,
        re.compile(
            r"rate.?limit|too many requests|resource.?exhausted|quota exceeded|exceeded your current quota"
            r"|usage limit|hit your .{0,30}limit|\b429\b",
            re.IGNORECASE,
        ),
    ),
    (
        OVERLOADED,
        re.compile(
            r"overloaded|server_error|service unavailable|internal server error|bad gateway|gateway time.?out"
            r"|stream disconnected|connection (?:error|reset|refused)|fetch failed|\b(?:500|502|503|504|529)\b",
            re.IGNORECASE,
        ),
    ),
    (
        UNAUTHENTICATED,
        re.compile(
            r"authenticat|unauthori[sz]ed|invalid api key|api key not valid|api.key.{0,30}(?:missing|not set|required)"
            r"|not logged in|please (?:run )?/?log ?in|oauth|no auth|\b401\b|permission_error",
            re.IGNORECASE,
        ),
    ),
)
_PAUSE = re.compile(
    r"(?:retry[-_ ]?(?:after|in|delay)|try again in)\W{0,6}"
    r"(?:(?P<hours>\d{1,4})\s*h(?:ours?)?\s*)?(?:(?P<minutes>\d{1,4})\s*m(?:in(?:utes?)?)?(?!s)\s*)?"
    r"(?:(?P<seconds>\d{1,7}(?:\.\d{1,6})?)\s*(?P<unit>ms|s|sec|seconds?)?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A sorted failure. `retry_after_s` is in seconds, None when nothing was said."""

    message: str
    code: str = FAILED
    retriable: bool = False
    retry_after_s: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def failed(self, hint: str = "", **detail: Any) -> Failed:
        """Return the outcome; the hint, what to do next, becomes the end of the message."""
        message = f"{self.message.rstrip()} {hint}".strip() if hint else self.message
        return Failed(
            message,
            code=self.code,
            retriable=self.retriable,
            retry_after_s=self.retry_after_s if self.retriable else None,
            detail={**self.detail, **detail},
        )


def sort(message: str, *, status: int | None = None, kind: str = "", retry_after_s: float | None = None) -> Trouble:
    """Return the trouble that a message, an HTTP status and the vendor's own word for it describe."""
    message = message.strip()[:MESSAGE_MAX] or kind or "it failed without saying why"
    code = _code(message, status, kind)
    if retry_after_s is None:
        retry_after_s = pause_in(f"{kind} {message}")
    detail: dict[str, Any] = {}
    if status is not None:
        detail["status"] = status
    if kind:
        detail["kind"] = kind[:200]
    return Trouble(message, code, code in _RETRIABLE, bounded_pause(retry_after_s), detail)


def _code(message: str, status: int | None, kind: str) -> str:
    by_kind = next((code for code, words in _BY_WORDS if kind and words.search(kind)), None)
    if by_kind == OUT_OF_CREDIT:
        return OUT_OF_CREDIT
    if status is not None:
        if status in _SERVER_ERRORS:
            return OVERLOADED
        return _BY_STATUS.get(status, by_kind or FAILED)
    return by_kind or next((code for code, words in _BY_WORDS if words.search(message)), FAILED)


def pause_in(text: str) -> float | None:
    """Return the pause in seconds that a sentence asks for (`try again in 1m30s`, `retryDelay: "23s"`), else None."""
    match = _PAUSE.search(text[:MESSAGE_MAX])
    if match is None or not any(match.group("hours", "minutes", "seconds")):
        return None
    seconds = float(match["seconds"] or 0)
    if (match["unit"] or "").lower() == "ms":
        seconds /= 1000
    return float(match["hours"] or 0) * 3600 + float(match["minutes"] or 0) * 60 + seconds


def bounded_pause(seconds: float | None) -> float | None:
    """Return `seconds` kept within 0 and a day; None for None and for anything that is not a finite number."""
    if seconds is None or seconds != seconds:  # noqa: PLR0124 - only NaN differs from itself
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)
