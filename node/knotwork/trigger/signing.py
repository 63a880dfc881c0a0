"""Was a request signed by somebody who knows the secret, and not too long ago? (pure).

Two ways: `X-Signature-256: sha256=<hex>` over the body (as GitHub's `X-Hub-Signature-256`, which is taken, too), and
Standard Webhooks (https://www.standardwebhooks.com): `webhook-id`, `webhook-timestamp`, `webhook-signature`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from knotwork.sdk.errors import Denied

_OVER_BODY = ("x-signature-256", "x-hub-signature-256")
_PREFIX = "whsec_"
_SIGNATURES_MAX = 16


def delivery(headers: Mapping[str, str], body: bytes, secret: str, now_s: float, window_s: float) -> str:
    """Return what tells a signed request from others: who sends it again is answered as before.

    `headers` have lower-case names. Raises `Denied` (`trigger.not_signed`, `trigger.bad_signature`, `trigger.stale`).
    """
    if "webhook-signature" in headers:
        return _standard(headers, body, secret, now_s, window_s)
    given = next((headers[name] for name in _OVER_BODY if name in headers), "")
    if not given:
        raise Denied(
            "The request is not signed.", code="trigger.not_signed",
            hint="Send X-Signature-256: sha256=<hex HMAC of the body>, or the headers of Standard Webhooks.",
        )  # fmt: skip
    wanted = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    _must_be_one_of([given.strip().lower()], wanted)
    return wanted


def _standard(headers: Mapping[str, str], body: bytes, secret: str, now_s: float, window_s: float) -> str:
    name, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not name or not at.isascii() or not at.isdigit():
        raise Denied("webhook-id and webhook-timestamp belong to a signature.", code="trigger.not_signed")
    signed = f"{name}.{at}.".encode("utf-8", "surrogateescape") + body
    wanted = base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode()
    given = [one.removeprefix("v1,") for one in headers["webhook-signature"].split() if one.startswith("v1,")]
    _must_be_one_of(given, wanted)
    if window_s and abs(now_s - int(at[:20])) > window_s:
        raise Denied(
            f"The request was signed at {at[:20]}, more than {window_s:g} s away from now.", code="trigger.stale",
            hint="Send it anew; is one of the clocks wrong?",
        )  # fmt: skip
    return f"id={name}"


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        return secret.encode()


def _must_be_one_of(given: list[str], wanted: str) -> None:
    found = False
    for one in given[:_SIGNATURES_MAX]:
        found |= hmac.compare_digest(one.encode("utf-8", "surrogateescape"), wanted.encode())
    if not found:
        raise Denied("The signature does not fit.", code="trigger.bad_signature", hint="Is it the same secret?")
