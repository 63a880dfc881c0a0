"""How do the bundled plugins speak HTTP? What several need of it: whom to trust, no cookies, how long an answer asks to wait."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from knotwork.sdk import Unavailable

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

RETRY_AFTER_MAX_S = 86_400.0


def trusted(ca_file: str, *, verify: bool) -> ssl.SSLContext | bool:
    """Return what a client is to make of certificates (its `verify`): as usual, of this file alone, or nothing. Blocks.

    Raises `Unavailable` (`http.no_certificates`) when the file cannot be read.
    """
    if not (verify and ca_file):
        return verify
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(
            f"the certificates in {ca_file!r} cannot be read: {error}.",
            code="http.no_certificates",
            hint="Mend `ca_file`.",
        ) from error


def no_cookies() -> CookieJar:
    """Return a jar that takes none: one request must not carry what another was given."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy  # late, like the library that needs it

    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def retry_after_s(header: str, now_s: float) -> float | None:
    """Return the pause that a Retry-After header asks for, in seconds, at most a day; None when it says nothing.

    `now_s` is the time in seconds since 1970, for headers that name a date.
    """
    from email.utils import parsedate_to_datetime  # late, as it is rarely wanted and takes milliseconds to import

    header = header.strip()
    if not header:
        return None
    try:
        pause_s = (
            float(header)
            if header.isascii() and header.isdigit()
            else parsedate_to_datetime(header).timestamp() - now_s
        )
    except (ValueError, OverflowError):
        return None
    return min(max(pause_s, 0.0), RETRY_AFTER_MAX_S)
