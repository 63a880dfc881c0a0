"""What did the other side answer, and what does that mean for a launch?

One bounded request over HTTP, and one table that makes errors of ours from statuses, whoever the other side is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.sdk import Busy, Conflict, Denied, Invalid, KnotworkError, NotFound, Unavailable, Unreachable
from knotwork_plugins.over_http import no_cookies, retry_after_s, trusted
from knotwork_plugins.spinups import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx

ANSWER_MAX_BYTES = 4_194_304
SAID_MAX = 500
_TRY_AGAIN = frozenset({408, 425, 500, 502, 503, 504})
OK_FROM, REDIRECT_FROM, ERROR_FROM, SERVER_FROM = 200, 300, 400, 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def good(self) -> bool:
        """Say whether the status is one of success."""
        return OK_FROM <= self.status < REDIRECT_FROM

    def table(self, who: str) -> dict[str, Any]:
        """Return the JSON object in the body; raises `Unavailable` (`launch.bad_answer`) when there is none."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            begin = words.hide(self.body[:80].decode(errors="replace"))
            raise Unavailable(
                f"{who} answered {self.status} with something that is no JSON object: {begin!r}.",
                code="launch.bad_answer",
                hint="Is it really the right address, with no proxy between?",
            )
        return found

    def said(self, secrets: Iterable[str] = ()) -> str:
        """Return what it said about itself: `message` of a JSON object, else the beginning of the text."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found = None
        text = found.get("message") if isinstance(found, dict) else None
        if isinstance(found, dict) and not isinstance(text, str):
            text = next((found[key] for key in ("error", "detail", "title") if isinstance(found.get(key), str)), "")
        if text is None:
            text = self.body.decode(errors="replace")
        return " ".join(words.hide(str(text), secrets).split())[:SAID_MAX]


def client(*, verify: bool, ca_file: str, base: Path) -> httpx.AsyncClient:
    """Return a client without cookies that follows no redirect. Blocks: it imports httpx and reads certificates.

    Raises `Unavailable` (`http.no_certificates`) when `ca_file` cannot be read.
    """
    import httpx

    return httpx.AsyncClient(
        cookies=no_cookies(),
        verify=trusted(str(base / Path(ca_file).expanduser()) if ca_file else "", verify=verify),
        follow_redirects=False,
        timeout=None,  # noqa: S113  `ask` bounds it
        headers={"user-agent": "knotwork"},
    )


async def ask(
    client: httpx.AsyncClient, method: str, url: str, *, who: str, timeout_s: float, **options: Any
) -> Answer:
    """Send one request and return its answer, whatever its status; `timeout_s` (seconds) bounds all of it.

    Raises `Unreachable` when there is no connection, `Unavailable` when there is no whole answer in time or it is
    larger than 4 MiB, `Invalid` for a header that cannot carry its value: the library would tell that value.
    """
    import httpx

    for name, value in (options.get("headers") or {}).items():
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            raise Invalid(
                f"the header {name} cannot carry its value.",
                code="launch.bad_header",
                hint="Only plain characters on one line may stand in it; look at the secret it is made of.",
            )
    try:
        async with asyncio.timeout(timeout_s), client.stream(method, url, **options) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > ANSWER_MAX_BYTES:
                    raise Unavailable(
                        f"{who} answered with more than {ANSWER_MAX_BYTES} bytes.",
                        code="launch.bad_answer",
                        hint="Is it really the right address?",
                    )
            return Answer(answer.status_code, bytes(body), {k.lower(): v for k, v in answer.headers.items()})
    except (TimeoutError, httpx.TimeoutException) as error:
        raise silent(who, timeout_s) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise unreachable(who, error) from error


def silent(who: str, timeout_s: float) -> Unavailable:
    """Return the error for a time-out."""
    return Unavailable(
        f"{who} did not answer within {timeout_s:g} s.",
        code="launch.no_answer",
        hint="Try again; allow more time if it is only slow.",
    )


def unreachable(who: str, error: BaseException, hint: str = "Is it running, and does its name resolve?") -> Unreachable:
    """Return the error for no connection."""
    why = words.hide(str(error) or type(error).__name__).rstrip(".")
    return Unreachable(f"{who} cannot be reached: {why}.", code="launch.unreachable", hint=hint)


def refusal(
    answer: Answer,
    who: str,
    hints: Mapping[int, str] | None = None,
    *,
    secrets: Iterable[str] = (),
    now_s: float = 0.0,
) -> KnotworkError:
    """Return the error that a status other than one of success means; `hints` say what to do, by status.

    `now_s` is the time in seconds since 1970, for servers that ask for a pause until some date.
    """
    status, said = answer.status, answer.said(secrets)
    message = f"{who} answered {status}: {said.rstrip('.')}." if said else f"{who} answered {status}."
    hint = (hints or {}).get(status, "")
    pause_s = retry_after_s(answer.headers.get("retry-after", ""), now_s)
    error: KnotworkError
    match status:
        case 401:
            error = Denied(message, code="launch.denied", hint=hint or "Are the credentials right, and still valid?")
        case 403:
            error = Denied(message, code="launch.denied", hint=hint or "Give these credentials the right to do it.")
        case 404 | 410:
            error = NotFound(message, code="launch.not_found", hint=hint)
        case 409:
            error = Conflict(message, code="launch.conflict", hint=hint)
        case 429:
            error = Busy(message, code="launch.busy", hint=hint or "Wait, or start less.", retry_after_s=pause_s)
        case _ if status in _TRY_AGAIN or status >= SERVER_FROM:
            error = Unavailable(message, code="launch.unavailable", hint=hint or "Try again.", retry_after_s=pause_s)
        case _ if REDIRECT_FROM <= status < ERROR_FROM:
            where = words.hide(answer.headers.get("location", ""), secrets)[:SAID_MAX]
            error = Invalid(
                f"{who} answered {status}: it has moved to {where!r}.",
                code="launch.moved",
                hint="Write the new address; redirects are not followed, since the request carries secrets.",
            )
        case _:
            error = Invalid(message, code="launch.refused", hint=hint)
    return error.with_detail(status=status)
