"""Who signed a request, how, and when."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from knotwork.sdk.errors import Denied
from knotwork.trigger import signing

SECRET, BODY, NOW_S = "a-long-secret", b'{"a": 1}', 1_700_000_000.0


def over_body(secret: str = SECRET, body: bytes = BODY) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard(key: bytes, at_s: float = NOW_S, name: str = "msg_1", body: bytes = BODY) -> dict[str, str]:
    signed = f"{name}.{at_s:.0f}.".encode() + body
    made = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": name, "webhook-timestamp": f"{at_s:.0f}", "webhook-signature": f"v1,AAAA v1,{made}"}


def delivery(headers: dict[str, str], secret: str = SECRET, body: bytes = BODY, window_s: float = 300) -> str:
    return signing.delivery(headers, body, secret, NOW_S, window_s)


@pytest.mark.parametrize("name", ["x-signature-256", "x-hub-signature-256"])
def test_a_signature_over_the_body(name: str):
    assert delivery({name: over_body()}) == delivery({name: over_body().upper().replace("SHA", "sha")})


def test_the_example_of_standard_webhooks():
    """From the specification's own test vector: whatever signs like it is taken."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }  # fmt: skip
    body = b'{"test": 2432232314}'
    assert signing.delivery(headers, body, secret, 1614265331.0, 300) == "id=msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_standard_webhooks_with_either_kind_of_secret():
    key = b"some key of many bytes"
    assert delivery(standard(key), "whsec_" + base64.b64encode(key).decode()) == "id=msg_1"
    assert delivery(standard(SECRET.encode())) == "id=msg_1"
    assert delivery(standard(b"whsec_%"), "whsec_%") == "id=msg_1"  # begins so, and is none


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "not_signed"),
        ({"x-signature-256": ""}, "not_signed"),
        ({"x-signature-256": "sha256=00"}, "bad_signature"),
        ({"x-signature-256": over_body("another")}, "bad_signature"),
        ({"x-signature-256": over_body(body=b"other")}, "bad_signature"),
        ({"x-signature-256": "\udcff\xe9"}, "bad_signature"),
        ({"webhook-signature": "v1,x"}, "not_signed"),
        ({**standard(SECRET.encode()), "webhook-timestamp": "soon"}, "not_signed"),
        ({**standard(SECRET.encode()), "webhook-timestamp": "١٢"}, "not_signed"),
        ({**standard(SECRET.encode()), "webhook-id": "msg_2"}, "bad_signature"),
        (standard(b"another"), "bad_signature"),
        ({**standard(SECRET.encode()), "webhook-signature": "v2,x " * 30}, "bad_signature"),
        (standard(SECRET.encode(), NOW_S - 301), "stale"),
        (standard(SECRET.encode(), NOW_S + 301), "stale"),
        (standard(SECRET.encode(), 10**19), "stale"),
    ],
)
def test_what_is_refused(headers: dict[str, str], code: str):
    with pytest.raises(Denied) as refused:
        delivery(headers)
    assert refused.value.code == f"trigger.{code}"
    assert SECRET not in str(refused.value)


def test_without_a_window_age_does_not_matter():
    assert delivery(standard(SECRET.encode(), NOW_S - 10**6), window_s=0) == "id=msg_1"
